// The files that 1.x images read from /etc/nginx/conf.d: not obeyed here, but searched for what they would have done.

import { type Domain, DomainError, parseDomain } from '../lib/domain.ts';
import type { Mistake } from './mistake.ts';
import { parseUpstreamUrl } from './upstream-url.ts';
import { quote, ValueError } from './values.ts';

export interface NginxFile {
  readonly path: string;
  readonly text: string;
}

/** `name` would have gone to `upstream`, as TARGET_ENDPOINT and ROUTING_MAP write it. */
export interface NginxRoute {
  readonly file: string;
  readonly line: number;
  /** Undefined: every name that no other server has. */
  readonly name: Domain | undefined;
  /** Undefined: the file says more than one upstream for the whole name, or nothing that can be told. */
  readonly upstream: string | undefined;
}

export interface NginxReading {
  readonly routes: readonly NginxRoute[];
  /** By file: what ROUTING_MAP cannot say of the names in it, as `directive (line)`. */
  readonly beyond: ReadonlyMap<string, readonly string[]>;
  /** What of a file without names would have held for all: `gzip (line 1)`. */
  readonly general: ReadonlyMap<string, readonly string[]>;
  /** `VARIABLE=value`, for what a setting says. */
  readonly settings: readonly string[];
  /** What cannot be read at all. */
  readonly mistakes: readonly Mistake[];
}

interface Directive {
  readonly name: string;
  readonly args: readonly string[];
  readonly line: number;
  readonly block: readonly Directive[] | undefined;
}

/** In nearly every file, and done here unasked: TLS, connections, and what an upstream is told of the client. */
const SAME_HERE = new Set([
  'listen',
  'server_name',
  'http2',
  'resolver',
  'resolver_timeout',
  'keepalive_timeout',
  'keepalive_requests',
  'access_log',
  'error_log',
  'log_format',
  'server_tokens',
  'proxy_http_version',
  'proxy_buffering',
  'proxy_request_buffering',
  'proxy_cache',
  'proxy_cache_bypass',
  'proxy_redirect',
  'proxy_socket_keepalive',
  'tcp_nodelay',
  'tcp_nopush',
  'sendfile',
  'chunked_transfer_encoding',
]);
/** What a setting of ours says for all domains. */
const SETTINGS = new Map([
  ['client_max_body_size', 'CLIENT_MAX_BODY_SIZE'],
  ['proxy_connect_timeout', 'PROXY_CONNECT_TIMEOUT'],
  ['proxy_read_timeout', 'PROXY_READ_TIMEOUT'],
  ['proxy_send_timeout', 'PROXY_SEND_TIMEOUT'],
  ['grpc_connect_timeout', 'PROXY_CONNECT_TIMEOUT'],
  ['grpc_read_timeout', 'PROXY_READ_TIMEOUT'],
  ['grpc_send_timeout', 'PROXY_SEND_TIMEOUT'],
]);
/** Fields that the app gets from us too, with the same meaning. */
const SAME_FIELDS = /^(host|upgrade|connection|x-real-ip|x-forwarded-(for|proto|host|port)|forwarded)$/i;

const LARGEST_FILE_BYTES = 256 * 1024;

export function readNginxFiles(files: readonly NginxFile[]): NginxReading {
  const found: Found = {
    routes: [],
    beyond: new Map(),
    general: new Map(),
    mistakes: [],
    settings: new Set(),
  };
  for (const file of files) readFile(file, found);
  return { ...found, settings: [...found.settings] };
}

interface Found {
  readonly routes: NginxRoute[];
  readonly beyond: Map<string, string[]>;
  readonly general: Map<string, string[]>;
  readonly mistakes: Mistake[];
  readonly settings: Set<string>;
}

function readFile(file: NginxFile, found: Found): void {
  const { beyond, general, mistakes, settings } = found;
  const directives = parse(file, mistakes);
  const upstreams = directives.filter(({ name, block }) => name === 'upstream' && block !== undefined);
  const servers = directives
    .filter(({ name }) => name === 'server')
    .map((one) => readServer(one, upstreams, settings));
  const named = servers.filter(({ names }) => names.length > 0);
  for (const server of named) {
    addRoutes(server, file.path, found);
    const more = server.more.map(asSaid);
    if (more.length > 0) beyond.set(file.path, [...(beyond.get(file.path) ?? []), ...more]);
  }
  const loose = directives.filter(
    (one) => !['server', 'upstream'].includes(one.name) && !isSame(one.name) && !isSetting(one, settings),
  );
  if (named.length === 0 && loose.length > 0) general.set(file.path, loose.map(asSaid));
}

