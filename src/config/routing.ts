// Where requests go: ROUTING_MAP, TARGET_ENDPOINT, the routes file and nginx files, as one plan.

import { resolve } from 'node:path';
import { compile } from '../../proxy/rules/compile.ts';
import type { RuleSet } from '../../proxy/rules/model.ts';
import { createRouteTable } from '../../proxy/rules/routes.ts';
import { RuleSetError } from '../../proxy/rules/scope.ts';
import { judgeNames } from '../routes/nginx/names.ts';
import { describeNote } from '../routes/nginx/notes.ts';
import { type NginxRules, readNginxFiles } from '../routes/nginx/read.ts';
import {
  type FileRouting,
  type FixedRouting,
  nothingFiled,
  planRouting,
  type RoutingPlan,
} from '../routes/plan.ts';
import { hostsOf } from '../routes/sites.ts';
import {
  readRoutesFile as parse,
  RoutesFileError,
  type RoutesFileOptions,
  type UpstreamTimeouts,
} from '../routes/yaml/file.ts';
import type { Environment } from './environment.ts';
import { type ListFolder, parsePath, type ReadFile, readNamedFile } from './files.ts';
import { describePlace, type Mistake, type Place, placeOfOrigin, unreadable } from './mistake.ts';
import { parseDuration, parseNginxTime } from './values.ts';

export interface RoutesFile {
  readonly path: string;
  /** What it said when the configuration was read. */
  readonly text: string;
}

/** What a routes file says, and what it was read from. */
export interface FileReading extends FileRouting {
  readonly mistakes: readonly Mistake[];
  readonly watched: readonly string[];
}

export function parseFile({ path, text }: RoutesFile, options: RoutesFileOptions): FileReading {
  const { routes, rules, mistakes, watched } = parse(text, path, options);
  const own = rules.sites.length > 0 ? rules : undefined;
  return { routes, rules: own, hosts: own === undefined ? [] : hostsOf(own), mistakes, watched };
}

/** The plan of settings and files together. Throws RoutesFileError, with `path`, if it cannot be served. */
export function planFromFiles(
  fixed: FixedRouting,
  path: string,
  file: FileReading | undefined,
  nginx: NginxRules | undefined,
): RoutingPlan {
  const { plan, problems, conflict } = joined(fixed, file, nginx);
  const mistakes = [
    ...(file?.mistakes ?? []),
    ...(nginx?.mistakes ?? []),
    ...(conflict === undefined ? [] : [conflict]),
    ...problems.map(({ subject, cure }) => ({ place: { file: path }, subject, cure })),
    ...compileFaults(plan.rules),
  ];
  if (mistakes.length > 0) throw new RoutesFileError(path, mistakes);
  return plan;
}

/** Rules have one source: what is shared by all sites of a file would have to hold for the other's, or not. */
function joined(fixed: FixedRouting, file: FileReading | undefined, nginx: NginxRules | undefined) {
  const { routes, rules, hosts } = file ?? nothingFiled;
  const sites = nginx !== undefined && nginx.rules.sites.length > 0 ? nginx.rules : undefined;
  const conflict: Mistake | undefined =
    rules === undefined || sites === undefined
      ? undefined
      : {
          place: { variable: 'NGINX_CONF_DIR' },
          subject: 'there are nginx files, and the routes file has rules as well',
          cure: 'write all of it into the routes file: dstack-ingress convert-nginx prints what the nginx files say',
        };
  return { ...planRouting(fixed, { routes, rules: rules ?? sites, hosts }), conflict };
}

/** What a reader should have refused, and the workers could not compile; in the engine's words. */
function compileFaults(rules: RuleSet | undefined): Mistake[] {
  if (rules === undefined) return [];
  try {
    compile(rules);
    return [];
  } catch (error) {
    if (!(error instanceof RuleSetError)) throw error;
    const { origin, fault } = error;
    return [{ place: placeOfOrigin(origin), subject: fault, cure: 'write it another way, or take it away' }];
  }
}

export function readTimeouts(environment: Environment): UpstreamTimeouts {
  const server = environment.read('TIMEOUT_SERVER', parseDuration);
  const read = environment.read('PROXY_READ_TIMEOUT', parseNginxTime);
  const send = environment.read('PROXY_SEND_TIMEOUT', parseNginxTime);
  if (server !== undefined) {
    for (const [name, value] of [
      ['PROXY_READ_TIMEOUT', read],
      ['PROXY_SEND_TIMEOUT', send],
    ] as const) {
      if (value !== undefined && value !== server) {
        environment.warn(name, 'is not used: TIMEOUT_SERVER is set and differs');
      }
    }
  }
  return {
    connectTimeoutMs:
      environment.read(['TIMEOUT_CONNECT', 'PROXY_CONNECT_TIMEOUT'], parseEitherTime) ?? 10_000,
    readTimeoutMs: server ?? read ?? DAY_MS,
    sendTimeoutMs: server ?? send ?? DAY_MS,
  };
}

