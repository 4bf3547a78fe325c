// The check command: the mistakes of a routes file or of a folder of nginx files, and what a request would meet under them.

import { readdirSync, statSync } from 'node:fs';
import type { RuleSet } from '../../proxy/rules/model.ts';
import type { Route } from '../../proxy/rules/routes.ts';
import { readEnvironment } from '../config/environment.ts';
import { knowsClients, readTrust } from '../config/listen.ts';
import { describePlace, type Mistake, unreadable } from '../config/mistake.ts';
import type { ExitCodes } from '../exit-codes.ts';
import { readGuardedFileSync } from '../lib/guarded-file.ts';
import { describeNote } from '../routes/nginx/notes.ts';
import { readNginxFiles } from '../routes/nginx/read.ts';
import { readRoutesFile } from '../routes/yaml/file.ts';
import { explainRequest, readRequestLine } from './check-explain.ts';
import { describeMisuse } from './usage.ts';

interface Streams {
  readonly out: NodeJS.WritableStream;
  readonly err: NodeJS.WritableStream;
}

type Env = Readonly<Record<string, string | undefined>>;

/** Returns the exit code. Reads the files, and contacts nothing. */
export function check(args: readonly string[], env: Env, { out, err }: Streams, exits: ExitCodes): number {
  const { path, asked } = readArguments(args, env);
  if (path === undefined) {
    err.write(describeMisuse('check: there is nothing to check', 'dstack-ingress check routes.yaml'));
    return exits.usage;
  }
  const request = asked === undefined ? undefined : readRequestLine(asked);
  if (request !== undefined && 'fault' in request) {
    err.write(describeMisuse(`check: ${request.fault}`, "--explain 'GET https://app.example.com/path'"));
    return exits.usage;
  }
  const { routes, rules, mistakes, notes } = readRouting(path, env);
  for (const mistake of mistakes) err.write(describe(mistake));
  if (mistakes.length > 0) {
    err.write(mistakes.length === 1 ? '1 mistake\n' : `${mistakes.length} mistakes\n`);
    return exits.configuration;
  }
  for (const note of notes) out.write(`note: ${note}\n`);
  if (request === undefined) {
    out.write(`${path}: ${summary(routes, rules)}\n`);
    return exits.ok;
  }
  const { lines, taken } = explainRequest(request, routes, rules);
  for (const line of lines) out.write(`${line}\n`);
  return taken ? exits.ok : exits.failed;
}

function readArguments(args: readonly string[], env: Env) {
  const at = args.indexOf('--explain');
  const asked = at < 0 ? undefined : args[at + 1];
  const path = args.find((arg, i) => !arg.startsWith('--') && (at < 0 || i !== at + 1));
  return { path: path ?? env.ROUTES_FILE ?? env.NGINX_CONF_DIR, asked };
}

interface Routing {
  readonly routes: readonly Route[];
  readonly rules: RuleSet;
  readonly mistakes: readonly Mistake[];
  /** What has no effect here. */
  readonly notes: readonly string[];
}

/** A folder holds nginx files; a file is a routes file. */
function readRouting(path: string, env: Env = {}): Routing {
  try {
    return statSync(path).isDirectory() ? readFolder(path) : readFile(path, env);
  } catch (cause) {
    return { ...NOTHING, mistakes: [{ place: { file: path }, ...unreadable(cause) }] };
  }
}

const NOTHING: Routing = { routes: [], rules: { sites: [] }, mistakes: [], notes: [] };

function readFolder(path: string): Routing {
  const access = { readFile: readGuardedFileSync, listFolder: (folder: string) => readdirSync(folder) };
  const { rules, mistakes, notes } = readNginxFiles(path, access);
  return {
    routes: [],
    rules,
    mistakes,
    notes: notes.map((note) => `${describePlace(note.place)}: ${describeNote(note)}`),
  };
}

const TIMEOUTS = { connectTimeoutMs: 10_000, readTimeoutMs: 86_400_000, sendTimeoutMs: 86_400_000 };

function readFile(path: string, env: Env): Routing {
  const options = { timeouts: TIMEOUTS, clientAddresses: knowsClientsOf(env), admin: ANY_ADMIN };
  const { routes, rules, mistakes } = readRoutesFile(readGuardedFileSync(path), path, options);
  return { routes, rules, mistakes, notes: [] };
}

/** On a machine that is no deployment nothing is known of what will be in front, and so nothing is refused for it. */
function knowsClientsOf(env: Env): boolean {
  const environment = readEnvironment(env);
  if (!DEPLOYED.some((name) => environment.has(name))) return true;
  return knowsClients(readTrust(environment));
}

/** What ADMIN_ADDRESS will be is the deployment's to say. */
const ANY_ADMIN = { host: '127.0.0.1', port: 9180, token: undefined };

const DEPLOYED = ['DOMAIN', 'DOMAINS', 'GATEWAY_DOMAIN'];

function describe({ place, subject, cure }: Mistake): string {
  return `${describePlace(place)}: ${subject}\n  ${cure}\n`;
}

function summary(routes: readonly Route[], { sites }: RuleSet): string {
  const hosts = routes.length + sites.length;
  return `sound: ${hosts} ${hosts === 1 ? 'host' : 'hosts'}, ${sites.length} with rules`;
}
