// Who may come in: addresses, passwords, and another service that is asked.

import type { Node } from 'yaml';
import { type HashFault, hashFault } from '../../../proxy/exchange/password-hashes.ts';
import type { AddressRule, BasicUser, HeaderEdit, Policy } from '../../../proxy/rules/model.ts';
import { parseUpstreamUrl } from '../../config/upstream-url.ts';
import { parseNetworks, quote } from '../../config/values.ts';
import {
  type Fields,
  isOff,
  readDuration,
  readFields,
  readPairs,
  readString,
  readStrings,
  readValue,
} from './fields.ts';
import { joined, readEdits, readNames } from './headers.ts';
import { keys } from './keys.ts';
import { knowsClients, type Reading, readNamed, readTemplate, templateOf } from './reading.ts';
import { upstreamOf } from './upstream.ts';

/**
 * Who is denied is; then who is allowed; where someone is allowed, all others are denied. Each of the two keys holds further
 * in until it is said again: a path that denies more opens nothing.
 */
export function readAddressPolicy(fields: Fields, outer: Policy, reading: Reading): Policy {
  const [allow, deny] = [fields.find('allow'), fields.find('deny')];
  if (allow === undefined && deny === undefined) return {};
  const before = outer.addresses ?? [];
  const denied = before.filter((rule) => !rule.allow && rule.range !== 'all');
  const allowed = before.filter((rule) => rule.allow || rule.range === 'all');
  return {
    addresses: [
      ...(deny === undefined ? denied : isOff(deny) ? [] : readAddresses(deny, false, '"deny"', reading)),
      ...(allow === undefined ? allowed : isOff(allow) ? [] : readAllowed(allow, '"allow"', reading)),
    ],
  };
}

/** And nobody else. */
export function readAllowed(node: Node, subject: string, reading: Reading): AddressRule[] {
  const allowed = readAddresses(node, true, subject, reading);
  return [...allowed, { allow: false, range: 'all', origin: reading.mistakes.originOf(node) }];
}

function readAddresses(node: Node, allow: boolean, subject: string, reading: Reading): AddressRule[] {
  const { mistakes } = reading;
  knowsClients(node, subject, reading);
  const origin = mistakes.originOf(node);
  return readStrings(node, subject, '10.0.0.0/8', mistakes).flatMap((text) => {
    const ranges = readValue(node, () => parseNetworks(text), mistakes) ?? [];
    return ranges.map((range) => ({ allow, range, origin }));
  });
}

export function readBasicAuth(node: Node, reading: Reading): Policy {
  if (isOff(node)) return { basicRealm: false };
  const { mistakes } = reading;
  const fields = readFields(node, keys.basicAuth, '"basic_auth"', mistakes);
  if (fields === undefined) return {};
  const [realm, users, file] = [fields.find('realm'), fields.find('users'), fields.find('users_file')];
  if (users === undefined && file === undefined)
    mistakes.at(node, '"basic_auth" has neither "users" nor "users_file"', 'wants one of them');
  const template = realm && readTemplate(realm, '"realm"', 'private', reading);
  return {
    basicRealm: template ?? ['restricted'],
    basicUsers: [
      ...(users === undefined ? [] : readUsers(users, reading)),
      ...(file === undefined ? [] : readUsersFile(file, reading)),
    ],
  };
}

/** What is written there may be the password itself: it is not shown. */
const NO_HASH = { fault: 'not a hash', cure: 'wants a hash of it, as `htpasswd -nB name` prints one' };

/** Undefined: passwords can be checked against it. Plain text is for password files of nginx. */
function faultOf(hash: string): HashFault | undefined {
  return /^(?:\$\w+\$|\{S?SHA\})[\x21-\x7e]+$/.test(hash) ? hashFault(hash) : NO_HASH;
}

function readUsers(node: Node, reading: Reading): BasicUser[] {
  const { mistakes } = reading;
  return readPairs(node, '"users"', mistakes).flatMap(({ name, key, value }) => {
    if (!isUserName(name))
      mistakes.at(key, `${quote(name)} is no name of a user`, 'wants one without a colon');
    const hash = readString(value, 'the password', '$2y$10$…', mistakes);
    if (hash === undefined) return [];
    const wrong = faultOf(hash);
    if (wrong === undefined) return [{ name, hash }];
    mistakes.at(value, `the password of ${quote(name)} is ${wrong.fault}`, wrong.cure);
    return [];
  });
}

