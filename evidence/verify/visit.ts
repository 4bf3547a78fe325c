// Visits to a host: its evidence over one connection, again while it does not fit together, then what is said of the connection.

import { randomBytes, X509Certificate } from 'node:crypto';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { FLEET_FILE } from '../fleet.ts';
import { bundleFits, parseSums } from './bundle-files.ts';
import { type Answer, type Connection, ConnectionError, openConnection, type Target } from './connection.ts';
import { type Fetched, notAsked, type SeenAttest, type SeenBundle, type SeenConnection } from './seen.ts';

export interface VisitOptions {
  readonly target: Target;
  readonly ca: string | undefined;
  readonly signal: AbortSignal;
  readonly progress: (step: string) => void;
  readonly clock?: Clock;
}

export interface Visited {
  readonly connections: readonly SeenConnection[];
  readonly unreachable: string | undefined;
  readonly bundle: SeenBundle;
  readonly statement: Fetched;
  readonly history: Fetched;
  readonly fleet: Fetched;
  readonly attest: SeenAttest;
}

const EVIDENCE = '/evidences/';
/** Where leaf, sums and quote do not fit together, a certificate may just be changing. */
const VISITS = 3;
const BETWEEN_VISITS_MS = 300;
const HANDSHAKE_MS = 10_000;
const FILE_MS = 10_000;
const VISIT_MS = 20_000;
/** A machine makes one quote at a time, and under load it takes its time. */
const ATTEST_MS = 20_000;
/** Asking again, of a host that asks for patience. */
const ATTEMPTS = 3;
const LONGEST_PATIENCE_MS = 2_000;
/** Of all files together. */
const MOST_BYTES = 32 * 1024 * 1024;

/** Never rejects: what could not be had is noted as missing. */
export async function visit(options: VisitOptions): Promise<Visited> {
  const lines = createLines(options);
  try {
    const { bundle, visits } = await fetchBundle(lines, options);
    options.progress('asking for a fresh quote');
    const attest = await askForQuote(lines, options);
    options.progress('reading the statement and its history');
    const statement = await askOnAny(lines, 'attestation.json', options);
    const history = await askOnAny(lines, 'history.jsonl', options);
    const fleet = await askOnAny(lines, FLEET_FILE, options);
    // As the next visitor will find it.
    if (lines.seen.length > 0 && visits === lines.seen.length) await lines.open();
    return { connections: lines.seen, unreachable: lines.why, bundle, statement, history, fleet, attest };
  } finally {
    lines.close();
  }
}

/** The connections of a run. The newest is the one in use. */
interface Lines {
  readonly seen: SeenConnection[];
  readonly why: string | undefined;
  /** The newest if it is still good, or else another one; undefined if none can be had. */
  current(): Promise<Connection | undefined>;
  /** Another one, in the place of the newest. */
  open(): Promise<Connection | undefined>;
  close(): void;
}

function createLines({ target, ca, signal }: VisitOptions): Lines {
  const seen: SeenConnection[] = [];
  let newest: Connection | undefined;
  let why: string | undefined;
  const open = async () => {
    newest?.close();
    newest = undefined;
    try {
      newest = await openConnection(target, ca, AbortSignal.any([signal, AbortSignal.timeout(HANDSHAKE_MS)]));
      seen.push(newest.seen);
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error;
      why = error.message;
    }
    return newest;
  };
  return {
    seen,
    get why() {
      return why;
    },
    current: async () => (newest?.open ? newest : open()),
    open,
    close: () => newest?.close(),
  };
}

const NO_CONNECTION = notAsked('there is no connection to the host');
const NOTHING: SeenBundle = {
  connection: 0,
  sums: NO_CONNECTION,
  quote: NO_CONNECTION,
  files: new Map(),
};

/** The last visit counts, as a whole: no file of one is ever beside a file of another. */
async function fetchBundle(lines: Lines, options: VisitOptions) {
  const { clock = systemClock, signal, progress, target } = options;
  let bundle = NOTHING;
  let visits = 0;
  while (visits < VISITS && !signal.aborted) {
    if (visits > 0) await clock.sleep(BETWEEN_VISITS_MS, signal).catch(() => {});
    progress(visits === 0 ? 'fetching the evidence' : 'it does not fit together, fetching it anew');
    const connection = await lines.open();
    if (connection === undefined) break;
    visits++;
    bundle = { connection: lines.seen.length - 1, ...(await fetchOver(connection, options)) };
    if (!connection.broken && bundleFits(bundle, leafOf(connection), target.host)) break;
  }
  return { bundle, visits };
}

function leafOf({ seen }: Connection): X509Certificate {
  return new X509Certificate(seen.chain[0]!);
}

async function fetchOver(
  connection: Connection,
  options: VisitOptions,
): Promise<Omit<SeenBundle, 'connection'>> {
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(VISIT_MS)]);
  const get = (name: string) => askFor(name, connection, { ...options, signal });
  const sums = await get('sha256sum.txt');
  const lines = sums.state === 'got' ? parseSums(sums.body) : [];
  const files = new Map<string, Fetched>();
  let bytes = 0;
  const quote = sums.state === 'got' ? await get('quote.json') : notAsked('there are no sums to go by');
  for (const { name } of typeof lines === 'string' ? [] : lines) {
    const file: Fetched =
      bytes > MOST_BYTES
        ? { state: 'refused', why: `the files together are larger than ${MOST_BYTES} bytes` }
        : await get(name);
    if (file.state === 'got') bytes += file.body.length;
    files.set(name, file);
  }
  return { sums, quote, files };
}

/** Over the connection of the bundle, if it can be: another one may end at another instance. */
async function askForQuote(lines: Lines, options: VisitOptions): Promise<SeenAttest> {
  const connection = await lines.current();
  let nonce = '';
  const seen = (answer: Fetched): SeenAttest => ({
    answer,
    nonce,
    exporter: connection?.exporter ?? '',
    connection: lines.seen.length - 1,
  });
  if (connection === undefined) return seen(NO_CONNECTION);
  const { protocol } = connection.seen;
  if (protocol !== 'TLSv1.3')
    return seen(notAsked(`the host speaks ${protocol}, and the quote is for TLS 1.3 alone`));
  const answer = await patiently(options, () => {
    // No nonce is ever sent twice.
    nonce = randomBytes(32).toString('hex');
    return connection.get(`${EVIDENCE}attest?nonce=${nonce}`, {
      timeoutMs: ATTEST_MS,
      signal: options.signal,
    });
  });
  return seen(answer);
}

async function askOnAny(lines: Lines, name: string, options: VisitOptions): Promise<Fetched> {
  const connection = await lines.current();
  return connection === undefined ? NO_CONNECTION : askFor(name, connection, options);
}

function askFor(name: string, connection: Connection, options: VisitOptions): Promise<Fetched> {
  const { signal } = options;
  return patiently(options, () => connection.get(`${EVIDENCE}${name}`, { timeoutMs: FILE_MS, signal }));
}

/** Asks again while the host asks for patience, a few times. */
async function patiently(
  { signal, clock = systemClock }: Pick<VisitOptions, 'signal' | 'clock'>,
  ask: () => Promise<Answer>,
): Promise<Fetched> {
  for (let attempt = 1; ; attempt++) {
    const { retryAfterMs, ...fetched } = await ask();
    if (retryAfterMs === undefined || attempt === ATTEMPTS || signal.aborted) return fetched;
    await clock.sleep(Math.min(retryAfterMs, LONGEST_PATIENCE_MS), signal).catch(() => {});
  }
}
