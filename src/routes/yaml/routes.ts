// Routes and their paths as they stand in the file: what each is for, what answers, and what is said beyond it.

import type { Node } from 'yaml';
import type { Policy, RequestMatch } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import { contentKinds, readContent } from './content.ts';
import type { ContentDraft } from './content-draft.ts';
import { type Fields, readFields, readList } from './fields.ts';
import { joined } from './headers.ts';
import { readHealth } from './health.ts';
import { keys } from './keys.ts';
import { type HostName, type PathMatch, readHosts, readPathMatch, readWhen } from './match.ts';
import { isRepeated, type Mistakes, type Seen } from './mistakes.ts';
import { type MaintenanceWord, readMaintenance } from './pages.ts';
import { readPolicy } from './policy.ts';
import type { Reading } from './reading.ts';
import { type ClientAuthWord, readClientAuth } from './tls.ts';
import { type Manner, readTimeouts } from './upstream.ts';

/** What holds at a place of the file, whoever said it. */
export interface Level {
  readonly manner: Manner;
  readonly policy: Policy;
  readonly maintenance: MaintenanceWord | undefined;
}

export interface RouteDraft {
  readonly hosts: readonly HostName[];
  readonly origin: string;
  /** What the route itself says. */
  readonly policy: Policy;
  readonly clientAuth: ClientAuthWord | undefined;
  readonly paths: readonly PathDraft[];
}

export interface PathDraft {
  readonly origin: string;
  readonly match: PathMatch;
  readonly when: RequestMatch | undefined;
  /** What the path itself says. */
  readonly policy: Policy;
  readonly manner: Manner;
  readonly maintenance: MaintenanceWord | undefined;
  readonly content: ContentDraft;
}

const MOST_ROUTES = 1000;

export function readDefaults(node: Node | undefined, outer: Level, reading: Reading): Level {
  const fields = node && readFields(node, keys.defaults, '"defaults"', reading.mistakes);
  return fields === undefined ? outer : readLevel(fields, outer, reading).level;
}

export function readRoutes(node: Node, outer: Level, reading: Reading): RouteDraft[] {
  const items = readList(node, '"routes"', MOST_ROUTES, reading.mistakes);
  return items.flatMap((item) => readRoute(item, outer, reading) ?? []);
}

function readRoute(node: Node, outer: Level, reading: Reading): RouteDraft | undefined {
  const { mistakes } = reading;
  const fields = readFields(node, keys.route, 'a route', mistakes);
  if (fields === undefined) return undefined;
  const hosts = readHosts(fields, reading);
  const { level: around, own: said } = readLevel(fields, outer, reading);
  const clientNode = fields.find('client_auth');
  const clientAuth = clientNode && readClientAuth(clientNode, reading);
  const { level, own } =
    clientAuth === undefined ? { level: around, own: said } : withEdits(around, said, clientAuth);
  const paths = readTargets(node, fields, level, reading);
  if (hosts === undefined || paths === undefined) return undefined;
  return { hosts, origin: mistakes.originOf(node), policy: own, clientAuth, paths };
}

function withEdits(level: Level, own: Policy, { edits }: ClientAuthWord): { level: Level; own: Policy } {
  if (edits.length === 0) return { level, own };
  const requestHeaders = joined(level.policy.requestHeaders ?? [], edits);
  return {
    level: { ...level, policy: { ...level.policy, requestHeaders } },
    own: { ...own, requestHeaders },
  };
}

/** What a level says, and what holds there in consequence. */
function readLevel(fields: Fields, outer: Level, reading: Reading): { level: Level; own: Policy } {
  const own = readPolicy(fields, outer.policy, reading);
  const maintenance = fields.find('maintenance');
  return {
    own,
    level: {
      manner: readManner(fields, outer.manner, reading.mistakes),
      policy: { ...outer.policy, ...own },
      maintenance: maintenance === undefined ? outer.maintenance : readMaintenance(maintenance, reading),
    },
  };
}

function readManner(fields: Fields, inherited: Manner, mistakes: Mistakes): Manner {
  const healthNode = fields.find('health');
  return {
    timeouts: readTimeouts(fields.find('timeouts'), inherited.timeouts, mistakes),
    health: healthNode === undefined ? inherited.health : readHealth(healthNode, mistakes),
  };
}

const EVERY_PATH: PathMatch = { match: { kind: 'prefix', path: '/' }, prefix: '/', key: 'prefix "/"' };

