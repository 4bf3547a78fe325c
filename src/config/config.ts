// The environment and the routes file, read once into a Config; every mistake in them is reported together.

import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { nodeInsides, parseInsidesOff } from '../../proxy/socket/insides/switch.ts';
import { isWildcard } from '../lib/domain.ts';
import { readGuardedFileSync } from '../lib/guarded-file.ts';
import type { LogLevel } from '../lib/log.ts';
import type { NginxRules } from '../routes/nginx/read.ts';
import { type FixedRouting, type RoutingPlan, readFixedRouting } from '../routes/plan.ts';
import type { RoutesFileOptions } from '../routes/yaml/file.ts';
import { type AccessLogConfig, readAccessLog } from './access-log.ts';
import { type AcmeSettings, readAcme } from './acme.ts';
import { type AdminSettings, readAdmin, upstreamOfAdmin } from './admin.ts';
import { type DnsSettings, readDns } from './dns.ts';
import {
  type ConfigWarning,
  type Env,
  type Environment,
  type Given,
  readEnvironment,
} from './environment.ts';
import { type ListFolder, parsePath, type ReadFile, readRoots } from './files.ts';
import { type FleetSettings, readFleet } from './fleet.ts';
import { knowsClients, type ListenSettings, parseAlpn, readListen, readTrust } from './listen.ts';
import { describeMistake, type Mistake } from './mistake.ts';
import { retiredSettings, unsupportedSettings } from './retired.ts';
import {
  type FileReading,
  type NginxFolder,
  parseFile,
  type RoutesFile,
  readNginxFolder,
  readPlan,
  readRoutesFile,
  readTimeouts,
} from './routing.ts';
import { type ShownSetting, shownSettings } from './shown.ts';
import { readStore, type StoreSettings } from './store.ts';
import { readTracing, type TracingConfig } from './tracing.ts';
import {
  parseChoice,
  parseCount,
  parseHttpsUrl,
  parseSwitch,
  quote,
  splitWords,
  ValueError,
} from './values.ts';

/** Well-formed as a whole. */
export interface Config extends RoutingPlan {
  readonly listen: ListenSettings;
  readonly workers: number;
  /** Undefined: none is written. */
  readonly accessLog: AccessLogConfig | undefined;
  /** Undefined: no spans are recorded. */
  readonly tracing: TracingConfig | undefined;
  /** Whether each request gets an id, or keeps that of a trusted peer. */
  readonly requestIds: boolean;
  readonly routesFile: RoutesFile | undefined;
  /** How it is to be read again, and what it said. */
  readonly routesFileOptions: RoutesFileOptions;
  readonly file: FileReading | undefined;
  readonly nginx: (NginxFolder & { readonly first: NginxRules }) | undefined;
  /** To be joined with the files when they are read again: planFromFiles. */
  readonly fixedRouting: FixedRouting;
  /** PEM of roots that https:// and grpcs:// upstreams may have beside the system's. */
  readonly upstreamCa: string | undefined;
  readonly dns: DnsSettings;
  readonly acme: AcmeSettings;
  readonly stateDir: string;
  /** Undefined: everything is kept in `stateDir`. */
  readonly store: StoreSettings | undefined;
  /** Undefined: replicas, if there are any, have a store, or a folder, in common. */
  readonly fleet: FleetSettings | undefined;
  readonly evidence: {
    /** Whether /evidences/ is answered; the files are written to `dir` either way. */
    readonly serve: boolean;
    readonly dir: string;
    /** Services to ask for collateral; empty: nobody is asked; undefined: the usual ones. */
    readonly pccs: readonly string[] | undefined;
    readonly agentEndpoint: string | undefined;
  };
  readonly admin: AdminSettings;
  /** What was set, as it may be shown. */
  readonly shown: readonly ShownSetting[];
  readonly logLevel: LogLevel;
  readonly warnings: readonly ConfigWarning[];
  /** Newest name -> how it was given; what is missing is as by default. */
  readonly given: ReadonlyMap<string, Given>;
}