const DAY_MS = 86_400_000;

/** The 1.x images wrote times as nginx does, the 2.x images as HAProxy does. */
function parseEitherTime(text: string, name: string): number {
  return name.startsWith('PROXY_') ? parseNginxTime(text) : parseDuration(text);
}

export function readRoutesFile(path: string, readFile: ReadFile): RoutesFile {
  return { path: resolve(path), text: readNamedFile(path, readFile) };
}

/** Mistakes go to the environment's list. */
export function readPlan(
  environment: Environment,
  fixed: FixedRouting,
  file: FileReading | undefined,
  nginx: NginxRules | undefined,
): RoutingPlan {
  for (const { place, subject, cure } of file?.mistakes ?? [])
    environment.refuse({ variable: 'ROUTES_FILE', ...place }, subject, cure);
  for (const { place, subject, cure } of nginx?.mistakes ?? [])
    environment.refuse({ variable: 'NGINX_CONF_DIR', ...place }, subject, cure);
  const { plan, problems, conflict } = joined(fixed, file, nginx);
  // A domain or upstream that could not be read is reported already. What follows from it is not a second mistake.
  if (environment.isWrong(...ROUTING_VARIABLES) || (nginx?.mistakes.length ?? 0) > 0) return plan;
  if (plan.domains.length === 0) {
    environment.refuse(
      'DOMAIN',
      'no domain is set',
      'wants DOMAIN, DOMAINS, or a ROUTES_FILE that names hosts',
    );
  }
  if (conflict !== undefined) environment.refuse(conflict.place, conflict.subject, conflict.cure);
  for (const { subject, cure } of problems) environment.refuse(routingVariable(environment), subject, cure);
  for (const { place, subject, cure } of compileFaults(plan.rules)) environment.refuse(place, subject, cure);
  for (const { place, text } of warningsOf(plan, nginx))
    environment.warn('NGINX_CONF_DIR', `${describePlace(place)}: ${text}`);
  return plan;
}

const ROUTING_VARIABLES = ['DOMAIN', 'DOMAINS', 'TARGET_ENDPOINT', 'ROUTING_MAP', 'ROUTES_FILE'];

/** What nginx files say without effect, or with one that their owner may not expect. */
export interface FileWarning {
  readonly place: Place;
  readonly text: string;
}

/** Each kind of what has no effect once, names that nobody can ask for, and domains that only the default server takes. */
export function warningsOf(
  { domains, routes }: Pick<RoutingPlan, 'domains' | 'routes'>,
  nginx: NginxRules | undefined,
): FileWarning[] {
  if (nginx === undefined) return [];
  const { knows } = createRouteTable(routes);
  const { uncovered, byDefault } = judgeNames(nginx.rules, domains, knows);
  const names = [...uncovered, ...byDefault].map(({ place, subject, cure }) => ({
    place,
    text: `${subject}: ${cure}`,
  }));
  return [...nginx.notes.map((note) => ({ place: note.place, text: describeNote(note) })), ...names];
}

export interface NginxFolder {
  readonly path: string;
  read(): NginxRules;
}

/** Where the 1.x images read nginx files from. */
const NGINX_CONF_DIR = '/etc/nginx/conf.d';

/** Undefined: there is no such folder, or no file in it that nginx would read. */
export function readNginxFolder(
  environment: Environment,
  readFile: ReadFile,
  listFolder: ListFolder,
): NginxFolder | undefined {
  const named = environment.read('NGINX_CONF_DIR', parsePath);
  const path = named ?? NGINX_CONF_DIR;
  if (path === 'none') return undefined;
  try {
    if (named === undefined && !listFolder(path).some((name) => name.endsWith('.conf'))) return undefined;
    listFolder(path);
    return { path, read: () => readNginxFiles(path, { readFile, listFolder }) };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (named !== undefined || (code !== 'ENOENT' && code !== 'ENOTDIR')) {
      const { subject, cure } = unreadable(error);
      const file = (error as NodeJS.ErrnoException).path ?? path;
      environment.refuse({ variable: 'NGINX_CONF_DIR', file }, subject, cure);
    }
    return undefined;
  }
}

/** The setting that an operator would look at first. */
function routingVariable(environment: Environment): string {
  return ['ROUTING_MAP', 'ROUTES_FILE'].find((name) => environment.has(name)) ?? 'TARGET_ENDPOINT';
}