/** Either one content for all paths or a list of paths. */
function readTargets(node: Node, fields: Fields, level: Level, reading: Reading): PathDraft[] | undefined {
  const { mistakes } = reading;
  const [kind] = contentKinds(fields, reading);
  const pathsNode = fields.find('paths');
  if (kind !== undefined && pathsNode !== undefined) {
    mistakes.at(pathsNode, `this route has "${kind}" and "paths"`, 'wants one of them');
    return undefined;
  }
  if (pathsNode !== undefined) {
    for (const key of ['rewrite', 'strip_prefix', 'canary']) {
      const stray = fields.find(key);
      if (stray !== undefined)
        mistakes.at(stray, `"${key}" stands beside "paths"`, 'wants to stand at a path');
    }
    return readPaths(pathsNode, level, reading);
  }
  const origin = mistakes.originOf(node);
  const whole = { origin, match: EVERY_PATH, when: undefined, policy: {} };
  if (kind === undefined) {
    if (isClosed(fields, level)) return [{ ...whole, ...level, policy: {}, content: gone(node) }];
    mistakes.at(node, 'this route has neither "upstream" nor "paths"', 'wants one of them');
    return undefined;
  }
  const content = readContent(kind, fields, EVERY_PATH.match, level, reading);
  return content && [{ ...whole, ...level, policy: {}, content }];
}

/** Whether it says of itself that nothing is to be had: then nothing needs to be behind it. */
function isClosed(fields: Fields, { maintenance }: Level): boolean {
  return maintenance !== undefined && fields.find('maintenance') !== undefined;
}

function gone(node: Node): ContentDraft {
  return {
    content: () => ({ kind: 'respond', status: 404, contentType: 'text/plain' }),
    destination: undefined,
    isPlain: false,
    rewrite: [],
    policy: {},
    node,
  };
}

function readPaths(node: Node, level: Level, reading: Reading): PathDraft[] {
  const seen: Seen = new Map();
  const paths = readList(node, '"paths"', MOST_ROUTES, reading.mistakes).flatMap(
    (item) => readPath(item, level, seen, reading) ?? [],
  );
  if (paths.length > 1 && paths.some(({ content }) => speaksTcp(content)))
    reading.mistakes.at(
      node,
      'tcp:// takes whole connections, which have no paths',
      'wants to be the only upstream of its host',
    );
  return paths;
}

function readPath(node: Node, outer: Level, seen: Seen, reading: Reading): PathDraft | undefined {
  const { mistakes } = reading;
  const fields = readFields(node, keys.path, 'a path', mistakes);
  if (fields === undefined) return undefined;
  const match = readPathMatch(fields, reading);
  const whenNode = fields.find('when');
  const when = whenNode && readWhen(whenNode, reading);
  const repeated = match !== undefined && isKnown(match, when, fields, seen, reading);
  const { level, own } = readLevel(fields, outer, reading);
  const content = readPathContent(node, fields, match, level, reading);
  if (content === undefined || match === undefined || repeated) return undefined;
  if (speaksTcp(content) && match.prefix !== '/')
    mistakes.at(content.node, 'tcp:// takes whole connections, which have no paths', 'wants the prefix "/"');
  return { origin: mistakes.originOf(node), match, when, ...level, policy: own, content };
}

function isKnown(
  { key }: PathMatch,
  when: RequestMatch | undefined,
  fields: Fields,
  seen: Seen,
  { mistakes }: Reading,
): boolean {
  const kind = key.split(' ', 1)[0]!;
  const whole = when === undefined ? key : `${key} ${JSON.stringify(when)}`;
  const subject = when === undefined ? key : `${key} with the same "when"`;
  return isRepeated(whole, fields.find(kind), seen, subject, mistakes);
}

function readPathContent(
  node: Node,
  fields: Fields,
  match: PathMatch | undefined,
  level: Level,
  reading: Reading,
): ContentDraft | undefined {
  const [kind] = contentKinds(fields, reading);
  if (kind !== undefined) return readContent(kind, fields, match?.match ?? EVERY_PATH.match, level, reading);
  if (isClosed(fields, level)) return gone(node);
  fields.require('upstream', 'this path has no "upstream"', 'wants one, as in upstream: http://app:80');
  return undefined;
}

export function speaksTcp({ destination }: ContentDraft): boolean {
  return destination?.kind === 'plain' && destination.settings.protocol === 'tcp';
}

/** Of a route that needs rules: what cannot be behind them is said. */
export function refuseTcp({ hosts, paths }: RouteDraft, mistakes: Mistakes): void {
  for (const { content } of paths)
    if (speaksTcp(content))
      mistakes.at(
        content.node,
        `tcp:// takes whole connections, which have no rules, and ${quote(hosts[0]!.label)} has some`,
        'wants a host of its own, without rules',
      );
}