/** Every mistake found, and the warnings beside them: a misspelt name may explain a missing setting. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly code = 'invalid-configuration';
  readonly mistakes: readonly Mistake[];
  readonly warnings: readonly ConfigWarning[];
  constructor(mistakes: readonly Mistake[], warnings: readonly ConfigWarning[]) {
    super(
      [
        mistakes.length === 1 ? 'a setting is wrong:' : `${mistakes.length} settings are wrong:`,
        ...mistakes.map((mistake) => `  ${describeMistake(mistake)}`),
        ...(warnings.length > 0 ? ['look at this too:'] : []),
        ...warnings.map(({ variable, warning }) => `  ${variable}: ${warning}`),
      ].join('\n'),
    );
    this.mistakes = mistakes;
    this.warnings = warnings;
  }
}

/** Reads nothing but `env` and the files named in it, and contacts nothing. Throws ConfigError. */
export function readConfig(
  env: Env,
  readFile: ReadFile = readGuardedFileSync,
  listFolder: ListFolder = (path) => readdirSync(path),
): Config {
  const environment = readEnvironment(env, readFile);
  refuseUnsupported(environment);
  const alpn = environment.read('ALPN', parseAlpn) ?? ['h2', 'http/1.1'];
  const timeouts = readTimeouts(environment);
  const fixedRouting = readFixedRouting(environment, timeouts, alpn.join() === 'h2');
  const routesFile = environment.read('ROUTES_FILE', (path) => readRoutesFile(path, readFile));
  const trust = readTrust(environment);
  const admin = readAdmin(environment);
  const routesFileOptions = {
    timeouts,
    clientAddresses: knowsClients(trust),
    admin: upstreamOfAdmin(admin),
  };
  const folder = readNginxFolder(environment, readFile, listFolder);
  const nginx = folder && { ...folder, first: folder.read() };
  const file = routesFile && parseFile(routesFile, { ...routesFileOptions, readFile });
  const plan = readPlan(environment, fixedRouting, file, nginx?.first);
  const listen = readListen(environment, alpn, trust);
  const acme = readAcme(environment, readFile);
  const tracing = readTracing(environment, readFile);
  const accessLog = readAccessLog(environment, tracing !== undefined);
  const servesEvidence = environment.read('EVIDENCE_SERVER', parseSwitch) ?? true;
  const config: Config = {
    ...plan,
    listen,
    workers: environment.read('WORKERS', (text) => parseCount(text, 1, 1024)) ?? availableParallelism(),
    accessLog,
    tracing,
    requestIds: environment.read('REQUEST_ID', parseSwitch) ?? accessLog !== undefined,
    routesFile,
    routesFileOptions,
    file,
    nginx,
    fixedRouting,
    upstreamCa: environment.read('UPSTREAM_CA_FILE', (path) => readRoots(path, readFile)),
    dns: readDns(environment, acme.challenge, listen.port),
    acme,
    stateDir: resolve(environment.read('STATE_DIR', parsePath) ?? '/etc/letsencrypt'),
    store: readStore(environment, readFile),
    fleet: readFleet(environment, acme, servesEvidence),
    evidence: {
      serve: servesEvidence,
      dir: resolve(environment.read('EVIDENCE_DIR', parsePath) ?? '/evidences'),
      pccs: environment.read('PCCS_URL', parsePccs),
      agentEndpoint: environment.read('DSTACK_SIMULATOR_ENDPOINT', parseAgentEndpoint),
    },
    admin,
    shown: shownSettings(environment.values),
    logLevel: environment.read('LOG_LEVEL', (text) => parseChoice(text, LOG_LEVELS)) ?? 'info',
    warnings: environment.warnings,
    given: environment.given(),
  };
  environment.read('DSTACK_INGRESS_NODE_INSIDES', checkInsides);
  refuseWildcards(environment, config);
  refuseUnannounced(environment, config);
  refuseUnanswerable(environment, config);
  if (environment.mistakes.length > 0) throw new ConfigError(environment.mistakes, environment.warnings);
  return config;
}

/** Each process reads the value itself, when it loads what it may switch off: see proxy/socket/insides/switch.ts. */
function checkInsides(text: string): void {
  const { unknown } = parseInsidesOff(text);
  if (unknown.length === 0) return;
  throw new ValueError(
    `${quote(unknown.join(', '))} is none of Node's insides that are used`,
    `wants off, or names from ${nodeInsides.join(', ')}`,
  );
}

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;

function refuseUnsupported(environment: Environment): void {
  for (const { name, why } of unsupportedSettings) {
    environment.read(name, (text) => {
      if (!/^(false|no|off|0)$/i.test(text))
        environment.refuse(name, why, 'take it away, or set it to false');
    });
  }
  for (const { name, why } of retiredSettings) {
    if (environment.has(name)) environment.warn(name, `no longer does anything: ${why}`);
  }
}

/** A socket's path or a URL, as the agent's SDK takes it. */
function parsePccs(text: string): string[] {
  return text.toLowerCase() === 'off' ? [] : splitWords(text).map(parseHttpsUrl);
}

function parseAgentEndpoint(text: string): string {
  if (/^https?:\/\//i.test(text)) {
    if (URL.canParse(text)) return text;
  } else if (text.startsWith('/') || text.startsWith('../')) {
    return resolve(text);
  }
  throw new ValueError(
    `${quote(text)} is neither the path of a socket nor a URL`,
    'wants one as in /var/run/dstack.sock or http://…',
  );
}

/** These challenges prove single names alone (RFC 8737 §3, RFC 8555 §8.3 and §7.1.3). */
function refuseWildcards(environment: Environment, { domains, acme }: Config): void {
  if (acme.challenge !== 'tls-alpn-01' && acme.challenge !== 'http-01') return;
  const wildcards = domains.filter(isWildcard);
  if (wildcards.length === 0) return;
  environment.refuse(
    'CHALLENGE_TYPE',
    `${acme.challenge} cannot get a certificate for ${wildcards.join(', ')}`,
    'wants dns-01, or the single names',
  );
}

/** A file has no word for it, so its upstreams would wait for a header that never comes. */
function refuseUnannounced(environment: Environment, { routesFile, nginx, fixedRouting }: Config): void {
  const { fallback, routes } = fixedRouting;
  const upstreams = [fallback, ...routes.flatMap(({ paths }) => paths.map(({ upstream }) => upstream))];
  if (!upstreams.some((upstream) => upstream?.announced === true)) return;
  const has = (nginx?.first?.rules.sites.length ?? 0) > 0 ? 'nginx files' : 'a routes file';
  if (routesFile === undefined && has !== 'nginx files') return;
  environment.refuse(
    'SEND_PROXY_PROTOCOL',
    `is for TARGET_ENDPOINT and ROUTING_MAP, and there is ${has} beside them`,
    'wants all upstreams in ROUTING_MAP, or apps that read X-Forwarded-For',
  );
}

function refuseUnanswerable(environment: Environment, { listen: { port, httpPort }, acme }: Config): void {
  if (acme.challenge === 'http-01' && !environment.has('HTTP_PORT')) {
    environment.refuse(
      'HTTP_PORT',
      'is not set, but CHALLENGE_TYPE=http-01 needs it',
      'wants the port to which port 80 of the domains leads',
    );
  } else if (httpPort === port) {
    environment.refuse('HTTP_PORT', `is ${port}, and so is PORT`, 'wants another');
  }
}
