// The routes file: YAML to routes, every mistake with its line and column.

import {
  type ErrorCode,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseAllDocuments,
  Scalar,
  visit,
} from 'yaml';
import type {
  HealthProbe,
  HealthSettings,
  PathRoute,
  Route,
  UpstreamProtocol,
  UpstreamSettings,
} from '../../../proxy/rules/routes.ts';
import { describeMistake, inPlaceOrder, type Mistake } from '../../config/mistake.ts';
import { parseUpstreamUrl } from '../../config/upstream-url.ts';
import { parseDuration, quote, ValueError } from '../../config/values.ts';
import { type Domain, DomainError, parseDomain } from '../../lib/domain.ts';
import { meantIn } from '../../lib/spelling.ts';

export type UpstreamTimeouts = Pick<
  UpstreamSettings,
  'connectTimeoutMs' | 'readTimeoutMs' | 'sendTimeoutMs' | 'totalTimeoutMs'
>;

/** What holds for the upstreams of a route unless a path says otherwise. */
interface Manner {
  readonly timeouts: UpstreamTimeouts;
  readonly health: HealthSettings | undefined;
}

/** The file as a whole is refused; every mistake in it is listed as `file:line:column: subject: cure`. */
export class RoutesFileError extends Error {
  override readonly name = 'RoutesFileError';
  readonly code = 'invalid-routes-file';
  readonly path: string;
  readonly mistakes: readonly Mistake[];
  constructor(path: string, mistakes: readonly Mistake[], options?: ErrorOptions) {
    super(mistakes.map(describeMistake).join('\n'), options);
    this.path = path;
    this.mistakes = mistakes;
  }
}

/** A thousand routes fit, and reading the worst that fits holds nothing up for long. */
const LARGEST_FILE_BYTES = 256 * 1024;
const MOST_ROUTES = 1000;
const MOST_MISTAKES = 50;

/**
 * The file's routes. `timeouts` hold where the file names none. Throws RoutesFileError with every mistake; the shape is
 * that of docs/routes.schema.json, and beyond it no host, no prefix of a host and no upstream may be given twice.
 */
export function parseRoutesFile(text: string, path: string, timeouts: UpstreamTimeouts): Route[] {
  if (Buffer.byteLength(text) > LARGEST_FILE_BYTES) {
    const cure = 'wants fewer routes, a wildcard in place of many hosts, say';
    throw new RoutesFileError(path, [{ place: { file: path }, subject: 'is larger than 256 KiB', cure }]);
  }
  const mistakes = createMistakes(text, path);
  const root = parseYaml(text, mistakes);
  const routes = root === undefined ? [] : readRoutes(root, timeouts, mistakes);
  const found = mistakes.sorted();
  if (found.length > 0) throw new RoutesFileError(path, found);
  return routes;
}

interface Mistakes {
  readonly lines: LineCounter;
  /** An alias is reported once, as an alias, whatever else is wrong with it. */
  at(node: Positioned, subject: string, cure: string): void;
  atOffset(offset: number, subject: string, cure: string): void;
  inFile(subject: string, cure: string): void;
  sorted(): Mistake[];
}

type Positioned = { readonly range?: readonly number[] | null | undefined } | undefined | null;

function createMistakes(text: string, file: string): Mistakes {
  const lines = new LineCounter();
  const found: Mistake[] = [];
  const atOffset = (offset: number, subject: string, cure: string) => {
    if (found.length >= MOST_MISTAKES) return;
    const { line, col } = lines.linePos(Math.min(offset, text.length));
    found.push({ place: { file, line: Math.max(line, 1), column: Math.max(col, 1) }, subject, cure });
  };
  return {
    lines,
    atOffset,
    at(node, subject, cure) {
      if (!isAlias(node)) atOffset(node?.range?.[0] ?? 0, subject, cure);
    },
    inFile: (subject, cure) => found.push({ place: { file }, subject, cure }),
    sorted: () => found.sort(inPlaceOrder),
  };
}

