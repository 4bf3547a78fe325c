// Which requests a route or a path is for: hosts, paths, and beyond them method, headers and query.

import type { Node } from 'yaml';
import type {
  LocationMatch,
  NamedMatch,
  RequestMatch,
  SiteName,
  ValueMatch,
} from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import { type Domain, DomainError, isWildcard, parseDomain } from '../../lib/domain.ts';
import { type Fields, isOff, isOn, readFields, readList, readPairs, readString, readText } from './fields.ts';
import { keys } from './keys.ts';
import { isRepeated, type Mistakes } from './mistakes.ts';
import { patternOf, type Reading } from './reading.ts';
import { readMethods } from './replies.ts';

// Hosts

export interface HostName {
  readonly name: SiteName;
  /** As it was written. */
  readonly label: string;
  /** What certificates and plain routes know it as; of a regular expression they know nothing. */
  readonly domain: Domain | undefined;
}

const MOST_HOSTS = 1000;

/** `host` or `hosts`. Undefined after saying what is missing. */
export function readHosts(fields: Fields, reading: Reading): HostName[] | undefined {
  const { mistakes } = reading;
  const several = fields.find('hosts');
  if (several === undefined) {
    const node = fields.require('host', 'this route has no "host"', 'wants one, as in host: app.example.com');
    const host = node && readHost(node, reading);
    return host && [host];
  }
  if (fields.find('host') !== undefined)
    mistakes.at(several, 'this route has "host" and "hosts"', 'wants one of them');
  const hosts = readList(several, '"hosts"', MOST_HOSTS, mistakes).flatMap(
    (node) => readHost(node, reading) ?? [],
  );
  return hosts.length === 0 ? undefined : hosts;
}

function readHost(node: Node, reading: Reading): HostName | undefined {
  const { mistakes, shared } = reading;
  const text = readString(node, '"host"', 'app.example.com', mistakes);
  if (text === undefined) return undefined;
  const host = text.startsWith('~') ? readHostPattern(text, node, reading) : readDomain(text, node, mistakes);
  if (host === undefined) return undefined;
  const repeated = isRepeated(host.label, node, shared.hosts, `host ${quote(host.label)}`, mistakes);
  return repeated ? undefined : host;
}

function readHostPattern(text: string, node: Node, reading: Reading): HostName | undefined {
  // Names ignore case.
  const pattern = patternOf(text.slice(1), node, reading, true);
  return pattern && { name: { kind: 'pattern', pattern }, label: text, domain: undefined };
}

function readDomain(text: string, node: Node, mistakes: Mistakes): HostName | undefined {
  if (text !== text.trim()) {
    mistakes.at(node, `${quote(text)} has blanks around the name`, `wants ${quote(text.trim())}`);
    return undefined;
  }
  try {
    const domain = parseDomain(text);
    const name: SiteName = isWildcard(domain)
      ? { kind: 'one-label', name: domain.slice(2) }
      : { kind: 'exact', name: domain };
    return { name, label: domain, domain };
  } catch (error) {
    if (!(error instanceof DomainError)) throw error;
    mistakes.at(node, error.subject, error.cure);
    return undefined;
  }
}

// Paths

export interface PathMatch {
  readonly match: LocationMatch;
  /** What plain routes take: a prefix as it was written. */
  readonly prefix: string | undefined;
  /** Tells it from others. */
  readonly key: string;
}

const KINDS = ['prefix', 'exact', 'under', 'regex'] as const;

/** One of the four keys. Undefined after saying what is wrong. */
export function readPathMatch(fields: Fields, reading: Reading): PathMatch | undefined {
  const { mistakes } = reading;
  const given = KINDS.filter((kind) => fields.find(kind) !== undefined);
  const [kind, second] = given;
  if (kind === undefined) {
    fields.require('prefix', 'this path has no "prefix"', 'wants one, as in prefix: /v1/');
    return undefined;
  }
  const node = fields.find(kind)!;
  if (second !== undefined) {
    mistakes.at(fields.find(second), `this path has "${kind}" and "${second}"`, 'wants one of them');
    return undefined;
  }
  if (kind !== 'regex') return readPlainPath(kind, node, reading);
  const text = readString(node, '"regex"', '^/v[0-9]+/', mistakes);
  const pattern = text === undefined ? undefined : patternOf(text, node, reading);
  return pattern && { match: { kind: 'pattern', pattern }, prefix: undefined, key: `regex ${text}` };
}

function readPlainPath(
  kind: 'prefix' | 'exact' | 'under',
  node: Node,
  { mistakes }: Reading,
): PathMatch | undefined {
  const text = readString(node, `"${kind}"`, '/v1/', mistakes);
  if (text === undefined) return undefined;
  // RFC 3986 §3.3: what a request's path can be made of.
  if (!/^\/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*$/.test(text)) {
    mistakes.at(node, `${quote(text)} is not a path`, 'wants what requests\' paths start with, as in "/v1/"');
    return undefined;
  }
  const path = decoded(text);
  const key = `${kind} ${quote(text)}`;
  if (kind === 'prefix') return { match: { kind, path }, prefix: text, key };
  return { match: { kind: kind === 'exact' ? kind : 'segments', path }, prefix: undefined, key };
}

/** Rules compare what a path says, not how it is escaped. */
function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    // Bytes that are no UTF-8, which plain routes compare as they are.
    return path;
  }
}

// Beyond the path

export function readWhen(node: Node, reading: Reading): RequestMatch | undefined {
  const { mistakes } = reading;
  const fields = readFields(node, keys.when, '"when"', mistakes);
  if (fields === undefined) return undefined;
  const [method, headers, query] = [fields.find('method'), fields.find('headers'), fields.find('query')];
  if (method === undefined && headers === undefined && query === undefined)
    mistakes.at(node, '"when" says nothing', 'wants "method", "headers" or "query"');
  return {
    ...(method !== undefined && { methods: withHead(readMethods(method, '"method"', reading)) }),
    ...(headers !== undefined && { headers: readNamed(headers, '"headers"', reading) }),
    ...(query !== undefined && { query: readNamed(query, '"query"', reading) }),
  };
}

/** Whoever may GET may ask what a GET would say (RFC 9110 §9.3.2). */
function withHead(methods: readonly string[]): string[] {
  return methods.includes('GET') && !methods.includes('HEAD') ? [...methods, 'HEAD'] : [...methods];
}

function readNamed(node: Node, subject: string, reading: Reading): NamedMatch[] {
  return readPairs(node, subject, reading.mistakes).flatMap(({ name, key, value }) => {
    const match = readValueMatch(value, name, reading);
    if (name === '') reading.mistakes.at(key, `${subject} has an empty name`, 'wants the name of one');
    return match === undefined ? [] : [{ name, value: match }];
  });
}

/** true: it is there. false: it is not. Text: it is that. `~` and an expression: it fits. */
function readValueMatch(node: Node, name: string, reading: Reading): ValueMatch | undefined {
  if (isOn(node)) return { kind: 'present' };
  if (isOff(node)) return { kind: 'absent' };
  const text = readText(node, quote(name), 'beta', reading.mistakes);
  if (text === undefined) return undefined;
  if (!text.startsWith('~')) return { kind: 'text', text };
  const pattern = patternOf(text.slice(1), node, reading);
  return pattern && { kind: 'pattern', pattern };
}
