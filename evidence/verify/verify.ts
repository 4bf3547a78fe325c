// One verification: see all there is of a host, and judge it.

import { createResolver } from '../../dns/resolver.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { CodedError } from '../../src/lib/coded-error.ts';
import { type CtSource, createCtSource, DEFAULT_CT_SOURCES } from './ask-ct.ts';
import type { DnsSources } from './ask-dns.ts';
import { createLogSource, DEFAULT_LOG_LIST, type LogSource } from './ask-logs.ts';
import type { Report } from './checks.ts';
import type { Target } from './connection.ts';
import type { Expected } from './expected.ts';
import { type CollateralSource, gather } from './gather.ts';
import { judge } from './judge.ts';
import { intelRoot } from './quote-rules.ts';
import type { Seen } from './seen.ts';

export interface VerifyOptions {
  /** `https://app.example.com`, perhaps with a port; without a path. */
  readonly url: string;
  /** Where to connect, if not where the system's resolver says: to look at one of several instances. */
  readonly address?: string;
  readonly expected?: Expected;
  /** Default: Intel's service and a public cache, or those in `pccs`. */
  readonly collateral?: CollateralSource;
  /** URLs of services to ask for collateral, one after the other. */
  readonly pccs?: readonly string[];
  /** Default: two public resolvers, and the zone's own servers; none for localhost. */
  readonly dns?: DnsSources;
  /** Default: Cert Spotter and crt.sh; none for localhost. */
  readonly ct?: readonly CtSource[];
  /** Default: the logs that Chrome knows; none for localhost, and none if `ct` is given. */
  readonly logs?: LogSource;
  /** Rules every date. Default: now. */
  readonly at?: Date;
  readonly clock?: Clock;
  readonly signal?: AbortSignal;
  /** Told of each step as it begins. */
  readonly progress?: (step: string) => void;
}

export interface Verification extends Report {
  readonly seen: Seen;
  /** What it was judged by. */
  readonly expected: Expected;
}

export class TargetError extends CodedError<'not-https' | 'not-a-host'> {
  override readonly name = 'TargetError';
}

/** Throws TargetError for what is not the https address of a host. */
export async function verify(options: VerifyOptions): Promise<Verification> {
  const { url, expected = {}, clock = systemClock } = options;
  const { address } = options;
  const target = { ...parseTarget(url), ...(address !== undefined && { address }) };
  const seen = await gather({
    target,
    ca: expected.ca,
    dns: options.dns ?? defaultDns(target),
    ct: options.ct ?? defaultSources(target),
    logs: options.logs ?? (options.ct === undefined ? defaultLogs(target) : undefined),
    collateral: options.collateral ?? collateralFrom(options.pccs, expected.quoteRoot),
    at: options.at ?? clock.now(),
    clock,
    ...(options.signal !== undefined && { signal: options.signal }),
    ...(options.progress !== undefined && { progress: options.progress }),
  });
  options.progress?.('judging');
  return { ...(await judge(seen, expected, new Date(seen.at))), seen, expected };
}

function collateralFrom(
  services: readonly string[] | undefined,
  quoteRoot: Uint8Array | undefined,
): CollateralSource {
  return async (quote, signal) => {
    const { fetchCollateral } = await import('./fetch-collateral.ts');
    const root = quoteRoot ?? (await intelRoot());
    return fetchCollateral(quote, { root, signal, ...(services !== undefined && { services }) });
  };
}

function defaultDns({ host }: Target): DnsSources {
  if (isLocal(host)) return { views: [], authority: undefined };
  const { views = [], authority } = createResolver();
  return { views, authority };
}

function defaultSources({ host }: Target): CtSource[] {
  return isLocal(host) ? [] : DEFAULT_CT_SOURCES.map((source) => createCtSource(source));
}

function defaultLogs({ host }: Target): LogSource | undefined {
  return isLocal(host) ? undefined : createLogSource(DEFAULT_LOG_LIST);
}

/** RFC 6761 §6.3: such names mean this machine, and nobody else is to be asked about them. */
function isLocal(host: string): boolean {
  return host === 'localhost' || host.endsWith('.localhost');
}

export function parseTarget(text: string): Target {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'https:')
    throw new TargetError('not-https', `${JSON.stringify(text)} is not an https:// address`);
  const bare = url.pathname === '/' && url.search === '' && url.hash === '' && !/[?#]/.test(text);
  if (!bare || url.username !== '' || url.password !== '')
    throw new TargetError('not-a-host', `${JSON.stringify(text)} has more than a host and a port`);
  const host = url.hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '');
  return { host, port: url.port === '' ? 443 : Number(url.port) };
}
