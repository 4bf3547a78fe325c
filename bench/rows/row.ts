// A row of the table: one kind of work, how it is set going, and what a unit of it is.

import type { Load } from '../load/children.ts';
import type { NginxFile, Target } from '../peers/peer.ts';
import type { Stage } from '../stage.ts';
import type { RowId } from './ids.ts';

/** A proxy that runs, ready to be measured. */
export interface Subject {
  /** On 127.0.0.1, TLS, for `localhost`. */
  readonly port: number;
  readonly pid: number;
  /** From the start of the process to the first byte of its first reply. */
  readonly firstByteMs: number;
  /** The file that takes what it writes to stdout and stderr. */
  readonly log: string;
}

export interface Measurement {
  readonly subject: Subject;
  readonly stage: Stage;
}

/** Work that goes on until it is ended: its cost is the proxy's CPU time per unit, all peers in turn. */
export interface LoadRow extends RowBase {
  /** The row whose peers it takes its turns with: the two are to be compared. */
  readonly beside?: RowId;
  /** How long its connections take to open, beyond the half second that every row has. */
  readonly moreOpeningMs?: number;
  /** `durationMs`: how long it must be able to go on. */
  load(measurement: Measurement & { readonly durationMs: number }): Promise<Load>;
}

/** Work that is done once, with one peer after the other. */
export interface SingleRow extends RowBase {
  /** Rejects if anything that it asked for failed. */
  measure(measurement: Measurement): Promise<number>;
}

export type Row = LoadRow | SingleRow;

interface RowBase {
  readonly id: RowId;
  readonly title: string;
  readonly unit: string;
  /** Programs that make the load. */
  readonly tools: readonly Tool[];
  /** Whether the proxy writes an access log; otherwise none does. */
  readonly accessLog?: true;
  target(stage: Stage): Target;
  /** What every peer reads, instead of passing all on to the target. */
  readonly nginxFile?: NginxFile;
  /** Looks at one unit of the work: rejects unless its status and size are what they must be. */
  verify(measurement: Measurement): Promise<void>;
}

export interface Tool {
  readonly program: string;
  readonly package: string;
}