/** The root node of a file that is one sound YAML 1.2 document of plain data. */
function parseYaml(text: string, mistakes: Mistakes): Node | undefined {
  const documents = parseAllDocuments(text, {
    lineCounter: mistakes.lines,
    prettyErrors: false,
    stringKeys: true,
  });
  const [document, second] = Array.isArray(documents) ? documents : [];
  if (second !== undefined) {
    mistakes.atOffset(second.range?.[0] ?? 0, 'a second YAML document begins here', 'wants one');
    return undefined;
  }
  const faults = [...(document?.errors ?? []), ...(document?.warnings ?? [])];
  for (const { pos, code, message } of faults)
    mistakes.atOffset(pos[0], `is not sound YAML: ${wordsOf(message)}`, cureOf(code));
  if (faults.length > 0) return undefined;
  if (document?.contents == null || (isScalar(document.contents) && document.contents.value === null)) {
    mistakes.inFile('is empty', 'wants "routes:" and a list');
    return undefined;
  }
  refuseAliases(document.contents, mistakes);
  return document.contents;
}

/** Nesting by the thousand exhausts the parser's stack, and it says so in the engine's words. */
function wordsOf(message: string): string {
  return /call stack/.test(message) ? 'it is nested too deeply' : message;
}

function cureOf(code: ErrorCode): string {
  switch (code) {
    case 'TAB_AS_INDENT':
      return 'wants spaces';
    case 'DUPLICATE_KEY':
      return 'wants each key once';
    case 'BAD_ALIAS':
    case 'BAD_SCALAR_START':
    case 'TAG_RESOLVE_FAILED':
      return 'wants quotes around a text that begins with a special character, as in "*.example.com"';
    case 'BLOCK_AS_IMPLICIT_KEY':
      return 'wants one key on a line, and quotes around a text that holds ": "';
    case 'MISSING_CHAR':
    case 'UNEXPECTED_TOKEN':
      return 'wants every quote and bracket closed, and nothing behind it';
    case 'BAD_INDENT':
      return 'wants what belongs together to begin in the same column, and every bracket closed';
    default:
      return 'wants YAML 1.2 in the shape that docs/routes.md shows';
  }
}

/** An alias can stand for more than the file holds, and a schema cannot see it: each value is written where it is used. */
function refuseAliases(root: Node, mistakes: Mistakes): void {
  visit(root, {
    Alias(_, { source, range }) {
      const text = `*${source}`;
      // YAML reads an unquoted wildcard so.
      const cure = source.startsWith('.') ? `wants quotes: ${quote(text)}` : 'wants the value itself';
      mistakes.atOffset(range?.[0] ?? 0, `${text} is an alias`, cure);
    },
  });
}

function readRoutes(root: Node, timeouts: UpstreamTimeouts, mistakes: Mistakes): Route[] {
  const fields = readFields(root, ['routes'], 'the file', mistakes);
  if (fields === undefined) return [];
  const list = fields.require('routes', 'the file has no "routes"', 'wants "routes:" and a list');
  if (list === undefined) return [];
  const items = readList(list, '"routes"', MOST_ROUTES, mistakes);
  const seen = new Map<string, number>();
  return items.flatMap((item) => readRoute(item, timeouts, seen, mistakes) ?? []);
}

function readRoute(
  node: Node,
  inherited: UpstreamTimeouts,
  hosts: Map<string, number>,
  mistakes: Mistakes,
): Route | undefined {
  const fields = readFields(node, ['host', 'upstream', 'paths', 'timeouts', 'health'], 'a route', mistakes);
  if (fields === undefined) return undefined;
  const hostNode = fields.require(
    'host',
    'this route has no "host"',
    'wants one, as in host: app.example.com',
  );
  const host = hostNode && readHost(hostNode, hosts, mistakes);
  const manner = readManner(fields, { timeouts: inherited, health: undefined }, mistakes);
  const paths = readTargets(node, fields, manner, mistakes);
  return host === undefined || paths === undefined ? undefined : { host, paths };
}

/** Either one upstream for all paths or a list of paths. */
function readTargets(
  node: Node,
  fields: Fields,
  manner: Manner,
  mistakes: Mistakes,
): PathRoute[] | undefined {
  const upstreamNode = fields.find('upstream');
  const pathsNode = fields.find('paths');
  if (upstreamNode !== undefined && pathsNode !== undefined) {
    mistakes.at(pathsNode, 'this route has "upstream" and "paths"', 'wants one of them');
    return undefined;
  }
  if (pathsNode !== undefined) return readPaths(pathsNode, manner, mistakes);
  if (upstreamNode === undefined) {
    mistakes.at(node, 'this route has neither "upstream" nor "paths"', 'wants one of them');
    return undefined;
  }
  const upstream = readUpstream(upstreamNode, manner, mistakes);
  return upstream && [{ prefix: '/', upstream }];
}

