// What the readers of all keys share while a routes file is read: files that it names, variables, and what is collected.

import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import type { Node } from 'yaml';
import type {
  ConnectionZone,
  Pattern,
  RequestZone,
  Template,
  UpstreamGroup,
} from '../../../proxy/rules/model.ts';
import { isPatternFault, readPattern } from '../../../proxy/rules/pattern.ts';
import type { UpstreamProtocol, UpstreamSettings } from '../../../proxy/rules/routes.ts';
import { parseTemplate } from '../../../proxy/rules/template.ts';
import { builtInNames, isBuiltIn } from '../../../proxy/rules/variables.ts';
import { type ReadFile, readRoots } from '../../config/files.ts';
import { unreadable } from '../../config/mistake.ts';
import { quote } from '../../config/values.ts';
import { readGuardedFileSync } from '../../lib/guarded-file.ts';
import { nearest } from '../../lib/spelling.ts';
import { readString, readText, readValue } from './fields.ts';
import { isRepeated, type Mistakes, type Seen } from './mistakes.ts';

export type UpstreamTimeouts = Pick<
  UpstreamSettings,
  'connectTimeoutMs' | 'readTimeoutMs' | 'sendTimeoutMs' | 'totalTimeoutMs'
>;

export interface AdminUpstream {
  readonly host: string;
  readonly port: number;
  readonly token: string | undefined;
}

export interface RoutesFileOptions {
  /** Where the file names none. */
  readonly timeouts: UpstreamTimeouts;
  /**
   * Whether the address that a connection comes from is its client's. Behind a gateway that says nothing of its clients it
   * is the gateway's, and rules by address are refused. Default: true.
   */
  readonly clientAddresses?: boolean;
  readonly readFile?: ReadFile;
  /** Where the ingress shows itself, if workers can reach it: what `admin: true` leads to. */
  readonly admin?: AdminUpstream | undefined;
  /** Signs cookies that name a server, where the file gives no secret. Default: one for each process. */
  readonly cookieSecret?: string;
}

/** A named upstream, or one that was written where it is used. */
export interface Upstream {
  readonly protocol: UpstreamProtocol;
  readonly group: UpstreamGroup;
  /** What `$proxy_host` is. */
  readonly host: string;
}

/** One for the file and all that it includes. */
export interface Shared {
  readonly options: Required<RoutesFileOptions>;
  readonly watched: Set<string>;
  readonly hosts: Seen;
  readonly upstreams: Map<string, Upstream>;
  readonly groups: Map<string, UpstreamGroup>;
  readonly requestZones: RequestZone[];
  readonly connectionZones: ConnectionZone[];
  /** What named groups define, in lower case. */
  readonly variables: Set<string>;
  readonly used: { readonly name: string; readonly node: Node; readonly mistakes: Mistakes }[];
}

/** Of one file. */
export interface Reading {
  readonly mistakes: Mistakes;
  /** Where its relative paths begin. */
  readonly folder: string;
  readonly shared: Shared;
}

const cookieSecret = randomBytes(32).toString('base64url');

export function createShared(options: RoutesFileOptions): Shared {
  return {
    options: {
      clientAddresses: true,
      readFile: readGuardedFileSync,
      admin: undefined,
      cookieSecret,
      ...options,
    },
    watched: new Set(),
    hosts: new Map(),
    upstreams: new Map(),
    groups: new Map(),
    requestZones: [],
    connectionZones: [],
    variables: new Set(),
    used: [],
  };
}

/** Text with variables. */
export function readTemplate(
  node: Node,
  subject: string,
  example: string,
  reading: Reading,
): Template | undefined {
  const text = readText(node, subject, example, reading.mistakes);
  return text === undefined ? undefined : templateOf(text, node, reading);
}

export function templateOf(text: string, node: Node, { mistakes, shared }: Reading): Template | undefined {
  const template = parseTemplate(text);
  if ('fault' in template) {
    mistakes.at(node, template.fault, template.cure);
    return undefined;
  }
  for (const part of template) {
    if (typeof part !== 'string' && !/^[1-9]$/.test(part.name))
      shared.used.push({ name: part.name, node, mistakes });
  }
  return template;
}

/** Once all is read: a named group may stand below its use. */
export function refuseUnknownVariables({ used, variables }: Shared): void {
  for (const { name, node, mistakes } of used) {
    if (isBuiltIn(name) || variables.has(name)) continue;
    const like = nearest(name, [...builtInNames(), ...variables]);
    const cure = 'wants a variable that docs/routes.md lists, or a named group of a regular expression';
    mistakes.at(node, `there is no variable $${name}`, like === undefined ? cure : `was $${like} meant?`);
  }
}

/** `text` without the `~` that tells it from plain text; what is left may begin with `*`: case is ignored. */
export function patternOf(
  text: string,
  node: Node,
  reading: Reading,
  ignoreCase = false,
): Pattern | undefined {
  const starred = text.startsWith('*');
  const pattern = readPattern(starred ? text.slice(1) : text, ignoreCase || starred);
  if (isPatternFault(pattern)) {
    reading.mistakes.at(node, `${quote(text)}: ${pattern.fault}`, pattern.cure);
    return undefined;
  }
  for (const name of pattern.names) reading.shared.variables.add(name.toLowerCase());
  return pattern;
}

const LARGEST_NAMED_FILE = 1024 * 1024;

/** The text of a file that a key names. Its changes are watched as those of the routes file are. */
export function readNamed(node: Node, subject: string, reading: Reading): string | undefined {
  const path = pathOf(node, subject, reading);
  if (path === undefined) return undefined;
  const { mistakes, shared } = reading;
  shared.watched.add(path);
  try {
    const text = shared.options.readFile(path);
    if (text.length <= LARGEST_NAMED_FILE) return text;
    mistakes.at(node, `${quote(path)} is larger than 1 MiB`, 'wants a smaller file');
  } catch (cause) {
    const { subject: why, cure } = unreadable(cause);
    mistakes.at(node, `${quote(path)} ${why}`, cure);
  }
  return undefined;
}

export function pathOf(node: Node, subject: string, { mistakes, folder }: Reading): string | undefined {
  const text = readString(node, subject, 'pages/404.html', mistakes);
  if (text === undefined) return undefined;
  if (text !== '' && !text.includes('\0')) return resolve(folder, text);
  mistakes.at(node, `${quote(text)} is not a path`, 'wants one, from this file on or from /');
  return undefined;
}

/** PEM of certificates. */
export function readAuthorities(node: Node, subject: string, reading: Reading): string | undefined {
  const path = pathOf(node, subject, reading);
  if (path === undefined) return undefined;
  reading.shared.watched.add(path);
  return readValue(node, () => readRoots(path, reading.shared.options.readFile), reading.mistakes);
}

/** Whether rules by address can work here; says so if not. */
export function knowsClients(node: Node, subject: string, { mistakes, shared }: Reading): boolean {
  if (shared.options.clientAddresses) return true;
  mistakes.at(
    node,
    `${subject} goes by the client's address, which is not known here: every connection comes from the gateway`,
    'wants PROXY_PROTOCOL or TRUSTED_FORWARDERS set, or a header or a cookie to go by',
  );
  return false;
}

/** A name that nothing else has yet. */
export function registerUpstream(
  name: string,
  node: Node,
  upstream: Upstream,
  { shared, mistakes }: Reading,
  seen: Seen,
): void {
  if (isRepeated(name, node, seen, `upstream ${quote(name)}`, mistakes)) return;
  shared.upstreams.set(name, upstream);
}