function addRoutes({ names, target, more }: Server, file: string, { routes, mistakes }: Found): void {
  for (const { text, line } of names) {
    const name = readName(text, { file, line }, mistakes);
    if (name !== 'unreadable') {
      routes.push({ file, line, name, upstream: more.length > 0 ? undefined : target });
    }
  }
}

function asSaid({ name, args, line }: Directive): string {
  const what = name === 'location' || name === 'proxy_set_header' ? `${name} ${args[0] ?? ''}` : name;
  return `${what.slice(0, 60)} (line ${line})`;
}

function isSame(name: string): boolean {
  return SAME_HERE.has(name) || /^(ssl|http2|keepalive|proxy_buffer|proxy_busy)_/.test(name);
}

function isSameField({ name, args: [field = ''] }: Directive): boolean {
  return name.endsWith('_set_header') && SAME_FIELDS.test(field);
}

function isSetting({ name, args: [value = ''] }: Directive, settings: Set<string>): boolean {
  const variable = SETTINGS.get(name);
  if (variable !== undefined) settings.add(`${variable}=${value}`);
  return variable !== undefined;
}

interface Server {
  readonly names: readonly { readonly text: string; readonly line: number }[];
  readonly target: string | undefined;
  readonly more: readonly Directive[];
}

/** The names that it would have served, where they would have gone, and what else it would have done. */
function readServer(
  { block = [], line }: Directive,
  upstreams: readonly Directive[],
  settings: Set<string>,
): Server {
  const nothing = { names: [], target: undefined, more: [] };
  if (onlyRedirectsToHttps(block)) return nothing;
  const given = block.filter(({ name }) => name === 'server_name');
  const names = given.flatMap((one) =>
    // nginx's ".example.com" is the name and all below it.
    one.args
      .flatMap((text) => (text.startsWith('.') ? [text.slice(1), `*${text}`] : [text]))
      .map((text) => ({ text, line: one.line })),
  );
  const real = names.filter(({ text }) => text !== '_' && text !== '' && text !== 'localhost');
  const more: Directive[] = [];
  const targets = new Set<string>();
  const variables = new Map<string, string>();
  read(block);
  const proxies = targets.size > 0 || more.some(({ name }) => name.endsWith('_pass'));
  // As it comes with nginx: for localhost or for nobody, and files of its own. Nobody mounts it to serve a domain.
  if (real.length === 0 && !proxies) return nothing;
  const target = targets.size === 1 ? [...targets][0] : undefined;
  return { names: real.length > 0 ? real : [{ text: '', line }], target, more };

  function read(directives: readonly Directive[]): void {
    for (const one of directives) {
      const [first = '', second = ''] = one.args;
      if (one.name === 'set') variables.set(first, second);
      else if (one.name === 'location') readLocation(one);
      else if (one.name === 'proxy_pass' || one.name === 'grpc_pass') {
        const found = targetOf(one, variables, upstreams);
        if (found === undefined) more.push(one);
        else targets.add(found);
      } else if (!isSame(one.name) && !isSameField(one) && !isSetting(one, settings)) more.push(one);
    }
  }

  function readLocation(one: Directive): void {
    const path = one.args.at(-1) ?? '';
    const everything = path === '/' && (one.args.length === 1 || one.args[0] === '^~');
    // Challenges and evidence are answered here without being told to.
    if (/^\^?~?\/(evidences|\.well-known\/acme-challenge)(\/|$)/.test(path)) return;
    if (everything) read(one.block ?? []);
    else more.push(one);
  }
}

/** Port 80 beside the TLS server: HTTP_PORT does the same, and through the gateway nobody comes that way. */
function onlyRedirectsToHttps(block: readonly Directive[]): boolean {
  const tls = block.some(
    ({ name, args }) => name === 'listen' && (args.includes('ssl') || /443$/.test(args[0] ?? '')),
  );
  const passes = JSON.stringify(block).includes('_pass');
  return !tls && !passes && JSON.stringify(block).includes('https://$');
}