function readPaths(node: Node, manner: Manner, mistakes: Mistakes): PathRoute[] {
  const prefixes = new Map<string, number>();
  const paths = readList(node, '"paths"', MOST_ROUTES, mistakes).flatMap(
    (item) => readPath(item, manner, prefixes, mistakes) ?? [],
  );
  if (paths.length > 1 && paths.some(({ upstream }) => upstream.protocol === 'tcp')) {
    mistakes.at(
      node,
      'tcp:// takes whole connections, which have no paths',
      'wants to be the only upstream of its host',
    );
  }
  return paths;
}

function readPath(
  node: Node,
  inherited: Manner,
  prefixes: Map<string, number>,
  mistakes: Mistakes,
): PathRoute | undefined {
  const fields = readFields(node, ['prefix', 'upstream', 'timeouts', 'health'], 'a path', mistakes);
  if (fields === undefined) return undefined;
  const prefixNode = fields.require('prefix', 'this path has no "prefix"', 'wants one, as in prefix: /v1/');
  const prefix = prefixNode && readPrefix(prefixNode, prefixes, mistakes);
  const manner = readManner(fields, inherited, mistakes);
  const upstreamNode = fields.require(
    'upstream',
    'this path has no "upstream"',
    'wants one, as in upstream: http://app:80',
  );
  const upstream = upstreamNode && readUpstream(upstreamNode, manner, mistakes);
  if (upstream?.protocol === 'tcp' && prefix !== undefined && prefix !== '/') {
    mistakes.at(upstreamNode, 'tcp:// takes whole connections, which have no paths', 'wants the prefix "/"');
  }
  return prefix === undefined || upstream === undefined ? undefined : { prefix, upstream };
}

function readHost(node: Node, seen: Map<string, number>, mistakes: Mistakes): Domain | undefined {
  const text = readString(node, '"host"', 'app.example.com', mistakes);
  if (text === undefined) return undefined;
  if (text !== text.trim()) {
    mistakes.at(node, `${quote(text)} has blanks around the name`, `wants ${quote(text.trim())}`);
    return undefined;
  }
  let host: Domain;
  try {
    host = parseDomain(text);
  } catch (error) {
    if (!(error instanceof DomainError)) throw error;
    mistakes.at(node, error.subject, error.cure);
    return undefined;
  }
  return isRepeated(host, node, seen, `host ${quote(host)}`, mistakes) ? undefined : host;
}

function readPrefix(node: Node, seen: Map<string, number>, mistakes: Mistakes): string | undefined {
  const prefix = readString(node, '"prefix"', '/v1/', mistakes);
  if (prefix === undefined) return undefined;
  // RFC 3986 §3.3: what a request's path can be made of.
  if (!/^\/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*$/.test(prefix)) {
    mistakes.at(
      node,
      `${quote(prefix)} is not a path`,
      'wants what requests\' paths start with, as in "/v1/"',
    );
    return undefined;
  }
  return isRepeated(prefix, node, seen, `prefix ${quote(prefix)}`, mistakes) ? undefined : prefix;
}

function isRepeated(
  key: string,
  node: Node,
  seen: Map<string, number>,
  subject: string,
  mistakes: Mistakes,
): boolean {
  const first = seen.get(key);
  if (first !== undefined) mistakes.at(node, `${subject} is already on line ${first}`, 'wants it once');
  else seen.set(key, mistakes.lines.linePos(node.range?.[0] ?? 0).line);
  return first !== undefined;
}

const MOST_ADDRESSES = 100;

function readUpstream(
  node: Node,
  { timeouts, health }: Manner,
  mistakes: Mistakes,
): UpstreamSettings | undefined {
  const items = isSeq(node) ? readList(node, '"upstream"', MOST_ADDRESSES, mistakes) : [node];
  const seen = new Map<string, number>();
  const targets = items.map((item) => readTarget(item, seen, mistakes));
  const [first] = targets;
  if (first === undefined || targets.includes(undefined)) return undefined;
  const other = targets.findIndex((target) => target?.protocol !== first.protocol);
  if (other !== -1) {
    mistakes.at(
      items[other],
      `speaks ${targets[other]?.protocol}, the first one ${first.protocol}`,
      'wants one protocol',
    );
    return undefined;
  }
  const { protocol } = first;
  if (health !== undefined && !CHECKED_BY[health.probe.type].includes(protocol)) {
    mistakes.at(
      node,
      `speaks ${protocol}, and its "health" asks by ${KEY_OF[health.probe.type]}`,
      `that wants ${CHECKED_BY[health.probe.type].join(', ')}`,
    );
    return undefined;
  }
  const addresses = targets.map((target) => target!.address);
  return { protocol, addresses, ...timeouts, ...(health !== undefined && { health }) };
}

