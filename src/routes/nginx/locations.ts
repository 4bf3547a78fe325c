// Locations, and what a level of any kind says: its policy, its program and what answers there.

import type { Content, Location, LocationMatch, Policy } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import { readAccess, readClientAddress } from './access.ts';
import type { Directive } from './blocks.ts';
import { type Family, type Forwarded, readForwarding, wholePolicy } from './forwarding.ts';
import type { Word } from './lexer.ts';
import type { Zones } from './limits.ts';
import { given, Level, originOf, type Reading } from './reading.ts';
import { type Gzip, readReplies } from './replies.ts';
import { readProgram } from './rewriting.ts';
import { readFilePolicy, readTryFiles } from './static-files.ts';
import type { Upstreams } from './upstreams.ts';

/** What the files define for all levels. */
export interface Tools {
  readonly reading: Reading;
  readonly upstreams: Upstreams;
  readonly zones: Zones;
  readonly formats: ReadonlySet<string>;
}

/** What a level inherits of families whose words belong together. */
export interface Outer {
  readonly proxy: Forwarded;
  readonly grpc: Forwarded;
  /** That of the model's outer levels: a policy says one for both. */
  readonly family: Family;
  readonly gzip: Gzip;
}

export function readPolicy(
  level: Level,
  outer: Outer,
  { reading, zones, formats }: Tools,
): { readonly policy: Policy; readonly inner: Outer } {
  const proxy = readForwarding(level, 'proxy', outer.proxy, reading);
  const grpc = readForwarding(level, 'grpc', outer.grpc, reading);
  const family = familyOf(level) ?? outer.family;
  const chosen = family === 'proxy' ? proxy : grpc;
  const { own, gzip } = readReplies(level, outer.gzip, formats, reading);
  const policy = {
    ...(family === outer.family ? chosen.own : wholePolicy(family, chosen.merged)),
    ...own,
    ...readAccess(level, zones, reading),
    ...readClientAddress(level, reading),
    ...readFilePolicy(level, reading),
  };
  return { policy, inner: { proxy: proxy.merged, grpc: grpc.merged, family, gzip } };
}

function familyOf(level: Level): Family | undefined {
  if (level.one('grpc_pass') !== undefined) return 'grpc';
  return level.one('proxy_pass') === undefined ? undefined : 'proxy';
}

/** In these, a proxy_pass has nothing that its path could take the place of. */
type Unplaced = 'a regular expression' | 'a named location' | 'an if' | 'limit_except';

function readContent(level: Level, unplaced: Unplaced | undefined, tools: Tools): Content | undefined {
  const proxy = level.one('proxy_pass');
  const grpc = level.one('grpc_pass');
  if (proxy !== undefined && grpc !== undefined)
    return tools.reading.refuse(grpc.name, 'grpc_pass stands beside proxy_pass', 'wants one of them');
  if (proxy !== undefined) return readProxyPass(proxy, unplaced, tools);
  return grpc && readGrpcPass(grpc, tools);
}

function readProxyPass(
  directive: Directive,
  unplaced: Unplaced | undefined,
  tools: Tools,
): Content | undefined {
  const { reading, upstreams } = tools;
  const [word] = directive.args as [Word];
  const origin = originOf(directive);
  const [, scheme, rest] = /^(https?):\/\/(.*)$/is.exec(word.text) ?? [];
  if (scheme === undefined && !word.text.startsWith('$'))
    return reading.refuse(
      word,
      `${quote(word.text)} is no URL to pass to`,
      'wants http:// or https:// in front',
    );
  if (word.text.includes('$')) return { kind: 'proxy-to', url: reading.template(word), origin };
  const target = readTarget(word, rest!, tools);
  if (target === undefined) return undefined;
  const { authority, path } = target;
  if (path !== '' && unplaced !== undefined)
    return reading.refuse(
      word,
      `proxy_pass has a path (${quote(path)}) in ${unplaced}`,
      'take the path away, or write the whole URL with variables: …$request_uri',
    );
  const protocol = scheme!.toLowerCase() as 'http' | 'https';
  const upstream = upstreams.of(authority, word);
  if (upstream === undefined) return undefined;
  const host = withoutPort(authority, protocol === 'https' ? '443' : '80');
  const url = word.text === `${protocol}://${host}${path}` ? {} : { url: word.text };
  return { kind: 'proxy', upstream, protocol, host, ...url, ...(path !== '' && { path }), origin };
}