/** Undefined where it leads to more than one server, to a socket, under another path, or where no text of ours leads. */
function targetOf(
  { name, args }: Directive,
  variables: ReadonlyMap<string, string>,
  upstreams: readonly Directive[],
): string | undefined {
  const written = (args[0] ?? '').replace(/\$request_uri$/, '');
  const text = variables.get(written) ?? written;
  const match = /^(?:(https?|grpcs?):\/\/)?([^/$]+)(\/?)$/.exec(text);
  if (match === null) return undefined;
  const scheme = match[1] ?? (name === 'grpc_pass' ? 'grpc' : 'http');
  const pool = upstreams.find(({ args: [called] }) => called === match[2]);
  const address = pool === undefined ? match[2]! : soleServer(pool);
  if (address === undefined) return undefined;
  const target = `${scheme}://${address}`;
  try {
    parseUpstreamUrl(target);
    return target;
  } catch (error) {
    if (!(error instanceof ValueError)) throw error;
    return undefined;
  }
}

function soleServer({ block = [] }: Directive): string | undefined {
  const servers = block.filter(({ name }) => name === 'server');
  const rest = block.filter(
    ({ name }) => name !== 'server' && !isSame(name) && name !== 'keepalive' && name !== 'zone',
  );
  return servers.length === 1 && rest.length === 0 ? servers[0]!.args[0] : undefined;
}

function readName(
  text: string,
  place: { file: string; line: number },
  mistakes: Mistake[],
): Domain | undefined | 'unreadable' {
  if (text === '') return undefined;
  if (text.startsWith('~')) {
    mistakes.push({
      place,
      subject: `server_name ${quote(text)} is an expression, and no names`,
      cure: 'write the names into DOMAINS and ROUTING_MAP, or a wildcard as in *.example.com',
    });
    return 'unreadable';
  }
  try {
    return parseDomain(text);
  } catch (error) {
    if (!(error instanceof DomainError)) throw error;
    mistakes.push({ place, subject: `server_name ${error.subject}`, cure: error.cure });
    return 'unreadable';
  }
}

// --- The syntax: words, blocks, comments and quotes; nothing is expanded, nothing included ---

function parse({ path, text }: NginxFile, mistakes: Mistake[]): Directive[] {
  const refuse = (line: number, subject: string) => {
    mistakes.push({ place: { file: path, line }, subject, cure: 'correct the file, or take its mount away' });
    return [];
  };
  if (text.length > LARGEST_FILE_BYTES) return refuse(1, 'is larger than 256 KiB');
  const stack: { name: string; args: string[]; line: number; outer: Directive[] }[] = [];
  let here: Directive[] = [];
  let words: { text: string; line: number }[] = [];
  for (const token of tokensOf(text)) {
    if (token.kind === 'word') {
      words.push(token);
      continue;
    }
    const head = headOf(words, token.line);
    if (token.kind === ';' && words.length > 0) here.push({ ...head, block: undefined });
    words = [];
    if (token.kind === '{') {
      if (stack.length > 50) return refuse(token.line, 'is nested too deeply');
      stack.push({ ...head, outer: here });
      here = [];
    }
    if (token.kind === '}') {
      const opened = stack.pop();
      if (opened === undefined) return refuse(token.line, 'closes a block that is not open');
      const { outer, ...directive } = opened;
      outer.push({ ...directive, block: here });
      here = outer;
    }
  }
  const open = stack.at(-1);
  if (open !== undefined) return refuse(open.line, `the block ${quote(open.name)} is not closed`);
  const [left] = words;
  return left === undefined ? here : refuse(left.line, `${quote(left.text)} has no semicolon behind it`);
}

function headOf([first, ...rest]: readonly { text: string; line: number }[], line: number) {
  return { name: first?.text ?? '', args: rest.map(({ text }) => text), line: first?.line ?? line };
}

interface Token {
  readonly kind: 'word' | ';' | '{' | '}';
  readonly text: string;
  readonly line: number;
}

const TOKEN =
  /\s+|#[^\n]*|([;{}])|"((?:[^"\\]|\\[\s\S])*)"|'((?:[^'\\]|\\[\s\S])*)'|((?:\$\{[^}\n]{0,99}\}|\\[\s\S]|[^\s;{}"'#])(?:\$\{[^}\n]{0,99}\}|\\[\s\S]|[^\s;{}])*)|["'#]/g;

function* tokensOf(text: string): Generator<Token> {
  let line = 1;
  for (const [whole, mark, double, single, bare] of text.matchAll(TOKEN)) {
    const word = double ?? single ?? bare;
    if (mark !== undefined) yield { kind: mark as ';' | '{' | '}', text: mark, line };
    else if (word !== undefined) yield { kind: 'word', text: word, line };
    for (let at = whole.indexOf('\n'); at !== -1; at = whole.indexOf('\n', at + 1)) line++;
  }
}
