// Everything that can be seen of a host, from the host itself, DNS, the logs and the vendor of the processor, in bounded time.

import { isIP } from 'node:net';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { askSources, type CtSource } from './ask-ct.ts';
import { askDns, type DnsSources } from './ask-dns.ts';
import type { LogSource } from './ask-logs.ts';
import type { Collateral } from './collateral.ts';
import type { Target } from './connection.ts';
import { readQuoteDocument } from './documents.ts';
import type { Fetched, Seen, SeenDns } from './seen.ts';
import { visit } from './visit.ts';

/** Where the collateral of a quote comes from. Rejects if there is none to be had. */
export type CollateralSource = (quote: Uint8Array, signal: AbortSignal) => Promise<Collateral>;

export interface GatherOptions {
  readonly target: Target;
  /** PEM, for the connections to the host. */
  readonly ca: string | undefined;
  readonly dns: DnsSources;
  readonly ct: readonly CtSource[];
  /** Undefined: the logs themselves are not asked. */
  readonly logs: LogSource | undefined;
  readonly collateral: CollateralSource;
  /** Noted as the time of what is seen. */
  readonly at: Date;
  readonly signal?: AbortSignal;
  readonly progress?: (step: string) => void;
  readonly clock?: Clock;
}

/** Whatever the other side does. */
const DEADLINE_MS = 80_000;
const COLLATERAL_MS = 25_000;

/** Never rejects for what the other side does: what could not be had is noted with its reason. */
export async function gather(options: GatherOptions): Promise<Seen> {
  const { target, ca, clock = systemClock, progress = () => {} } = options;
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  const signal = options.signal === undefined ? deadline : AbortSignal.any([options.signal, deadline]);
  const named = isIP(target.host) === 0;
  progress(`asking DNS and the logs about ${target.host}`);
  const [visited, dns, ct] = await Promise.all([
    visitAndCollect(options, { target, ca, signal, progress, clock }),
    named ? askDns(target.host, options.dns, signal) : NO_NAME,
    named ? askSources(options.ct, target.host, signal) : [],
  ]);
  return { host: target.host, port: target.port, at: options.at.toISOString(), ...visited, dns, ct };
}

const NO_NAME: SeenDns = { resolvers: [], authority: [], why: 'the host is an address, not a name' };

/** The collateral goes by the quote, and so is asked for after it. */
async function visitAndCollect(options: GatherOptions, how: Parameters<typeof visit>[0]) {
  const visited = await visit(how);
  how.progress('fetching what the vendor says of the processor');
  const chain = visited.connections[visited.bundle.connection]?.chain ?? [];
  const [collected, proofs] = await Promise.all([
    collect(visited.bundle.quote, options.collateral, how.signal),
    options.logs?.prove(chain, how.signal) ?? [],
  ]);
  return { ...visited, ...collected, proofs };
}

async function collect(
  file: Fetched,
  source: CollateralSource,
  signal: AbortSignal,
): Promise<Pick<Seen, 'collateral' | 'withoutCollateral'>> {
  const document = file.state === 'got' ? readQuoteDocument(file.body) : 'there is no quote';
  if (typeof document === 'string') return { collateral: undefined, withoutCollateral: document };
  const within = AbortSignal.any([signal, AbortSignal.timeout(COLLATERAL_MS)]);
  try {
    return { collateral: await source(Buffer.from(document.quote, 'hex'), within) };
  } catch (error) {
    const why = within.aborted ? 'the PCCS gave no answer in time' : (error as Error).message;
    return { collateral: undefined, withoutCollateral: why };
  }
}
