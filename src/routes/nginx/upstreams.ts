// Blocks of upstream, and the groups of one server that a proxy_pass with a bare address makes.

import { isIPv6 } from 'node:net';
import type { Balancing, UpstreamGroup, UpstreamServer } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import type { Directive } from './blocks.ts';
import type { Word } from './lexer.ts';
import { given, Level, originOf, type Reading } from './reading.ts';
import { readCount, readTimeMs } from './values.ts';

export interface Upstreams {
  /** The group that `authority` names: one that is defined, or one of its own. Undefined: a mistake was told. */
  of(authority: string, at: Word): string | undefined;
  /** Whether an upstream block defines it. */
  isGroup(authority: string): boolean;
  all(): readonly UpstreamGroup[];
}

export function readUpstreams(level: Level, reading: Reading): Upstreams {
  const groups = new Map<string, UpstreamGroup>();
  for (const directive of level.all('upstream')) {
    const group = readGroup(directive, reading);
    const key = group.name.toLowerCase();
    if (groups.has(key))
      reading.refuse(
        directive.name,
        `the upstream ${group.name} is defined twice`,
        'give one of them another name',
      );
    else groups.set(key, group);
  }
  const defined = new Set(groups.keys());
  return {
    of(authority, at) {
      const known = groups.get(authority.toLowerCase());
      if (known !== undefined) return known.name;
      const address = readAddress(authority);
      if (address === undefined)
        return reading.refuse(
          at,
          `${quote(authority)} is no host`,
          'wants a name or an address, and perhaps :port',
        );
      if (address.port !== undefined && groups.has(address.host.toLowerCase()))
        return reading.refuse(
          at,
          `the upstream ${address.host} may not have a port here`,
          'write the port behind its servers',
        );
      groups.set(authority.toLowerCase(), {
        name: authority,
        origin: `${at.file}:${at.line}:${at.column}`,
        servers: [address],
      });
      return authority;
    },
    isGroup: (authority) => defined.has(authority.toLowerCase()),
    all: () => [...groups.values()],
  };
}

interface ServerAddress {
  readonly host: string;
  readonly port?: number;
}

export function readAddress(text: string): ServerAddress | undefined {
  const found = /^(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+))(?::(\d{1,5}))?$/.exec(text);
  if (found === null) return undefined;
  const [, six, name, digits] = found;
  if (six !== undefined && !isIPv6(six)) return undefined;
  const port = digits === undefined ? undefined : Number(digits);
  if (port !== undefined && (port === 0 || port > 65_535)) return undefined;
  return { host: (six ?? name)!, ...(port !== undefined && { port }) };
}

function readGroup(directive: Directive, reading: Reading): UpstreamGroup {
  const level = new Level(directive.block!);
  const name = directive.args[0]!.text;
  const written = level.all('server').flatMap((one) => readServer(one, reading) ?? []);
  if (level.all('server').length === 0)
    reading.refuse(directive.name, `the upstream ${name} has no servers`, 'write server host:port; into it');
  const servers = written.map((server) => ({ ...server, maxFails: 1, failTimeoutMs: 10_000, ...server }));
  if (servers.length > 0 && servers.every(({ backup }) => backup === true))
    reading.refuse(
      directive.name,
      `the upstream ${name} has backup servers alone`,
      'take backup from one of them',
    );
  const balance = readBalancing(level, reading);
  if (
    balance.by !== 'turns' &&
    balance.by !== 'least-connections' &&
    servers.some(({ backup }) => backup === true)
  )
    reading.refuse(
      directive.name,
      `the upstream ${name} has a backup server, which hash, ip_hash and random do not know`,
      'take backup away, or balance by turns',
    );
  return { name, origin: originOf(directive), servers, balance };
}

function readBalancing(level: Level, reading: Reading): Balancing {
  if (level.one('least_conn') !== undefined) return { by: 'least-connections' };
  if (level.one('ip_hash') !== undefined) return { by: 'address' };
  const random = level.one('random');
  if (random !== undefined) {
    const [two, method] = random.args;
    if ((two !== undefined && two.text !== 'two') || (method !== undefined && method.text !== 'least_conn'))
      reading.refuse(
        two!,
        `random ${random.args.map(({ text }) => text).join(' ')} is unknown`,
        'wants random, or random two least_conn',
      );
    return { by: 'chance', ...(two !== undefined && { two: true }) };
  }
  const hash = level.one('hash');
  if (hash === undefined) return { by: 'turns' };
  const [key, consistent] = hash.args as [Word, Word?];
  if (consistent !== undefined && consistent.text !== 'consistent')
    reading.refuse(consistent, `${quote(consistent.text)} is no parameter of hash`, 'wants consistent');
  return { by: 'hash', key: reading.template(key), ...(consistent !== undefined && { consistent: true }) };
}

function readServer({ args }: Directive, reading: Reading): UpstreamServer | undefined {
  const [where, ...params] = args as [Word, ...Word[]];
  if (where.text.startsWith('unix:'))
    return reading.refuse(
      where,
      'an upstream is a UNIX socket',
      'let the app listen on a port, and write host:port',
    );
  const address = readAddress(where.text);
  if (address === undefined)
    return reading.refuse(
      where,
      `${quote(where.text)} is no server`,
      'wants a name or an address, and perhaps :port; https is said in proxy_pass',
    );
  let server: UpstreamServer = { ...address };
  for (const word of params) server = { ...server, ...readParameter(word, reading) };
  return server;
}

function readParameter(word: Word, reading: Reading): Partial<UpstreamServer> {
  const [, key = word.text, value = ''] = /^(\w+)=(.*)$/.exec(word.text) ?? [];
  const count = readCount(value);
  const known: Partial<UpstreamServer> | undefined =
    {
      backup: { backup: true },
      down: { down: true },
      resolve: {},
      weight: count === 0 ? undefined : count && { weight: count },
      max_fails: count === undefined ? undefined : { maxFails: count },
      max_conns: count === undefined ? undefined : { maxConnections: count },
      fail_timeout: given<Partial<UpstreamServer>>({ failTimeoutMs: readTimeMs(value, 's') }),
    }[key] || undefined;
  const isWrong = known === undefined || (key === 'fail_timeout' && known.failTimeoutMs === undefined);
  if (!isWrong) return known;
  reading.refuse(
    word,
    `${quote(word.text)} is no parameter of server`,
    'wants weight=, max_fails=, fail_timeout=, max_conns=, backup or down',
  );
  return {};
}
