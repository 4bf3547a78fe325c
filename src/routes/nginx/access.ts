// Who may pass: allow and deny, passwords, sub-requests, limits, and whose address is taken for the client's.

import { isIP } from 'node:net';
import { hashFault } from '../../../proxy/exchange/password-hashes.ts';
import type {
  AccessPolicy,
  AddressRule,
  BasicUser,
  ClientAddressPolicy,
  ConnectionLimit,
  RequestLimit,
} from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import type { Word } from './lexer.ts';
import type { Zones } from './limits.ts';
import { given, type Level, originOf, type Reading } from './reading.ts';
import { readCount, readSize } from './values.ts';

export function readAccess(level: Level, zones: Zones, reading: Reading): AccessPolicy {
  const realm = level.value('auth_basic');
  const userFile = level.value('auth_basic_user_file');
  const request = level.value('auth_request');
  const body = level.value('client_max_body_size');
  return given<AccessPolicy>({
    addresses: readAddresses(level, reading),
    satisfy: readSatisfy(level, reading),
    basicRealm: realm && (realm.text === 'off' ? false : reading.template(realm)),
    basicUsers: userFile && readUsers(userFile, reading),
    authRequest: request && (request.text === 'off' ? false : { kind: 'uri', uri: [request.text] }),
    authVariables: readAuthVariables(level, reading),
    requestLimits: level.isOn('limit_req_dry_run') ? [] : readRequestLimits(level, zones, reading),
    requestLimitStatus: readStatus(level, 'limit_req_status', reading),
    connectionLimits: level.isOn('limit_conn_dry_run') ? [] : readConnectionLimits(level, zones, reading),
    connectionLimitStatus: readStatus(level, 'limit_conn_status', reading),
    maxBodyBytes: body && readBytes(body, reading),
  });
}

function readBytes(word: Word, reading: Reading): number | undefined {
  const bytes = readSize(word.text);
  return (
    bytes ??
    reading.refuse(word, `${quote(word.text)} is not a size`, 'wants a whole number, or one with k, m or g')
  );
}

function readAddresses(level: Level, reading: Reading): AddressRule[] | undefined {
  const rules = level.directives.filter(({ name }) => name.text === 'allow' || name.text === 'deny');
  if (rules.length === 0) return undefined;
  return rules.flatMap((directive): AddressRule[] => {
    const [word] = directive.args as [Word];
    if (word.text !== 'all' && word.text !== 'unix:' && !isRange(word, reading)) return [];
    return [{ allow: directive.name.text === 'allow', range: word.text, origin: originOf(directive) }];
  });
}

function isRange(word: Word, reading: Reading): boolean {
  const [address = '', bits, more] = word.text.split('/');
  const family = isIP(address);
  const most = family === 4 ? 32 : 128;
  const known =
    family !== 0 &&
    more === undefined &&
    (bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= most));
  if (!known)
    reading.refuse(
      word,
      `${quote(word.text)} is neither an address nor a range`,
      'wants all, 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32',
    );
  return known;
}

function readSatisfy(level: Level, reading: Reading): 'all' | 'any' | undefined {
  const word = level.value('satisfy');
  if (word === undefined || word.text === 'all' || word.text === 'any')
    return word?.text as 'all' | 'any' | undefined;
  return reading.refuse(word, `satisfy ${quote(word.text)} is unknown`, 'wants all or any');
}

/** Lines of `name:hash`, as htpasswd writes them. */
function readUsers(word: Word, reading: Reading): BasicUser[] | undefined {
  if (word.text.includes('$')) return reading.refuse(word, 'the path holds variables', 'write it out');
  const text = reading.readNamed(word);
  if (text === undefined) return undefined;
  return text.split('\n').flatMap((line, index): BasicUser[] => {
    const [name = '', hash = ''] = line.trim().split(':');
    if (name === '' || name.startsWith('#') || hash === '') return [];
    const wrong = hashFault(hash);
    if (wrong !== undefined)
      reading.refuse(word, `line ${index + 1} of ${quote(word.text)} has ${wrong.fault}`, wrong.cure);
    return [{ name, hash }];
  });
}