/** The keys of the file, and what can be asked that way. */
const KEY_OF = { http: '"path"', tcp: '"tcp"', grpc: '"grpc"' } as const;
const CHECKED_BY: Readonly<Record<HealthProbe['type'], readonly UpstreamProtocol[]>> = {
  http: ['http', 'https', 'h2c', 'auto'],
  tcp: ['http', 'https', 'h2c', 'grpc', 'grpcs', 'tcp', 'auto'],
  grpc: ['grpc', 'grpcs', 'h2c'],
};

function readManner(fields: Fields, inherited: Manner, mistakes: Mistakes): Manner {
  const healthNode = fields.find('health');
  return {
    timeouts: readTimeouts(fields.find('timeouts'), inherited.timeouts, mistakes),
    health: healthNode === undefined ? inherited.health : readHealth(healthNode, mistakes),
  };
}

const HEALTH_KEYS = ['path', 'host', 'tcp', 'grpc', 'interval', 'timeout', 'unhealthy', 'healthy'];

/** How upstreams are checked. `false`: not at all, for a path whose route says otherwise. */
function readHealth(node: Node, mistakes: Mistakes): HealthSettings | undefined {
  if (isScalar(node) && node.value === false) return undefined;
  const fields = readFields(node, HEALTH_KEYS, '"health"', mistakes);
  const probe = fields && readProbe(node, fields, mistakes);
  if (fields === undefined || probe === undefined) return undefined;
  return {
    probe,
    intervalMs: readDuration(fields, 'interval', 10_000, mistakes),
    timeoutMs: readDuration(fields, 'timeout', 2_000, mistakes),
    unhealthyAfter: readChecks(fields, 'unhealthy', 3, mistakes),
    healthyAfter: readChecks(fields, 'healthy', 2, mistakes),
  };
}

function readProbe(node: Node, fields: Fields, mistakes: Mistakes): HealthProbe | undefined {
  const [path, tcp, grpc, host] = ['path', 'tcp', 'grpc', 'host'].map((key) => fields.find(key));
  if ([path, tcp, grpc].filter((one) => one !== undefined).length !== 1) {
    mistakes.at(
      node,
      '"health" does not say how to ask, or says it twice',
      'wants one of "path", "tcp: true" and "grpc"',
    );
    return undefined;
  }
  if (host !== undefined && path === undefined) {
    mistakes.at(host, '"host" goes with "path" alone', 'take it away');
    return undefined;
  }
  if (path !== undefined) return readHttpProbe(path, host, mistakes);
  if (grpc !== undefined) {
    const service = readString(grpc, '"grpc"', 'my.Service', mistakes);
    if (service !== undefined && /^[A-Za-z0-9_.]{0,255}$/.test(service)) return { type: 'grpc', service };
    if (service !== undefined)
      mistakes.at(
        grpc,
        `${quote(service)} is not a service`,
        'wants its full name, or "" for the whole server',
      );
    return undefined;
  }
  if (isScalar(tcp) && tcp.value === true) return { type: 'tcp' };
  mistakes.at(tcp, '"tcp" is not true', 'wants true, or another way to ask');
  return undefined;
}

function readHttpProbe(
  pathNode: Node,
  hostNode: Node | undefined,
  mistakes: Mistakes,
): HealthProbe | undefined {
  const path = readString(pathNode, '"path"', '/healthz', mistakes);
  const host = hostNode && readString(hostNode, '"host"', 'app.internal', mistakes);
  if (path === undefined || (hostNode !== undefined && host === undefined)) return undefined;
  if (!/^\/[!-"$-~]{0,1023}$/.test(path)) {
    mistakes.at(pathNode, `${quote(path)} is not a path`, 'wants what is to be asked, as in "/healthz"');
    return undefined;
  }
  if (host !== undefined && !/^[A-Za-z0-9_.\-:[\]]{1,255}$/.test(host)) {
    mistakes.at(hostNode, `${quote(host)} is not a host`, 'wants one as in app.internal or app:8080');
    return undefined;
  }
  return { type: 'http', path, ...(host !== undefined && { host }) };
}

function readDuration(fields: Fields, key: string, otherwise: number, mistakes: Mistakes): number {
  const value = fields.find(key);
  if (value === undefined) return otherwise;
  // YAML reads a time without a unit as a number. parseDuration then reports the missing unit.
  const number = isScalar(value) && typeof value.value === 'number' ? value.source : undefined;
  const text = number ?? readString(value, `"${key}"`, '10s', mistakes);
  return text === undefined
    ? otherwise
    : (readValue(value, () => parseDuration(text), mistakes) ?? otherwise);
}

const MOST_CHECKS = 100;

function readChecks(fields: Fields, key: string, otherwise: number, mistakes: Mistakes): number {
  const node = fields.find(key);
  if (node === undefined) return otherwise;
  const value = isScalar(node) ? node.value : undefined;
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= MOST_CHECKS)
    return value;
  mistakes.at(
    node,
    `"${key}" is not a number of checks`,
    `wants a whole number from 1 to ${MOST_CHECKS}, without quotes`,
  );
  return otherwise;
}