function readGrpcPass(directive: Directive, tools: Tools): Content | undefined {
  const { reading, upstreams } = tools;
  const [word] = directive.args as [Word];
  const origin = originOf(directive);
  const [, scheme, rest] = /^(?:(grpcs?):\/\/)?(.*)$/is.exec(word.text)!;
  const protocol = (scheme?.toLowerCase() ?? 'grpc') as 'grpc' | 'grpcs';
  if (word.text.startsWith('$'))
    return reading.refuse(
      word,
      'whether this is grpc:// or grpcs:// cannot be told',
      `write grpc://${word.text}`,
    );
  if (word.text.includes('$'))
    return { kind: 'proxy-to', url: reading.template(word, `${protocol}://${rest}`), origin };
  const target = readTarget(word, rest!, tools);
  if (target === undefined) return undefined;
  if (target.path !== '')
    return reading.refuse(
      word,
      'grpc_pass has a path',
      'write host:port alone: gRPC keeps the path it came with',
    );
  const upstream = upstreams.of(target.authority, word);
  if (upstream !== undefined && !upstreams.isGroup(target.authority) && !/:\d+$/.test(target.authority))
    return reading.refuse(
      word,
      `grpc_pass ${quote(word.text)} has no port`,
      'write it: gRPC has no usual one',
    );
  const host = withoutPort(target.authority, protocol === 'grpcs' ? '443' : '80');
  return upstream === undefined ? undefined : { kind: 'proxy', upstream, protocol, host, origin };
}

function readTarget(
  word: Word,
  rest: string,
  { reading }: Tools,
): { authority: string; path: string } | undefined {
  if (rest.startsWith('unix:'))
    return reading.refuse(
      word,
      'the upstream is a UNIX socket',
      'let the app listen on a port, and write host:port',
    );
  const authority = /^[^/?]*/.exec(rest)![0];
  if (authority === '')
    return reading.refuse(word, `${quote(word.text)} has no host`, 'wants http://host:port');
  return { authority, path: rest.slice(authority.length) };
}

function withoutPort(authority: string, usual: string): string {
  return authority.endsWith(`:${usual}`) ? authority.slice(0, -usual.length - 1) : authority;
}

/** Deeper nesting than this is refused by the engine. */
const DEEPEST = 30;

export interface Parent {
  readonly match: LocationMatch;
  readonly isInternal: boolean;
  readonly depth: number;
}

export function readLocations(
  level: Level,
  outer: Outer,
  parent: Parent | undefined,
  tools: Tools,
): Location[] {
  const seen = new Set<string>();
  return level.all('location').flatMap((directive): Location[] => {
    const match = readMatch(directive, tools.reading);
    if (match === undefined) return [];
    const { args, name } = directive;
    if (!fitsParent(match, parent, args.at(-1)!, tools.reading)) return [];
    const key = keyOf(match);
    if (key !== undefined && seen.has(key)) {
      tools.reading.refuse(name, `there are two ${key} here`, 'put what they say into one');
      return [];
    }
    if (key !== undefined) seen.add(key);
    const own = ownService(match, directive);
    if (own === undefined) return [readLocation(directive, match, outer, parent, tools)];
    tools.reading.notes.accepted(own, name);
    return [];
  });
}

/** Undefined: there may be several. */
function keyOf(match: LocationMatch): string | undefined {
  if (match.kind === 'pattern') return undefined;
  if (match.kind === 'named') return `location ${match.name}`;
  return match.kind === 'exact' ? `location = ${match.path}` : `location ${match.path}`;
}

function readLocation(
  directive: Directive,
  match: LocationMatch,
  outer: Outer,
  parent: Parent | undefined,
  tools: Tools,
): Location {
  const { reading } = tools;
  const level = new Level(directive.block!);
  const { policy, inner } = readPolicy(level, outer, tools);
  const alias = level.one('alias');
  if (alias !== undefined && match.kind === 'named')
    reading.refuse(alias.name, 'alias has no path to stand for in a named location', 'write root');
  const content = readContent(level, unplacedIn(match), tools);
  const rewrite = readProgram(level.directives, (block) => readBranch(block, inner, 'an if', tools), reading);
  // What stands inside of an internal location is as internal.
  const isInternal = level.one('internal') !== undefined || parent?.isInternal === true;
  const self: Parent = { match, isInternal, depth: (parent?.depth ?? 0) + 1 };
  const locations = readLocations(level, inner, self, tools);
  const addsSlash = 'path' in match && match.path.endsWith('/') && content !== undefined;
  return given<Location>({
    origin: originOf(directive),
    match,
    internal: isInternal ? true : undefined,
    addsSlash: addsSlash ? true : undefined,
    policy: nonEmpty(policy),
    rewrite: rewrite.length === 0 ? undefined : rewrite,
    content,
    tryFiles: readTryFiles(level, reading),
    limitExcept: readLimitExcept(level, inner, tools),
    locations: locations.length === 0 ? undefined : locations,
  });
}

