// Tries every upstream once when it is new, and again while it is known to fail, so that faults are found without a client's request.

import type { SecureContext } from 'node:tls';
import { isDeepStrictEqual } from 'node:util';
import type { Address, Route, TlsToUpstream, UpstreamProtocol, UpstreamSettings } from '../rules/routes.ts';
import { createNames, type Names } from './names.ts';
import { probeUpstream } from './probe.ts';
import { recogniseUpstream } from './recognise.ts';
import { addressName, type Troubles, upstreamName } from './troubles.ts';
import { createTrustOfUpstreams } from './trust.ts';

export interface UpstreamWatch {
  /** These are the upstreams of all routes. */
  serve(list: readonly UpstreamSettings[]): void;
  close(): void;
}

export interface UpstreamWatchOptions {
  readonly troubles: Troubles;
  readonly names: Names;
  readonly secureContext: () => SecureContext;
  /** False: nothing is connected to. */
  readonly looks: boolean;
}

/** So many at once: there may be hundreds, and clients' requests come first. */
const AT_ONCE = 4;
const FIRST_LOOK_MS = 100;
const AGAIN_MS = 2_000;
const LONGEST_MS = 60_000;
/** The user of a command has less patience than a client. */
const LONGEST_LOOK_MS = 5_000;

interface Watched {
  readonly protocol: UpstreamProtocol;
  /** One way of TLS, where it is spoken to in several. */
  readonly tls: TlsToUpstream | undefined;
  readonly address: Address;
  readonly timeoutMs: number;
  /** Its own trouble, and those of the upstreams that it is one address of. */
  readonly names: Set<string>;
  timer: NodeJS.Timeout | undefined;
  againMs: number;
  looked: boolean;
}

export function createUpstreamWatch(options: UpstreamWatchOptions): UpstreamWatch {
  const { troubles, looks } = options;
  let served = new Set<string>();
  let watched = new Map<string, Watched>();
  const line: Watched[] = [];
  let looking = 0;

  function serve(list: readonly UpstreamSettings[]): void {
    const names = new Set(list.map(upstreamName));
    const next = new Map<string, Watched>();
    for (const settings of list) {
      for (const address of settings.addresses) {
        const name = addressName(settings.protocol, address);
        names.add(name);
        const known = next.get(name) ?? sameWay(watched.get(name), settings);
        const entry = known ?? begin(settings, address);
        entry.names.add(name).add(upstreamName(settings));
        next.set(name, entry);
      }
    }
    for (const [name, { timer }] of watched) if (!next.has(name)) clearTimeout(timer);
    for (const name of served) if (!names.has(name)) troubles.forget(name);
    served = names;
    watched = next;
  }

  function begin(settings: UpstreamSettings, address: Address): Watched {
    const entry = createEntry(settings, address);
    if (looks) later(entry, FIRST_LOOK_MS);
    return entry;
  }

  function later(entry: Watched, ms: number): void {
    entry.timer = setTimeout(() => {
      line.push(entry);
      proceed();
    }, ms).unref();
  }

  function proceed(): void {
    while (looking < AT_ONCE && line.length > 0) {
      looking++;
      void look(line.shift()!).finally(() => {
        looking--;
        proceed();
      });
    }
  }

  async function look(entry: Watched): Promise<void> {
    const { protocol, address, timeoutMs } = entry;
    const name = addressName(protocol, address);
    if (watched.get(name) !== entry) return;
    // An upstream that works is not tried again: requests show when it fails.
    const isTrouble = [...entry.names].some((each) => troubles.of(each) !== undefined);
    if (entry.looked && !isTrouble) return later(entry, AGAIN_MS);
    entry.looked = true;
    const { names, secureContext } = options;
    const fault = await probeUpstream(entry, address, { names, secureContext, timeoutMs });
    if (watched.get(name) !== entry) return;
    if (fault !== undefined) troubles.failed(name, fault, false);
    else for (const each of entry.names) troubles.of(each)?.connected();
    entry.againMs = fault === undefined ? AGAIN_MS : Math.min(2 * entry.againMs, LONGEST_MS);
    later(entry, entry.againMs);
  }

  return {
    serve,
    close() {
      for (const { timer } of watched.values()) clearTimeout(timer);
      watched = new Map();
    },
  };
}

function createEntry({ protocol, tls, connectTimeoutMs }: UpstreamSettings, address: Address): Watched {
  return {
    protocol,
    tls,
    address,
    timeoutMs: connectTimeoutMs,
    names: new Set(),
    timer: undefined,
    againMs: AGAIN_MS,
    looked: false,
  };
}

/** What was found by another way of TLS says nothing. */
function sameWay(entry: Watched | undefined, { tls }: UpstreamSettings): Watched | undefined {
  return isDeepStrictEqual(entry?.tls, tls) ? entry : undefined;
}

/** Every address that routes lead to, once. */
export function upstreamAddresses(
  routes: readonly Route[],
): { name: string; settings: UpstreamSettings; address: Address }[] {
  const known = new Map<string, { name: string; settings: UpstreamSettings; address: Address }>();
  for (const { paths } of routes) {
    for (const { upstream: settings } of paths) {
      for (const address of settings.addresses) {
        const name = addressName(settings.protocol, address);
        if (!known.has(name)) known.set(name, { name, settings, address });
      }
    }
  }
  return [...known.values()];
}

/**
 * Tries each once, for a command that ends. Returns those that cannot be reached, and why. `converses`: also those that
 * speak something else than is said of them.
 */
export async function lookAtUpstreams(
  routes: readonly Route[],
  upstreamCa: string | undefined,
  converses = false,
): Promise<Map<string, string>> {
  const names = createNames();
  const secureContext = createTrustOfUpstreams(upstreamCa);
  const why = new Map<string, string>();
  const left = upstreamAddresses(routes);
  const lookOn = async () => {
    for (let next = left.pop(); next !== undefined; next = left.pop()) {
      const { name, settings, address } = next;
      const timeoutMs = Math.min(settings.connectTimeoutMs, LONGEST_LOOK_MS);
      const unreachable = await probeUpstream(settings, address, { names, secureContext, timeoutMs });
      const fault =
        unreachable ??
        (converses
          ? await recogniseUpstream(settings.protocol, address, timeoutMs, settings.announced === true)
          : undefined);
      if (fault !== undefined) why.set(name, fault.message);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lookOn));
  return why;
}