function isUserName(name: string): boolean {
  return /^[^:\x00-\x1f\x7f]{1,255}$/.test(name);
}

function readUsersFile(node: Node, reading: Reading): BasicUser[] {
  const text = readNamed(node, '"users_file"', reading);
  if (text === undefined) return [];
  return text.split(/\r?\n/).flatMap((line, index) => {
    if (line.trim() === '' || line.startsWith('#')) return [];
    const colon = line.indexOf(':');
    const [name, hash] = [line.slice(0, Math.max(colon, 0)), line.slice(colon + 1).split(':')[0]!];
    const wrong = colon > 0 && isUserName(name) ? faultOf(hash) : NO_HASH;
    if (wrong === undefined) return [{ name, hash }];
    const fault = wrong === NO_HASH ? 'no name:hash' : wrong.fault;
    reading.mistakes.at(node, `line ${index + 1} of the file is ${fault}`, wrong.cure);
    return [];
  });
}

/** What such services look at, beside the X-Forwarded fields that every upstream gets. */
const ASKED_WITH: readonly HeaderEdit[] = [
  { do: 'set', name: 'X-Forwarded-Method', value: [{ name: 'request_method' }] },
  { do: 'set', name: 'X-Forwarded-Uri', value: [{ name: 'request_uri' }] },
  {
    do: 'set',
    name: 'X-Original-URL',
    value: [{ name: 'scheme' }, '://', { name: 'http_host' }, { name: 'request_uri' }],
  },
];

export function readForwardAuth(node: Node, reading: Reading): Policy {
  if (isOff(node)) return { authRequest: false };
  const { mistakes } = reading;
  const fields = readFields(node, keys.forwardAuth, '"forward_auth"', mistakes);
  const urlNode = fields?.require(
    'url',
    '"forward_auth" has no "url"',
    'wants the one that is asked, as in http://auth:9091/api/verify',
  );
  if (fields === undefined || urlNode === undefined) return {};
  const target = readServiceUrl(urlNode, reading);
  const headers = fields.find('headers');
  const copy = fields.find('copy');
  const back = fields.find('copy_to_reply');
  const own = headers === undefined ? [] : readEdits(headers, '"headers"', reading);
  const timeoutMs = fields.find('timeout') && readDuration(fields, 'timeout', 10_000, mistakes);
  const copied = copy === undefined ? [] : readNames(copy, '"copy"', reading);
  const copyToReply = back === undefined ? undefined : readNames(back, '"copy_to_reply"', reading);
  if (target === undefined) return {};
  return {
    authRequest: {
      kind: 'forward',
      ...target,
      requestHeaders: joined(ASKED_WITH, own),
      copy: copied,
      ...(copyToReply !== undefined && { copyToReply }),
      ...(timeoutMs !== undefined && { timeoutMs }),
    },
  };
}

/** The server, and what it is asked: path and query may hold variables. */
function readServiceUrl(node: Node, reading: Reading) {
  const { mistakes, shared } = reading;
  const text = readString(node, '"url"', 'http://auth:9091/api/verify', mistakes);
  if (text === undefined) return undefined;
  const [, base, path = '/'] = /^((?:https?|h2c):\/\/[^/?#$]*)([/?].*)?$/s.exec(text) ?? [];
  if (base === undefined) {
    mistakes.at(
      node,
      `${quote(text)} is not a URL of a service`,
      'wants http://, https:// or h2c:// and a host, as in http://auth:9091/api/verify',
    );
    return undefined;
  }
  const target = readValue(node, () => parseUpstreamUrl(base), mistakes);
  const uri = templateOf(path.startsWith('/') ? path : `/${path}`, node, reading);
  if (target === undefined || uri === undefined) return undefined;
  const { group, protocol } = upstreamOf(
    { protocol: target.protocol, addresses: [target.address], ...shared.options.timeouts },
    shared,
  );
  return { upstream: group.name, protocol, uri };
}
