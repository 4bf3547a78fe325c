// What DNS says of a host: every resolver and every server of the zone, each for itself.

import type { RecordType } from '../../dns/provider.ts';
import type { Authority, ResolverView } from '../../dns/views.ts';
import { normalizeValue } from '../../dns/wire/presentation.ts';
import { possibleZones } from '../../dns/zone.ts';
import type { SeenDns, SeenRecords, SeenServer } from './seen.ts';

export interface DnsSources {
  readonly views: readonly ResolverView[];
  readonly authority: Authority | undefined;
}

/** The gateway finds the app of a name by this record. */
const APP_LABEL = '_dstack-app-address';
const RESOLVERS_MS = 12_000;
const AUTHORITY_MS = 18_000;
const MOST_SERVERS = 16;
const MOST_LABELS = 20;

/** Never rejects, and ends in time whatever the servers do. */
export async function askDns(host: string, sources: DnsSources, signal: AbortSignal): Promise<SeenDns> {
  const views = sources.views.slice(0, MOST_SERVERS);
  const [resolvers, authority] = await Promise.all([
    Promise.all(views.map((view) => askServer(view, host, within(signal, RESOLVERS_MS)))),
    askAuthority(host, sources, within(signal, AUTHORITY_MS)),
  ]);
  return { resolvers, ...authority };
}

function within(signal: AbortSignal, ms: number): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(ms)]);
}

/** All names at once: one that does not answer must not keep us from the others. */
async function askServer(view: ResolverView, host: string, signal: AbortSignal): Promise<SeenServer> {
  const ask = (name: string, type: RecordType) => sorted(view, name, type, signal);
  const [caa, alias, app] = await Promise.allSettled([
    climb(host, (name) => ask(name, 'CAA')),
    ask(host, 'CNAME').then(valuesOf),
    ask(`${APP_LABEL}.${host}`, 'TXT').then(valuesOf),
  ]);
  const climbed = settled(caa);
  return {
    server: view.server,
    caa: climbed?.steps,
    alias: settled(alias),
    app: settled(app),
    authentic: climbed?.authentic,
    ...(caa.status === 'rejected' && { why: (caa.reason as Error).message }),
  };
}

function settled<T>(result: PromiseSettledResult<T>): T | undefined {
  return result.status === 'fulfilled' ? result.value : undefined;
}

interface Answer {
  readonly values: string[];
  /** Whether the server says that it has validated it. */
  readonly authentic: boolean;
}

const valuesOf = ({ values }: Answer): string[] => values;

interface Climbed {
  readonly steps: SeenRecords[];
  /** Whether the server has validated all of them. */
  readonly authentic: boolean;
}

/** To the first name that has records (RFC 8659 §3). A name above it need not have answered. */
async function climb(host: string, ask: (name: string) => Promise<Answer>): Promise<Climbed> {
  const asked = namesAbove(host).map((name) => ({ name, answer: ask(name) }));
  for (const { answer } of asked) answer.catch(() => {});
  const steps: SeenRecords[] = [];
  let authentic = true;
  for (const { name, answer } of asked) {
    const { values, authentic: own } = await answer;
    authentic &&= own;
    steps.push({ name, values });
    if (values.length > 0) break;
  }
  return { steps, authentic };
}

function namesAbove(host: string): string[] {
  return possibleZones(host).slice(0, MOST_LABELS);
}

/** In one form and order, so that two answers can be compared. */
async function sorted(
  view: ResolverView,
  name: string,
  type: RecordType,
  signal: AbortSignal,
): Promise<Answer> {
  const answer = view.look?.(name, type) ?? view.resolve(name, type).then(unvalidated);
  const { values, authentic } = await abandoned(answer, signal);
  return { values: values.map((value) => normalizeValue(type, value)).sort(), authentic };
}

const unvalidated = (values: string[]): Answer => ({ values, authentic: false });

function abandoned<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const give = () => reject(new Error('no answer in time'));
    if (signal.aborted) give();
    signal.addEventListener('abort', give, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', give));
  });
}

/**
 * The servers of the host's own zone, about the names that decide; those of the zones above are asked about theirs. Each
 * server is told of as far as it answered.
 */
async function askAuthority(
  host: string,
  { authority }: DnsSources,
  signal: AbortSignal,
): Promise<Pick<SeenDns, 'authority' | 'why'>> {
  if (authority === undefined) return { authority: [], why: "the zone's own servers are not to be asked" };
  try {
    const views = (await abandoned(authority.viewsOf(host), signal)).slice(0, MOST_SERVERS);
    const servers = await Promise.all(views.map((view) => askZoneServer(view, host, authority, signal)));
    return { authority: servers };
  } catch (error) {
    return { authority: [], why: (error as Error).message };
  }
}

/** A server answers for its own zone; above it, the servers of the zone above answer, and they have to agree. */
async function askZoneServer(
  view: ResolverView,
  host: string,
  authority: Authority,
  signal: AbortSignal,
): Promise<SeenServer> {
  const [caa, alias] = await Promise.allSettled([
    climb(host, async (name) => {
      try {
        return await sorted(view, name, 'CAA', signal);
      } catch (error) {
        if (name === host) throw error;
        return askZoneOf(name, authority, signal);
      }
    }),
    sorted(view, host, 'CNAME', signal).then(valuesOf),
  ]);
  return {
    server: view.server,
    caa: settled(caa)?.steps,
    alias: settled(alias),
    app: undefined,
    ...(caa.status === 'rejected' && { why: (caa.reason as Error).message }),
  };
}

async function askZoneOf(name: string, authority: Authority, signal: AbortSignal): Promise<Answer> {
  const views = await abandoned(authority.viewsOf(name), signal);
  return Promise.any(views.map((view) => sorted(view, name, 'CAA', signal)));
}
