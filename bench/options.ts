// The command line of the benchmark.

import { parseArgs } from 'node:util';

export interface Options {
  readonly mode: 'table' | 'connections' | 'memory' | 'list' | 'help';
  /** Row ids; undefined for all. */
  readonly only: readonly string[] | undefined;
  /** Peer ids or their beginnings; undefined for all. */
  readonly peers: readonly string[] | undefined;
  readonly runs: number;
  readonly warmUpMs: number;
  readonly windowMs: number;
  readonly minutes: number;
  readonly json: string | undefined;
  readonly writeDocs: boolean;
  readonly fromSource: boolean;
  /** A commit whose program is measured beside this one, as the peer `before`. */
  readonly before: string | undefined;
  /** One more peer, `traced`: this program with one request in a hundred traced. */
  readonly traced: boolean;
}

export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export const HELP = `usage: npm run bench -- [options]

Measures this program beside nginx, HAProxy, Caddy, http-proxy-3 and http2-proxy: the proxy's own CPU time
per unit of work, the proxies on core 0, load and upstreams on core 1. Within a run all proxies are alive, and take
turns of 300 ms, again and again: what disturbs the machine meets all of them.

  --only h1,h2      these rows only (--list names them)
  --peers ours,nginx  these peers only; a beginning stands for all that begin so
  --runs 3          how often each is started anew and measured
  --seconds 3       how many counted seconds each has in a run
  --warm-up 2       how many seconds of load each has before them
  --json FILE       writes everything measured to a file
  --write-docs      puts the result into docs/performance.md
  --source          runs src/main.ts instead of the bundle that the image ships
  --before COMMIT   one more peer, before: the bundle of that commit
  --traced          one more peer, traced: this program with 1 % of the requests traced, its collector away
  --connections     instead: CPU per request at 1 to 4,096 connections, and a plot of it
  --memory          instead: memory over --minutes (10) of mixed load, 20,000 connections opened and closed
  --list            names rows and peers
`;

/** Throws UsageError. */
export function parseOptions(args: readonly string[]): Options {
  const { values } = parse(args);
  return {
    mode: modeOf(values),
    only: list(values.only),
    peers: list(values.peers),
    runs: whole(values.runs, '--runs'),
    warmUpMs: amount(values['warm-up'], '--warm-up') * 1_000,
    windowMs: amount(values.seconds, '--seconds') * 1_000,
    minutes: amount(values.minutes, '--minutes'),
    json: values.json,
    writeDocs: values['write-docs'],
    fromSource: values.source,
    before: values.before,
    traced: values.traced,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        only: { type: 'string' },
        peers: { type: 'string' },
        runs: { type: 'string', default: '3' },
        seconds: { type: 'string', default: '3' },
        'warm-up': { type: 'string', default: '2' },
        minutes: { type: 'string', default: '10' },
        json: { type: 'string' },
        'write-docs': { type: 'boolean', default: false },
        source: { type: 'boolean', default: false },
        before: { type: 'string' },
        traced: { type: 'boolean', default: false },
        connections: { type: 'boolean', default: false },
        memory: { type: 'boolean', default: false },
        list: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}

function modeOf(values: Record<'connections' | 'memory' | 'list' | 'help', boolean>): Options['mode'] {
  const chosen = (['help', 'list', 'connections', 'memory'] as const).filter((mode) => values[mode]);
  if (chosen.length > 1) throw new UsageError(`--${chosen[0]} and --${chosen[1]} exclude each other`);
  return chosen[0] ?? 'table';
}

function list(text: string | undefined): readonly string[] | undefined {
  if (text === undefined) return undefined;
  const names = text.split(',').map((name) => name.trim());
  if (names.includes('')) throw new UsageError(`an empty name in ${JSON.stringify(text)}`);
  return names;
}

function amount(text: string, name: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0) || value > 3_600) {
    throw new UsageError(`${name} must be a number above 0 and up to 3,600, not ${JSON.stringify(text)}`);
  }
  return value;
}

function whole(text: string, name: string): number {
  const value = amount(text, name);
  if (!Number.isInteger(value)) throw new UsageError(`${name} must be a whole number, not ${text}`);
  return value;
}

/** Those whose name is one of these, or begins with one of these and a hyphen. Throws UsageError for a name that fits none. */
export function choose<T extends { readonly id: string }>(
  all: readonly T[],
  names: readonly string[] | undefined,
  kind: string,
): readonly T[] {
  if (names === undefined) return all;
  const fits = (item: T, name: string) => item.id === name || item.id.startsWith(`${name}-`);
  for (const name of names) {
    if (!all.some((item) => fits(item, name))) {
      throw new UsageError(`no ${kind} ${name}; there are ${all.map((item) => item.id).join(', ')}`);
    }
  }
  // Where a name is an id of its own, it means that one alone: h1 is not h1-logged.
  const exact = new Set(all.map((item) => item.id));
  return all.filter((item) =>
    names.some((name) => item.id === name || (!exact.has(name) && fits(item, name))),
  );
}
