// Where requests go, written at the route itself: one URL, several that share the load, or the name of an upstream.

import { isScalar, isSeq, type Node } from 'yaml';
import type { UpstreamGroup } from '../../../proxy/rules/model.ts';
import {
  type Address,
  authorityOf,
  type HealthSettings,
  type UpstreamProtocol,
  type UpstreamSettings,
} from '../../../proxy/rules/routes.ts';
import { parseUpstreamUrl, type UpstreamTarget } from '../../config/upstream-url.ts';
import { quote } from '../../config/values.ts';
import { nearest } from '../../lib/spelling.ts';
import { readDuration, readFields, readList, readString, readValue } from './fields.ts';
import { suits } from './health.ts';
import { keys } from './keys.ts';
import { isRepeated, type Mistakes, type Seen } from './mistakes.ts';
import type { Reading, Shared, Upstream, UpstreamTimeouts } from './reading.ts';

/** What holds for the upstreams of a route unless a path says otherwise. */
export interface Manner {
  readonly timeouts: UpstreamTimeouts;
  readonly health: HealthSettings | undefined;
}

/** `plain`: what the table of plain routes takes as it is. */
export type Destination =
  | { readonly kind: 'plain'; readonly settings: UpstreamSettings }
  | { readonly kind: 'named'; readonly upstream: Upstream };

const MOST_ADDRESSES = 100;

export function readDestination(node: Node, manner: Manner, reading: Reading): Destination | undefined {
  const named = namedUpstream(node, reading);
  if (named === 'unknown') return undefined;
  if (named !== undefined) return { kind: 'named', upstream: named };
  const settings = readUpstream(node, manner, reading.mistakes);
  return settings && { kind: 'plain', settings };
}

const NAME = /^[A-Za-z][A-Za-z0-9_-]*$/;

/** A word without a port is a name, where the file has any. */
function namedUpstream(node: Node, { shared, mistakes }: Reading): Upstream | 'unknown' | undefined {
  const text = isScalar(node) && typeof node.value === 'string' ? node.value : '';
  const known = shared.upstreams.get(text);
  if (known !== undefined || shared.upstreams.size === 0 || !NAME.test(text)) return known;
  const like = nearest(text, shared.upstreams.keys());
  mistakes.at(
    node,
    `there is no upstream ${quote(text)}`,
    like === undefined ? 'wants one of "upstreams", a URL or host:port' : `was ${like} meant?`,
  );
  return 'unknown';
}

function readUpstream(
  node: Node,
  { timeouts, health }: Manner,
  mistakes: Mistakes,
): UpstreamSettings | undefined {
  const items = isSeq(node) ? readList(node, '"upstream"', MOST_ADDRESSES, mistakes) : [node];
  const seen: Seen = new Map();
  const targets = items.map((item) => readTarget(item, seen, mistakes));
  const protocol = commonProtocol(items, targets, mistakes);
  if (protocol === undefined || !suits(health, protocol, node, mistakes)) return undefined;
  const addresses = targets.map((target) => target!.address);
  return { protocol, addresses, ...timeouts, ...(health !== undefined && { health }) };
}

/** Undefined after saying why, or if something is wrong with one of them already. */
export function commonProtocol(
  nodes: readonly Node[],
  targets: readonly (UpstreamTarget | undefined)[],
  mistakes: Mistakes,
): UpstreamProtocol | undefined {
  const [first] = targets;
  if (first === undefined || targets.includes(undefined)) return undefined;
  const other = targets.findIndex((target) => target?.protocol !== first.protocol);
  if (other === -1) return first.protocol;
  mistakes.at(
    nodes[other],
    `speaks ${targets[other]?.protocol}, the first one ${first.protocol}`,
    'wants one protocol',
  );
  return undefined;
}

export function readTarget(node: Node, seen: Seen, mistakes: Mistakes): UpstreamTarget | undefined {
  const text = readString(node, 'an upstream', 'http://app:80', mistakes);
  if (text === undefined) return undefined;
  const target = readValue(node, () => parseUpstreamUrl(text), mistakes);
  if (target === undefined) return undefined;
  const { host, port } = target.address;
  return isRepeated(`${host} ${port}`, node, seen, `upstream ${quote(text)}`, mistakes) ? undefined : target;
}

export function readTimeouts(
  node: Node | undefined,
  inherited: UpstreamTimeouts,
  mistakes: Mistakes,
): UpstreamTimeouts {
  if (node === undefined) return inherited;
  const fields = readFields(node, keys.timeouts, '"timeouts"', mistakes);
  if (fields === undefined) return inherited;
  const read = (key: string, otherwise: number) => readDuration(fields, key, otherwise, mistakes);
  const total = read('total', inherited.totalTimeoutMs ?? 0);
  return {
    connectTimeoutMs: read('connect', inherited.connectTimeoutMs),
    readTimeoutMs: read('read', inherited.readTimeoutMs),
    sendTimeoutMs: read('send', inherited.sendTimeoutMs),
    ...(total > 0 && { totalTimeoutMs: total }),
  };
}

/** As a group of the rules: equal ones are one. Its name is what was written. */
export function upstreamOf(settings: UpstreamSettings, shared: Shared): Upstream {
  const { addresses, health } = settings;
  // Raw bytes know no rules, so that behind rules nothing passes but HTTP.
  const protocol = settings.protocol === 'auto' ? 'http' : settings.protocol;
  const group = groupOf(addresses, health, shared);
  return { protocol, group, host: withoutDefaultPort(addresses[0]!, protocol) };
}

function groupOf(
  addresses: readonly Address[],
  health: HealthSettings | undefined,
  { groups }: Shared,
): UpstreamGroup {
  const servers = addresses.map(({ host, port }) => ({ host, port }));
  const written = addresses.map(authorityOf).join(', ');
  for (let number = 1; ; number++) {
    const name = number === 1 ? written : `${written} (${number})`;
    const group: UpstreamGroup = { name, servers, ...(health !== undefined && { health }) };
    const known = groups.get(name);
    if (known === undefined) groups.set(name, group);
    else if (JSON.stringify(known) !== JSON.stringify(group)) continue;
    return known ?? group;
  }
}

const DEFAULT_PORTS: Readonly<Record<string, number>> = {
  http: 80,
  h2c: 80,
  grpc: 80,
  https: 443,
  grpcs: 443,
};

export function withoutDefaultPort(address: Address, protocol: UpstreamProtocol): string {
  const authority = authorityOf(address);
  const port = `:${DEFAULT_PORTS[protocol]}`;
  return authority.endsWith(port) ? authority.slice(0, -port.length) : authority;
}