function readAuthVariables(level: Level, reading: Reading): AccessPolicy['authVariables'] {
  const directives = level.all('auth_request_set');
  if (directives.length === 0) return undefined;
  return directives.flatMap(({ args }) => {
    const [name, value] = args as [Word, Word];
    const variable = reading.variable(name, 'set');
    const template = reading.template(value);
    return variable === undefined ? [] : [{ variable, value: template }];
  });
}

function readStatus(level: Level, name: string, reading: Reading): number | undefined {
  const word = level.value(name);
  const status = word && readCount(word.text, 599);
  if (word === undefined || (status !== undefined && status >= 400)) return status;
  return reading.refuse(word, `${quote(word.text)} is not a status for what is refused`, 'wants 400 to 599');
}

function readRequestLimits(level: Level, zones: Zones, reading: Reading): RequestLimit[] | undefined {
  const directives = level.all('limit_req');
  if (directives.length === 0) return undefined;
  const seen = new Set<string>();
  return directives.flatMap(({ name, args }): RequestLimit[] => {
    let limit: { zone?: string; burst?: number; delay?: number } = {};
    for (const word of args) {
      const [, key, value] = /^(zone|burst|delay)=(.+)$/.exec(word.text) ?? [];
      const count = value === undefined ? undefined : readCount(value);
      if (word.text === 'nodelay') limit = { ...limit, delay: Number.POSITIVE_INFINITY };
      else if (key === 'zone') limit = { ...limit, zone: value! };
      else if (key !== undefined && count !== undefined) limit = { ...limit, [key]: count };
      else
        reading.refuse(
          word,
          `${quote(word.text)} is no parameter of limit_req`,
          'wants zone=name, burst=number, nodelay or delay=number',
        );
    }
    const { zone, burst = 0, delay = 0 } = limit;
    if (zone === undefined) return none(reading.refuse(name, 'limit_req names no zone', 'write zone=name'));
    if (seen.has(zone))
      return none(reading.refuse(name, `limit_req has the zone ${zone} twice here`, 'wants one of them'));
    seen.add(zone);
    if (!zones.has('limit_req_zone', zone))
      return none(
        reading.refuse(
          name,
          `there is no zone ${zone} of limit_req_zone`,
          `define it: limit_req_zone $binary_remote_addr zone=${zone}:10m rate=10r/s;`,
        ),
      );
    return [{ zone, burst, delay: Math.min(delay, burst) }];
  });
}

function readConnectionLimits(level: Level, zones: Zones, reading: Reading): ConnectionLimit[] | undefined {
  const directives = level.all('limit_conn');
  if (directives.length === 0) return undefined;
  const seen = new Set<string>();
  return directives.flatMap(({ name, args }): ConnectionLimit[] => {
    const [zone, count] = args as [Word, Word];
    const max = readCount(count.text, 65_535);
    if (max === undefined || max === 0)
      return none(
        reading.refuse(count, `${quote(count.text)} is not a number of connections`, 'wants 1 to 65535'),
      );
    if (seen.has(zone.text))
      return none(
        reading.refuse(name, `limit_conn has the zone ${zone.text} twice here`, 'wants one of them'),
      );
    seen.add(zone.text);
    if (!zones.has('limit_conn_zone', zone.text))
      return none(
        reading.refuse(
          zone,
          `there is no zone ${zone.text} of limit_conn_zone`,
          `define it: limit_conn_zone $binary_remote_addr zone=${zone.text}:10m;`,
        ),
      );
    return [{ zone: zone.text, max }];
  });
}

function none(_: undefined): [] {
  return [];
}

export function readClientAddress(level: Level, reading: Reading): ClientAddressPolicy {
  const from = level.all('set_real_ip_from').map(({ args }) => args[0]!);
  const header = level.value('real_ip_header');
  return given<ClientAddressPolicy>({
    realIpFrom:
      from.length === 0
        ? undefined
        : from.filter((word) => word.text !== 'unix:' && isRange(word, reading)).map(({ text }) => text),
    realIpHeader: header?.text,
    realIpRecursive: level.isOn('real_ip_recursive'),
  });
}
