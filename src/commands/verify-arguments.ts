// The arguments of the verify command: flags and the files that they name -> what to verify, or every mistake in them.

import type { Expected, VerifyOptions } from '../../evidence/verify/index.ts';

export interface VerifyRequest {
  /** Empty if `offline` is given. */
  readonly url: string;
  readonly json: boolean;
  readonly verbose: boolean;
  readonly strict: boolean;
  readonly at: Date | undefined;
  readonly expected: Expected;
  readonly sources: Pick<VerifyOptions, 'dns' | 'ct' | 'logs' | 'collateral' | 'pccs'>;
  readonly save: string | undefined;
  readonly offline: string | undefined;
  readonly watch: WatchRequest | undefined;
}

export interface WatchRequest {
  readonly everyMs: number;
  readonly webhook: string | undefined;
}

export type ReadArguments =
  | { readonly request: VerifyRequest }
  /** Each a sentence. */
  | { readonly mistakes: readonly string[] };

/** The command line has refused flags that are not known and flags without their value already. */
export async function readArguments(args: readonly string[]): Promise<ReadArguments> {
  const given = sorted(args);
  const mistakes: string[] = [];
  const attempt = <T>(read: () => T): T | undefined => {
    try {
      return read();
    } catch (error) {
      mistakes.push(...messagesOf(error));
      return undefined;
    }
  };
  const one = <T>(flag: string, read: (value: string) => T): T | undefined => {
    const values = given.values.get(flag) ?? [];
    if (values.length > 1) mistakes.push(`${flag} is given ${values.length} times`);
    return values[0] === undefined ? undefined : attempt(() => read(values[0]!));
  };
  const offline = one('--offline', (folder) => folder);
  const library = await import('./verify-sources.ts');
  const policy = one('--policy', (file) => library.readPolicyFile(file));
  const expected: Expected = {
    ...policy,
    ...defined('quoteRoot', one('--root', library.readQuoteRoot)),
    ...defined('ca', one('--ca', library.readRoots)),
    ...defined('appId', one('--app-id', readAppId)),
    ...defined('composeHash', one('--compose', library.readCompose)),
  };
  const request: VerifyRequest = {
    url: urlOf(given.bare, offline, mistakes, library.checkUrl),
    json: given.switches.has('--json'),
    verbose: given.switches.has('-v'),
    strict: given.switches.has('--strict'),
    at: one('--time', readTime),
    expected,
    sources: {
      ...defined('collateral', one('--collateral', library.readCollateral)),
      ...defined(
        'pccs',
        several(given, '--pccs', (url) => attempt(() => library.readServiceUrl('--pccs', url))),
      ),
      ...defined(
        'dns',
        attempt(() => library.resolversAt(given.values.get('--resolver'))),
      ),
      ...defined(
        'ct',
        several(given, '--ct', (url) =>
          library.isLogList(url) ? undefined : attempt(() => library.ctSourceAt(url)),
        ),
      ),
      ...defined(
        'logs',
        attempt(() => given.values.get('--ct')?.filter(library.isLogList).map(library.logSourceAt).at(-1)),
      ),
    },
    save: one('--save', (folder) => folder),
    offline,
    watch: watchOf(given, one, mistakes, library.readServiceUrl),
  };
  if (request.watch !== undefined && (offline ?? request.save) !== undefined)
    mistakes.push('--watch goes with neither --offline nor --save');
  if (offline !== undefined && request.save !== undefined)
    mistakes.push('--offline saves nothing: leave out --save');
  return mistakes.length > 0 ? { mistakes } : { request };
}

const SWITCHES = new Set(['--json', '-v', '--strict', '--watch']);

interface Given {
  readonly switches: ReadonlySet<string>;
  readonly values: ReadonlyMap<string, readonly string[]>;
  readonly bare: readonly string[];
}

function sorted(args: readonly string[]): Given {
  const switches = new Set<string>();
  const values = new Map<string, string[]>();
  const bare: string[] = [];
  for (let at = 0; at < args.length; at++) {
    const arg = args[at]!;
    if (SWITCHES.has(arg)) switches.add(arg);
    else if (arg.startsWith('--')) values.set(arg, [...(values.get(arg) ?? []), args[++at] ?? '']);
    else bare.push(arg);
  }
  return { switches, values, bare };
}

function several<T>(
  { values }: Given,
  flag: string,
  read: (value: string) => T | undefined,
): T[] | undefined {
  return values.get(flag)?.flatMap((value) => read(value) ?? []);
}

function defined<K extends string, T>(key: K, value: T | undefined): { readonly [name in K]?: T } {
  return value === undefined ? {} : ({ [key]: value } as { readonly [name in K]: T });
}

function messagesOf(error: unknown): string[] {
  return error instanceof Error ? error.message.split('\n') : [String(error)];
}

function urlOf(
  [url, ...more]: readonly string[],
  offline: string | undefined,
  mistakes: string[],
  check: (url: string) => string,
): string {
  if (offline !== undefined) {
    if (url !== undefined) mistakes.push('--offline asks nobody: leave out the address');
    return '';
  }
  if (url === undefined || more.length > 0) {
    mistakes.push(url === undefined ? 'lacks the address to verify: https://HOST' : 'takes one address');
    return '';
  }
  try {
    return check(url);
  } catch (error) {
    mistakes.push(...messagesOf(error));
    return '';
  }
}

function readAppId(text: string): string {
  const hex = text.replace(/^0x/i, '').toLowerCase();
  if (!/^[0-9a-f]{40}$/.test(hex)) throw new Error(`--app-id ${JSON.stringify(text)} is not 20 bytes in hex`);
  return hex;
}

/** A date, or a date with time and zone: one without a zone would mean something else on each machine. */
function readTime(text: string): Date {
  const shape = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d))?$/i;
  const at = new Date(text);
  if (!shape.test(text) || Number.isNaN(at.getTime()))
    throw new Error(`--time ${JSON.stringify(text)} is no time as in 2026-11-30T12:00:00Z`);
  return at;
}

export const MINUTE_MS = 60_000;
export const DEFAULT_MINUTES = 60;
const MOST_MINUTES = 7 * 24 * 60;

function watchOf(
  { switches, values }: Given,
  one: <T>(flag: string, read: (value: string) => T) => T | undefined,
  mistakes: string[],
  readUrl: (flag: string, url: string) => string,
): WatchRequest | undefined {
  const minutes = one('--every', readMinutes) ?? DEFAULT_MINUTES;
  const webhook = one('--webhook', (url) => readUrl('--webhook', url));
  if (switches.has('--watch')) return { everyMs: minutes * MINUTE_MS, webhook };
  for (const flag of ['--every', '--webhook'])
    if (values.has(flag)) mistakes.push(`${flag} is for --watch, which is not given`);
  return undefined;
}

export function readMinutes(text: string): number {
  const minutes = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || minutes <= 0 || minutes > MOST_MINUTES)
    throw new Error(`--every ${JSON.stringify(text)} is not a number of minutes up to ${MOST_MINUTES}`);
  return minutes;
}