function readTarget(node: Node, seen: Map<string, number>, mistakes: Mistakes) {
  const text = readString(node, 'an upstream', 'http://app:80', mistakes);
  if (text === undefined) return undefined;
  const target = readValue(node, () => parseUpstreamUrl(text), mistakes);
  if (target === undefined) return undefined;
  const { host, port } = target.address;
  return isRepeated(`${host} ${port}`, node, seen, `upstream ${quote(text)}`, mistakes) ? undefined : target;
}

function readTimeouts(
  node: Node | undefined,
  inherited: UpstreamTimeouts,
  mistakes: Mistakes,
): UpstreamTimeouts {
  if (node === undefined) return inherited;
  const fields = readFields(node, ['connect', 'read', 'send', 'total'], '"timeouts"', mistakes);
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

function readValue<T>(node: Positioned, parse: () => T, mistakes: Mistakes): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof ValueError)) throw error;
    mistakes.at(node, error.subject, error.cure);
    return undefined;
  }
}

interface Fields {
  find(key: string): Node | undefined;
  /** Undefined after saying what is missing. */
  require(key: string, subject: string, cure: string): Node | undefined;
}

function readFields(
  node: Node,
  known: readonly string[],
  subject: string,
  mistakes: Mistakes,
): Fields | undefined {
  if (!isMap(node)) {
    mistakes.at(
      node,
      `${subject} is ${kindOf(node)}`,
      `wants a mapping with ${known.map((key) => `"${key}"`).join(', ')}`,
    );
    return undefined;
  }
  const byKey = new Map<string, Node>();
  for (const { key, value } of node.items as Pair<Node, Node | null>[]) {
    const name = isScalar(key) ? String(key.value) : '';
    if (known.includes(name)) byKey.set(name, value ?? emptyAt(key));
    else
      mistakes.at(
        key,
        `${quote(name)} is not a key of ${subject}`,
        `wants ${known.join(', ')}${meantIn(name, known)}`,
      );
  }
  const find = (key: string) => byKey.get(key);
  return {
    find,
    require(key, complaint, cure) {
      const value = find(key);
      if (value === undefined) mistakes.at(node, complaint, cure);
      return value;
    },
  };
}

/** `{host}` has a key and nothing after it, not even a place. */
function emptyAt(key: Node): Node {
  const empty = new Scalar(null);
  empty.range = key.range ?? null;
  return empty;
}

function readList(node: Node, subject: string, most: number, mistakes: Mistakes): Node[] {
  if (!isSeq(node) || node.items.length === 0) {
    mistakes.at(
      node,
      `${subject} is ${isSeq(node) ? 'an empty list' : kindOf(node)}`,
      'wants a list of at least one',
    );
    return [];
  }
  if (node.items.length > most) {
    mistakes.at(node, `${subject} has ${node.items.length} entries`, `at most ${most} are taken`);
    return [];
  }
  return node.items as Node[];
}

function readString(node: Node, subject: string, example: string, mistakes: Mistakes): string | undefined {
  if (isScalar(node) && typeof node.value === 'string') return node.value;
  mistakes.at(node, `${subject} is ${kindOf(node)}`, `wants text, as in ${quote(example)}`);
  return undefined;
}

function kindOf(node: unknown): string {
  if (isMap(node)) return 'a mapping';
  if (isSeq(node)) return 'a list';
  if (isAlias(node)) return 'an alias';
  const value = isScalar(node) ? node.value : null;
  if (value === null) return 'empty';
  return typeof value === 'string' ? 'text' : `a ${typeof value}`;
}