export function nonEmpty(policy: Policy): Policy | undefined {
  return Object.keys(policy).length === 0 ? undefined : policy;
}

function readBranch(
  block: readonly Directive[],
  outer: Outer,
  where: 'an if' | 'limit_except',
  tools: Tools,
): { policy?: Policy; content?: Content } {
  const level = new Level(block);
  const { policy } = readPolicy(level, outer, tools);
  return given<{ policy?: Policy; content?: Content }>({
    policy: nonEmpty(policy),
    content: readContent(level, where, tools),
  });
}

const METHODS = new Set(
  'GET HEAD POST PUT DELETE MKCOL COPY MOVE OPTIONS PROPFIND PROPPATCH LOCK UNLOCK PATCH'.split(' '),
);

function readLimitExcept(level: Level, outer: Outer, tools: Tools): Location['limitExcept'] {
  const directive = level.one('limit_except');
  if (directive === undefined) return undefined;
  for (const word of directive.args)
    if (!METHODS.has(word.text.toUpperCase()))
      tools.reading.refuse(
        word,
        `${quote(word.text)} is not a method that limit_except knows`,
        `wants some of ${[...METHODS].join(', ')}`,
      );
  const methods = directive.args.map(({ text }) => text.toUpperCase());
  return { methods, policy: {}, ...readBranch(directive.block!, outer, 'limit_except', tools) };
}

function unplacedIn(match: LocationMatch): Unplaced | undefined {
  if (match.kind === 'pattern') return 'a regular expression';
  return match.kind === 'named' ? 'a named location' : undefined;
}

/** The modifier may be a word of its own, or grown together with the path. */
function readMatch({ args }: Directive, reading: Reading): LocationMatch | undefined {
  const [first, second] = args as [Word, Word?];
  const word = second ?? first;
  const [, glued = '', rest = ''] =
    second === undefined ? (/^(=|\^~|~\*|~|)(.*)$/s.exec(first.text) ?? []) : ['', first.text, second.text];
  switch (glued) {
    case '=':
      return { kind: 'exact', path: rest };
    case '^~':
      return { kind: 'prefix', path: rest, final: true };
    case '~':
    case '~*': {
      const pattern = reading.pattern(word, glued === '~*', rest);
      return pattern && { kind: 'pattern', pattern };
    }
    case '':
      if (second === undefined)
        return rest.startsWith('@') ? { kind: 'named', name: rest } : { kind: 'prefix', path: rest };
  }
  return reading.refuse(first, `${quote(first.text)} is no modifier of location`, 'wants =, ^~, ~ or ~*');
}

function fitsParent(match: LocationMatch, parent: Parent | undefined, at: Word, reading: Reading): boolean {
  if (parent === undefined) return true;
  const refuse = (subject: string, cure: string) => {
    reading.refuse(at, subject, cure);
    return false;
  };
  const { match: outer, depth } = parent;
  if (depth >= DEEPEST) return refuse('locations are nested too deeply', `wants at most ${DEEPEST}`);
  if (outer.kind === 'exact')
    return refuse('a location stands inside of an exact one', 'write it beside that');
  if (outer.kind === 'named')
    return refuse('a location stands inside of a named one', 'write it beside that');
  if (match.kind === 'named')
    return refuse('a named location stands inside of another', 'write it into the server');
  if (match.kind === 'pattern') return true;
  const begins = outer.kind === 'pattern' ? outer.pattern.source : outer.path;
  if (match.path.startsWith(begins)) return true;
  return refuse(
    `location ${quote(match.path)} can never be reached inside of ${quote(begins)}`,
    'write it beside that',
  );
}

/** What 1.x files serve from disk, and the ingress serves itself. */
function ownService(match: LocationMatch, { block }: Directive): 'evidence' | 'challenges' | undefined {
  const fromDisk = block!.some(({ name }) => name.text === 'alias' || name.text === 'root');
  const path =
    match.kind === 'pattern' ? match.pattern.source.replace(/^\^/, '') : 'path' in match ? match.path : '';
  if (fromDisk && /^\/evidences(\/|$)/.test(path)) return 'evidence';
  const plain = path.replaceAll('\\', '');
  return fromDisk && plain.startsWith('/.well-known/acme-challenge') ? 'challenges' : undefined;
}

export function readServerContent(level: Level, inner: Outer, tools: Tools) {
  return {
    rewrite: readProgram(level.directives, undefined, tools.reading),
    tryFiles: readTryFiles(level, tools.reading),
    locations: readLocations(level, inner, undefined, tools),
  };
}
