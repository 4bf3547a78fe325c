// Where requests go: ROUTING_MAP, TARGET_ENDPOINT, the routes file and nginx files, as one plan.

import { join, resolve } from 'node:path';
import type { Route } from '../../proxy/rules/routes.ts';
import { type FixedRouting, planRouting, type RoutingPlan } from '../routes/plan.ts';
import { parseRoutesFile, RoutesFileError, type UpstreamTimeouts } from '../routes/yaml/file.ts';
import type { Environment } from './environment.ts';
import { type ListFolder, parsePath, type ReadFile, readNamedFile } from './files.ts';
import { unreadable } from './mistake.ts';
import type { NginxFile } from './nginx-files.ts';
import { judgeNginxFiles } from './nginx-judgement.ts';
import { parseDuration, parseNginxTime } from './values.ts';

export interface RoutesFile {
  readonly path: string;
  /** What it said when the configuration was read. */
  readonly text: string;
}

/** The plan under a new text of the routes file. Throws RoutesFileError if that cannot be served. */
export function planFromFile(fixed: FixedRouting, file: RoutesFile): RoutingPlan {
  const fileRoutes = parseRoutesFile(file.text, file.path, fixed.timeouts);
  const { plan, problems } = planRouting(fixed, fileRoutes);
  if (problems.length === 0) return plan;
  throw new RoutesFileError(
    file.path,
    problems.map(({ subject, cure }) => ({ place: { file: file.path }, subject, cure })),
  );
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

export function readPlan(
  environment: Environment,
  fixed: FixedRouting,
  routesFile: RoutesFile | undefined,
  nginx: NginxFolder,
): RoutingPlan {
  const fileRoutes = readFileRoutes(environment, fixed, routesFile);
  const { plan, problems } = planRouting(fixed, fileRoutes);
  // A domain or upstream that could not be read is reported already. What follows from it is not a second mistake.
  if (environment.isWrong('DOMAIN', 'DOMAINS', 'TARGET_ENDPOINT', 'ROUTING_MAP', 'ROUTES_FILE')) return plan;
  if (plan.domains.length === 0) {
    environment.refuse(
      'DOMAIN',
      'no domain is set',
      'wants DOMAIN, DOMAINS, or a ROUTES_FILE that names hosts',
    );
  }
  const { mistakes, warnings, unsettled } = judgeNginxFiles(nginx.path, nginx.files, {
    domains: plan.domains,
    named: [...fixed.routes, ...fileRoutes],
    fallback: fixed.fallback,
    hasMap: environment.has('ROUTING_MAP'),
  });
  for (const { domain, subject, cure } of problems) {
    if (!unsettled.includes(domain)) environment.refuse(routingVariable(environment), subject, cure);
  }
  for (const { place, subject, cure } of mistakes) environment.refuse(place, subject, cure);
  for (const { variable, warning } of warnings) environment.warn(variable, warning);
  return plan;
}

export interface NginxFolder {
  readonly path: string;
  readonly files: readonly NginxFile[];
}

/** Where the 1.x images read nginx files from. */
const NGINX_CONF_DIR = '/etc/nginx/conf.d';

export function readNginxFolder(
  environment: Environment,
  readFile: ReadFile,
  listFolder: ListFolder,
): NginxFolder {
  const named = environment.read('NGINX_CONF_DIR', parsePath);
  const path = named ?? NGINX_CONF_DIR;
  if (path === 'none') return { path, files: [] };
  try {
    const names = listFolder(path).filter((name) => name.endsWith('.conf'));
    return {
      path,
      files: names.sort().map((name) => ({ path: join(path, name), text: readFile(join(path, name)) })),
    };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (named !== undefined || (code !== 'ENOENT' && code !== 'ENOTDIR')) {
      const { subject, cure } = unreadable(error);
      const file = (error as NodeJS.ErrnoException).path ?? path;
      environment.refuse({ variable: 'NGINX_CONF_DIR', file }, subject, cure);
    }
    return { path, files: [] };
  }
}

/** The setting that an operator would look at first. */
function routingVariable(environment: Environment): string {
  return ['ROUTING_MAP', 'ROUTES_FILE'].find((name) => environment.has(name)) ?? 'TARGET_ENDPOINT';
}

function readFileRoutes(
  environment: Environment,
  { timeouts }: FixedRouting,
  file: RoutesFile | undefined,
): Route[] {
  if (file === undefined) return [];
  try {
    return parseRoutesFile(file.text, file.path, timeouts);
  } catch (error) {
    if (!(error instanceof RoutesFileError)) throw error;
    for (const { place, subject, cure } of error.mistakes)
      environment.refuse({ variable: 'ROUTES_FILE', ...place }, subject, cure);
    return [];
  }
}
