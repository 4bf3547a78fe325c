// The file's named upstreams: servers with weights, how they share the load, how they are asked whether they are well.

import { isMap, isSeq, type Node } from 'yaml';
import type { Balancing, UpstreamGroup, UpstreamServer } from '../../../proxy/rules/model.ts';
import type { UpstreamTarget } from '../../config/upstream-url.ts';
import { quote } from '../../config/values.ts';
import {
  type Fields,
  readBoolean,
  readChoice,
  readDuration,
  readFields,
  readInteger,
  readList,
  readPairs,
  readSeconds,
  readString,
} from './fields.ts';
import { readHealth, suits } from './health.ts';
import { keys } from './keys.ts';
import type { Seen } from './mistakes.ts';
import { knowsClients, type Reading, readTemplate, registerUpstream } from './reading.ts';
import { commonProtocol, readTarget, withoutDefaultPort } from './upstream.ts';

/** `seen`: names of all files. */
export function readNamedUpstreams(node: Node, seen: Seen, reading: Reading): void {
  for (const { name, key, value } of readPairs(node, '"upstreams"', reading.mistakes)) {
    if (!/^[A-Za-z][A-Za-z0-9_-]{0,62}$/.test(name)) {
      reading.mistakes.at(
        key,
        `${quote(name)} is no name of an upstream`,
        'wants letters, digits, - and _, as in api',
      );
      continue;
    }
    readNamed(name, key, value, seen, reading);
  }
}

function readNamed(name: string, key: Node, node: Node, seen: Seen, reading: Reading): void {
  const { mistakes, shared } = reading;
  // The short form: the servers alone.
  const fields = isMap(node)
    ? readFields(node, keys.namedUpstream, `upstream ${quote(name)}`, mistakes)
    : undefined;
  if (isMap(node) && fields === undefined) return;
  const serversNode =
    fields === undefined
      ? node
      : fields.require('servers', `upstream ${quote(name)} has no "servers"`, 'wants a list of them');
  if (serversNode === undefined) return;
  const found = readServers(serversNode, reading);
  const health = fields?.find('health');
  const probe = health && readHealth(health, mistakes);
  const balance = readBalance(fields?.find('balance'), reading);
  if (found === undefined) return;
  const { protocol, targets, servers } = found;
  if (protocol === 'tcp') {
    mistakes.at(serversNode, 'tcp:// takes whole connections, which have no rules', 'wants it at its route');
    return;
  }
  if (!suits(probe, protocol, serversNode, mistakes)) return;
  const group: UpstreamGroup = {
    name,
    origin: mistakes.originOf(key),
    servers,
    ...(balance !== undefined ? { balance } : {}),
    ...(probe !== undefined ? { health: probe } : {}),
  };
  const spoken = protocol === 'auto' ? 'http' : protocol;
  const host = withoutDefaultPort(targets[0]!.address, spoken);
  registerUpstream(name, key, { protocol: spoken, group, host }, reading, seen);
  shared.groups.set(name, group);
}

const MOST_SERVERS = 100;

function readServers(node: Node, reading: Reading) {
  const { mistakes } = reading;
  const items = isSeq(node) ? readList(node, '"servers"', MOST_SERVERS, mistakes) : [node];
  const seen: Seen = new Map();
  const read = items.map((item) => readServer(item, seen, reading));
  const protocol = commonProtocol(
    items,
    read.map((one) => one?.target),
    mistakes,
  );
  if (protocol === undefined) return undefined;
  const all = read as { target: UpstreamTarget; server: UpstreamServer }[];
  return { protocol, targets: all.map(({ target }) => target), servers: all.map(({ server }) => server) };
}

