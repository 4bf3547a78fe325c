// What the status of the ingress is made of, as the composition root hands it over.

import type { AccessLogFile } from '../access-log-file.ts';
import type { Certificate } from '../lib/certificate.ts';
import type { Domain } from '../lib/domain.ts';
import type { StoreFigures } from '../store-figures.ts';
import type { Traces } from '../tracing/tracing.ts';
import type { ProcessFigures } from '../workers/process-figures.ts';
import type { Workers } from '../workers/workers.ts';
import type { Tally } from './tally.ts';

export interface Sources {
  readonly version: string;
  readonly workers: Pick<Workers, 'state' | 'rows'>;
  /** Why a replica does not listen yet; undefined: it does. */
  waitsFor?(): string | undefined;
  /** Of the plan that is followed. */
  domains(): readonly Domain[];
  /** What is served. */
  certificates(): readonly Certificate[];
  /** When the evidence that is shown was made, ISO 8601; undefined: there is none. */
  evidenceAt(): string | undefined;
  readonly tally: Tally;
  /** Undefined: nothing is traced. */
  readonly traces?: Pick<Traces, 'counts' | 'queued'> | undefined;
  /** Undefined: the access log goes to no file. */
  readonly logFile?: Pick<AccessLogFile, 'counts'> | undefined;
  /** Undefined: there is no storage that replicas share. */
  readonly store?: Pick<StoreFigures, 'state' | 'counts' | 'durations'> | undefined;
  /** Of the supervisor. */
  readonly figures: ProcessFigures;
  stopping(): boolean;
}
