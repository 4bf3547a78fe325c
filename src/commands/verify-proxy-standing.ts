// Whether a host is proven at this moment, and connections to it for as long as it is.

import type { TLSSocket } from 'node:tls';
import {
  type AlpnProtocol,
  type Check,
  createVerifiedConnector,
  lackingProof,
  NotVerifiedError,
  type Verification,
  type VerifiedConnector,
} from '../../evidence/verify/index.ts';
import { type Clock, systemClock } from '../lib/clock.ts';
import { CodedError } from '../lib/coded-error.ts';

/** Nothing was sent to the host. */
export class UnprovenError extends CodedError<'unproven'> {
  override readonly name = 'UnprovenError';
  readonly checks: readonly Check[];

  constructor(message: string, checks: readonly Check[]) {
    super('unproven', message);
    this.checks = checks;
  }
}

export type Judged =
  | { readonly proven: VerifiedConnector; readonly open: readonly Check[] }
  | { readonly lacking: readonly Check[] };

/** Under `strict` every check must have passed; otherwise what the key hangs on, and nothing may have failed. */
export function judgeProof(report: Verification, strict: boolean): Judged {
  const lacking = lackingProof(report, !strict);
  if (lacking.length > 0) return { lacking };
  const open = report.checks.filter(({ verdict }) => verdict !== 'pass');
  return { proven: createVerifiedConnector({ report, acceptUnknown: !strict }), open };
}

export interface StandingOptions {
  /** Of the host, as it is called in messages. */
  readonly name: string;
  readonly first: VerifiedConnector;
  readonly verify: (signal: AbortSignal) => Promise<Judged>;
  readonly everyMs: number;
  /** A line for each change. */
  readonly tell: (line: string) => void;
  readonly clock?: Clock;
}

export interface Standing {
  /** Waits for a verification that is under way. Rejects with UnprovenError if nothing may pass. */
  connect(protocol: AlpnProtocol): Promise<TLSSocket>;
  /** Verifies again and again until it is aborted; then every connection is cut. */
  run(signal: AbortSignal): Promise<void>;
}

/** The pause after a verification that proved nothing; it doubles up to the usual one. */
const FIRST_PAUSE_MS = 15_000;
/** A host that shows yet another key after each verification has none that could be pinned. */
const MOST_TURNS = 2;

export function createStanding(options: StandingOptions): Standing {
  return new HostStanding(options);
}

class HostStanding implements Standing {
  readonly #options: StandingOptions;
  /** Undefined: nothing may pass. */
  #proven: VerifiedConnector | undefined;
  #lacking: Lacking | undefined;
  #round: Promise<void> | undefined;
  /** Aborted when what the round would find is of no use any more: the key has changed since it began. */
  #ongoing = new AbortController();
  #pauseMs: number;
  readonly #open = new Set<TLSSocket>();

  constructor(options: StandingOptions) {
    this.#options = options;
    this.#proven = options.first;
    this.#pauseMs = options.everyMs;
  }

  async connect(protocol: AlpnProtocol): Promise<TLSSocket> {
    for (let turn = 0; turn <= MOST_TURNS; turn++) {
      const socket = await this.#connectOnce(protocol);
      if (socket !== undefined) return socket;
    }
    const { name } = this.#options;
    throw new UnprovenError(`${name} shows another key each time, nothing was sent to it`, []);
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock = systemClock } = this.#options;
    const stop = () => {
      this.#ongoing.abort();
      this.#distrust();
    };
    signal.addEventListener('abort', stop, { once: true });
    while (!signal.aborted) {
      await clock.sleep(this.#pauseMs, signal).catch(() => {});
      if (!signal.aborted) await (this.#round ?? this.#verify());
    }
  }

  async #connectOnce(protocol: AlpnProtocol): Promise<TLSSocket | undefined> {
    const proven = await this.#waitForProof();
    try {
      const socket = await proven.connect(protocol);
      // Meanwhile it may have ceased to be proven.
      if (this.#proven === proven) return this.#keep(socket);
      socket.destroy();
    } catch (error) {
      if (!(error instanceof NotVerifiedError)) throw error;
      if (this.#proven === proven) {
        this.#distrust();
        this.#options.tell(`${this.#options.name} shows another key: nothing passes until it is proven`);
        void this.#verify();
      }
    }
    return undefined;
  }

  async #waitForProof(): Promise<VerifiedConnector> {
    while (this.#proven === undefined && this.#round !== undefined) await this.#round;
    if (this.#proven !== undefined) return this.#proven;
    const { why, checks } = this.#lacking ?? { why: 'the proxy is stopping', checks: [] };
    throw new UnprovenError(`${this.#options.name} is not proven, nothing was sent to it: ${why}`, checks);
  }

  #keep(socket: TLSSocket): TLSSocket {
    this.#open.add(socket);
    socket.on('close', () => this.#open.delete(socket));
    // Whoever uses it is told as well; an idle one must not end the program.
    socket.on('error', () => {});
    return socket;
  }

  #distrust(): void {
    this.#proven = undefined;
    for (const socket of this.#open) socket.destroy();
    this.#open.clear();
  }

  #verify(): Promise<void> {
    this.#ongoing.abort();
    const mine = new AbortController();
    this.#ongoing = mine;
    const round = this.#settle(mine.signal).finally(() => {
      if (this.#round === round) this.#round = undefined;
    });
    this.#round = round;
    return round;
  }

  async #settle(signal: AbortSignal): Promise<void> {
    const judged = await this.#options.verify(signal).catch(asLacking);
    if (signal.aborted) return;
    if ('proven' in judged) this.#trust(judged.proven);
    else this.#refuse(judged);
  }

  #trust(proven: VerifiedConnector): void {
    const { name, everyMs, tell } = this.#options;
    const before = this.#proven;
    this.#pauseMs = everyMs;
    this.#lacking = undefined;
    if (before?.spki.equals(proven.spki)) return;
    this.#distrust();
    this.#proven = proven;
    tell(`${name} is proven${before === undefined ? ' again' : ', with another key'}: requests pass`);
  }

  #refuse({ lacking }: { readonly lacking: readonly Check[] }): void {
    const { name, everyMs, tell } = this.#options;
    const why = idsOf(lacking);
    const before = this.#lacking;
    this.#distrust();
    this.#lacking = { why, checks: lacking };
    this.#pauseMs = Math.min(before === undefined ? FIRST_PAUSE_MS : this.#pauseMs * 2, everyMs);
    if (before?.why !== why) tell(`${name} is not proven, and nothing passes: ${why}`);
  }
}

interface Lacking {
  readonly why: string;
  readonly checks: readonly Check[];
}

/** What keeps a verification from ending proves nothing either. */
function asLacking(error: Error): Judged {
  const reason = `the verification broke off: ${error.message}`;
  return { lacking: [{ id: 'tls.chain', verdict: 'not-run', reason }] };
}

function idsOf(checks: readonly Check[]): string {
  return checks.map(({ id, verdict }) => (verdict === 'fail' ? id : `${id} (not run)`)).join(', ');
}