function readServer(
  node: Node,
  seen: Seen,
  { mistakes }: Reading,
): { target: UpstreamTarget; server: UpstreamServer } | undefined {
  if (!isMap(node)) {
    const target = readTarget(node, seen, mistakes);
    return target && { target, server: { ...target.address } };
  }
  const fields = readFields(node, keys.server, 'a server', mistakes);
  const url = fields?.require('url', 'this server has no "url"', 'wants one, as in url: http://app:80');
  if (fields === undefined || url === undefined) return undefined;
  const target = readTarget(url, seen, mistakes);
  const weight = readInteger(fields.find('weight'), '"weight"', [1, 1000], mistakes);
  const most = readInteger(fields.find('max_connections'), '"max_connections"', [1, 1_000_000], mistakes);
  const fails = readInteger(fields.find('max_fails'), '"max_fails"', [0, 1000], mistakes);
  const failTimeoutMs = fields.find('fail_timeout') && readDuration(fields, 'fail_timeout', 1, mistakes);
  const backup = readBoolean(fields, 'backup', mistakes);
  const down = readBoolean(fields, 'down', mistakes);
  return (
    target && {
      target,
      server: {
        ...target.address,
        ...(weight !== undefined && { weight }),
        ...(backup !== undefined && { backup }),
        ...(down !== undefined && { down }),
        ...(most !== undefined && { maxConnections: most }),
        ...((fails ?? failTimeoutMs) !== undefined && { maxFails: fails ?? 1 }),
        ...(failTimeoutMs !== undefined && { failTimeoutMs }),
      },
    }
  );
}

const BALANCES = ['least_connections', 'weighted', 'random', 'address'] as const;

function readBalance(node: Node | undefined, reading: Reading): Balancing | undefined {
  if (node === undefined) return undefined;
  if (isMap(node)) return readKeyedBalance(node, reading);
  const by = readChoice(node, 'balance', BALANCES, reading.mistakes);
  switch (by) {
    case 'weighted':
      return { by: 'turns' };
    case 'random':
      return { by: 'chance', two: true };
    case 'address':
      return knowsClients(node, '"balance"', reading) ? { by } : undefined;
    case 'least_connections':
      return { by: 'least-connections' };
    default:
      return undefined;
  }
}

function readKeyedBalance(node: Node, reading: Reading): Balancing | undefined {
  const { mistakes } = reading;
  const fields = readFields(node, keys.balance, '"balance"', mistakes);
  if (fields === undefined) return undefined;
  const [hash, cookie] = [fields.find('hash'), fields.find('cookie')];
  if ((hash === undefined) === (cookie === undefined)) {
    mistakes.at(node, '"balance" has neither or both of "hash" and "cookie"', 'wants one of them');
    return undefined;
  }
  if (cookie !== undefined) return readSticky(cookie, fields, reading);
  for (const key of ['max_age', 'secret']) {
    const stray = fields.find(key);
    if (stray !== undefined) mistakes.at(stray, `"${key}" goes with "cookie" alone`, 'take it away');
  }
  const key = readTemplate(hash!, '"hash"', '$cookie_session', reading);
  const consistent = readBoolean(fields, 'consistent', mistakes);
  return key && { by: 'hash', key, ...(consistent !== undefined && { consistent }) };
}

function readSticky(cookie: Node, fields: Fields, reading: Reading): Balancing | undefined {
  const { mistakes, shared } = reading;
  const stray = fields.find('consistent');
  if (stray !== undefined) mistakes.at(stray, '"consistent" goes with "hash" alone', 'take it away');
  const name = readString(cookie, '"cookie"', 'server', mistakes);
  const secretNode = fields.find('secret');
  const secret = secretNode ? readString(secretNode, '"secret"', 'a long one', mistakes) : undefined;
  if (secretNode !== undefined && secret !== undefined && secret.length < SHORTEST_SECRET)
    mistakes.at(secretNode, '"secret" is too short', `wants ${SHORTEST_SECRET} characters at least`);
  const maxAgeSeconds = readSeconds(fields, 'max_age', mistakes);
  if (name === undefined) return undefined;
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$/.test(name)) {
    mistakes.at(cookie, `${quote(name)} is no name of a cookie`, 'wants one as in server');
    return undefined;
  }
  return {
    by: 'cookie',
    name,
    secret: secret ?? shared.options.cookieSecret,
    ...(maxAgeSeconds !== undefined && { maxAgeSeconds }),
  };
}

const SHORTEST_SECRET = 16;

/** What of it plain routes can say as well: URLs that share the load by open requests. */
export function isPlainGroup({ servers, balance }: UpstreamGroup): boolean {
  const simple = servers.every((server) =>
    Object.keys(server).every((key) => key === 'host' || key === 'port'),
  );
  return simple && (balance === undefined || balance.by === 'least-connections');
}
