// Blocks of server: which names they take, which of them takes all others, and which do nothing here.

import type { Site, SiteName } from '../../../proxy/rules/model.ts';
import { quote } from '../../config/values.ts';
import type { Directive } from './blocks.ts';
import { readClientAuth } from './client-auth.ts';
import type { Word } from './lexer.ts';
import { type Listen, readListens } from './listen.ts';
import { nonEmpty, type Outer, readPolicy, readServerContent, type Tools } from './locations.ts';
import { given, Level, originOf, type Reading } from './reading.ts';

interface Server {
  readonly directive: Directive;
  readonly level: Level;
  readonly listens: readonly Listen[];
  readonly names: readonly { readonly word: Word; readonly name: SiteName }[];
}

/** One listener has all of them: of servers on several ports, each name must be in one. */
export function readServers(level: Level, outer: Outer, tools: Tools): Site[] {
  const all = level.all('server').map((directive) => readServer(directive, tools.reading));
  judgeDefaults(all, tools.reading);
  const secure = all.filter(isSecure);
  const known = new Set(secure.flatMap((server) => server.names.map(({ word }) => word.text.toLowerCase())));
  const hasSecure = secure.length > 0;
  const kept = all.filter((server) => isSecure(server) || isKept(server, hasSecure, known, tools.reading));
  judgeNames(kept, tools.reading);
  const choice = kept.filter((server) => isSecure(server) || secure.length === 0);
  const byDefault = choice.find(({ listens }) => listens.some(({ isDefault }) => isDefault)) ?? choice[0];
  return kept.map((server) => readSite(server, server === byDefault, level, outer, tools));
}

function readServer(directive: Directive, reading: Reading): Server {
  const level = new Level(directive.block!);
  const words = level.all('server_name').flatMap(({ args }) => args);
  return {
    directive,
    level,
    listens: readListens(level, reading),
    names: words.flatMap((word) => readName(word, reading).map((name) => ({ word, name }))),
  };
}

/** nginx's `.x` is two names. */
function readName(word: Word, reading: Reading): SiteName[] {
  const { text } = word;
  if (text.startsWith('~')) {
    const pattern = reading.pattern(word, true, text.slice(1));
    return pattern === undefined ? [] : [{ kind: 'pattern', pattern }];
  }
  const name = text.toLowerCase();
  const rest = name.replace(/^\*?\.|\.\*$/, '');
  if (rest.includes('*') || rest.startsWith('.') || (rest === '' && name !== '')) {
    reading.refuse(
      word,
      `${quote(text)} is not a name`,
      'wants app.example.com, *.example.com, .example.com, app.* or ~pattern',
    );
    return [];
  }
  if (name.includes('$')) {
    reading.refuse(word, `${quote(text)} holds a variable`, 'write the name out');
    return [];
  }
  if (name.startsWith('*.')) return [{ kind: 'any-labels', name: rest }];
  if (name.endsWith('.*')) return [{ kind: 'any-ending', name: rest }];
  if (name.startsWith('.'))
    return [
      { kind: 'exact', name: rest },
      { kind: 'any-labels', name: rest },
    ];
  return [{ kind: 'exact', name: rest }];
}

function isSecure({ listens }: Server): boolean {
  return listens.some(({ isTls }) => isTls);
}

/** Port 80 beside the TLS server is served by HTTP_PORT; what it alone says is served over TLS. */
function isKept(
  { directive, level, names }: Server,
  hasSecure: boolean,
  known: ReadonlySet<string>,
  reading: Reading,
): boolean {
  if (onlyRedirects(level)) {
    reading.notes.accepted('plain HTTP', directive.name);
    return false;
  }
  const isElsewhere =
    names.length === 0 ? hasSecure : names.every(({ word }) => known.has(word.text.toLowerCase()));
  if (isElsewhere)
    reading.notes.warn(
      directive.name,
      'this server of plain HTTP has no effect: HTTP_PORT redirects to HTTPS, where another one has its names',
    );
  else if (hasSecure)
    reading.notes.warn(
      directive.name,
      'this server listens without ssl: it is served over HTTPS, and HTTP_PORT redirects to it',
    );
  return !isElsewhere;
}

const ANSWERS = new Set(['proxy_pass', 'grpc_pass', 'try_files', 'alias', 'auth_request']);

function onlyRedirects(level: Level): boolean {
  const inside = everythingIn(level.directives);
  if (inside.some(({ name }) => ANSWERS.has(name.text))) return false;
  const ends = inside.filter(({ name }) => name.text === 'return' || name.text === 'rewrite');
  return ends.some(({ args }) => args.some(({ text }) => text.startsWith('https://')));
}

function everythingIn(directives: readonly Directive[]): Directive[] {
  return directives.flatMap((directive) => {
    const isChallenge =
      directive.name.text === 'location' && /\.well-known/.test(directive.args.at(-1)?.text ?? '');
    return isChallenge ? [] : [directive, ...everythingIn(directive.block ?? [])];
  });
}

function judgeDefaults(servers: readonly Server[], reading: Reading): void {
  const taken = new Set<string>();
  for (const { listens } of servers)
    for (const { address, isDefault, word } of listens) {
      if (!isDefault) continue;
      if (taken.has(address))
        reading.refuse(word, `${address} has a second default_server`, 'take the word away from one of them');
      taken.add(address);
    }
}

/** Of each server, the first name that an earlier one has. */
function judgeNames(servers: readonly Server[], reading: Reading): void {
  const first = new Map<string, Server>();
  for (const server of servers) {
    let isTold = false;
    for (const { word, name } of server.names) {
      if (name.kind === 'pattern') continue;
      const key = `${name.kind} ${name.name}`;
      const other = first.get(key) ?? server;
      first.set(key, other);
      if (other === server || isTold) continue;
      isTold = true;
      judgeSecondName(word, server, other, reading);
    }
  }
}

function judgeSecondName(word: Word, server: Server, other: Server, reading: Reading): void {
  const addresses = new Set(other.listens.map(({ address }) => address));
  if (server.listens.some(({ address }) => addresses.has(address)))
    reading.notes.warn(word, `${quote(word.text)} is the name of an earlier server too, which takes it`);
  else
    reading.refuse(
      word,
      `${quote(word.text)} has a server on another port, and one listener serves both`,
      'give each server names of its own',
    );
}

function readSite(
  { directive, level, names }: Server,
  isDefault: boolean,
  http: Level,
  outer: Outer,
  tools: Tools,
): Site {
  const { policy, inner } = readPolicy(level, outer, tools);
  const { rewrite, tryFiles, locations } = readServerContent(level, inner, tools);
  tools.reading.judgeNamedLocations(
    new Set(locations.flatMap(({ match }) => (match.kind === 'named' ? [match.name] : []))),
  );
  const label = level.value('server_name')?.text ?? '';
  return given<Site>({
    origin: originOf(directive),
    names: names.map(({ name }) => name),
    isDefault: isDefault ? true : undefined,
    label: label.startsWith('.') ? label.slice(1) : label,
    policy: nonEmpty(policy),
    rewrite: rewrite.length === 0 ? undefined : rewrite,
    locations,
    tryFiles,
    mergeSlashes: level.isOn('merge_slashes'),
    underscoresInHeaders: level.isOn('underscores_in_headers'),
    ignoreInvalidHeaders: level.isOn('ignore_invalid_headers'),
    clientAuth: readClientAuth(level, http, tools.reading),
  });
}
