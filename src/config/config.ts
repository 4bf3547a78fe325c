// The environment and the routes file, read once into a Config; every mistake in them is reported together.

import { X509Certificate } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import type { ChallengeType } from '../../acme/issuer.ts';
import { DnsError, type DnsProvider, type ProviderKind } from '../../dns/provider.ts';
import { chooseProvider, providerKinds } from '../../dns/providers/choice.ts';
import { defaultLimits, type ListenerLimits, NO_LIMIT } from '../../proxy/limits.ts';
import type { Route } from '../../proxy/rules/routes.ts';
import { nodeInsides, parseInsidesOff } from '../../proxy/socket/insides/switch.ts';
import { splitChain } from '../lib/certificate.ts';
import { isWildcard } from '../lib/domain.ts';
import { readGuardedFileSync } from '../lib/guarded-file.ts';
import type { LogLevel } from '../lib/log.ts';
import { parseRoutesFile, RoutesFileError, type UpstreamTimeouts } from '../routes/file.ts';
import { type FixedRouting, planRouting, type RoutingPlan, readFixedRouting } from '../routes/plan.ts';
import { type ConfigWarning, type Env, type Environment, readEnvironment } from './environment.ts';
import { describeMistake, type Mistake, unreadable } from './mistake.ts';
import type { NginxFile } from './nginx-files.ts';
import { judgeNginxFiles } from './nginx-judgement.ts';
import { retiredSettings, settings, unsupportedSettings } from './settings.ts';
import {
  parseAddress,
  parseChoice,
  parseCount,
  parseDuration,
  parseHost,
  parseHttpsUrl,
  parseNetworks,
  parseNginxTime,
  parsePort,
  parseSeconds,
  parseSize,
  parseSwitch,
  quote,
  splitWords,
  ValueError,
} from './values.ts';

export type Alpn = 'h2' | 'http/1.1';

/** Connections are counted over all workers; how many descriptors there are is the machine's to say. */
export type Limits = Omit<ListenerLimits, 'maxDescriptors'>;

export interface ListenSettings {
  /** Undefined: every address of the machine. */
  readonly host: string | undefined;
  readonly port: number;
  /** Where plain HTTP is listened for, if it is. Always there for http-01. */
  readonly httpPort: number | undefined;
  readonly alpn: readonly Alpn[];
  readonly proxyProtocol: boolean;
  /** CIDR blocks whose PROXY header is believed; empty unless proxyProtocol. */
  readonly trustedProxies: readonly string[];
  /** CIDR blocks of proxies that end TLS before us, whose X-Forwarded-* and Forwarded fields are believed. */
  readonly trustedForwarders: readonly string[];
  readonly limits: Limits;
}

/**
 * Who makes the records, or with a delegation zone the aliases into it. auto: we do. wait: the operator does, we wait for
 * them. print: the operator does, we do not look. webhook: the operator's service does, we wait.
 */
export type DnsSetup = 'auto' | 'wait' | 'print' | 'webhook';

export interface DnsSettings {
  readonly setup: DnsSetup;
  /** Always there for dns-01, for setup "auto" and with a delegation zone. */
  readonly provider:
    | { readonly kind: ProviderKind; readonly credentials: Readonly<Record<string, string>> }
    | undefined;
  /** Always there for setup "webhook". The token is a secret. */
  readonly webhook: { readonly url: string; readonly token: string | undefined } | undefined;
  /** The zone that is written in place of the domains' own. */
  readonly delegationZone: string | undefined;
  /** The target of the CNAMEs; always there unless setup is "print" without a delegation zone. */
  readonly gatewayDomain: string | undefined;
  /** The port in the TXT record: where the gateway reaches us. */
  readonly publicPort: number;
  /** The app id in the TXT record, where the guest agent's is not wanted. */
  readonly appId: string | undefined;
  readonly txtPrefix: string;
  readonly setCaa: boolean;
  /** `host` or `host:port` of plain DNS servers; empty: DNS over HTTPS is asked. */
  readonly resolvers: readonly string[];
  /** URLs; empty: the resolver's own choice. */
  readonly dohResolvers: readonly string[];
  readonly propagationTimeoutMs: number;
  readonly propagationIntervalMs: number;
  /** After the records show, until the gateway's own cache has lapsed too. */
  readonly settleMs: number;
}

export interface AcmeSettings {
  readonly directoryUrl: string;
  /** PEM of roots trusted for the ACME server beside the system's. */
  readonly ca: string | undefined;
  readonly email: string | undefined;
  readonly staging: boolean;
  readonly profile: string | undefined;
  /** hmacKey as the CA gave it, base64url. Secret. */
  readonly eab: { readonly kid: string; readonly hmacKey: string } | undefined;
  readonly challenge: ChallengeType;
  /** kms: derived from the app's key, on no disk. */
  readonly accountKey: 'file' | 'kms';
  readonly renewIntervalMs: number;
  readonly renewDaysBefore: number | undefined;
}

/** Well-formed as a whole. */
export interface Config extends RoutingPlan {
  readonly listen: ListenSettings;
  readonly workers: number;
  readonly accessLog: boolean;
  readonly routesFile: RoutesFile | undefined;
  /** To be joined with the routes file when that is read again: planFromFile. */
  readonly fixedRouting: FixedRouting;
  /** PEM of roots that https:// and grpcs:// upstreams may have beside the system's. */
  readonly upstreamCa: string | undefined;
  readonly dns: DnsSettings;
  readonly acme: AcmeSettings;
  readonly stateDir: string;
  readonly evidence: {
    /** Whether /evidences/ is answered; the files are written to `dir` either way. */
    readonly serve: boolean;
    readonly dir: string;
    readonly agentEndpoint: string | undefined;
  };
  readonly logLevel: LogLevel;
  readonly warnings: readonly ConfigWarning[];
}

export interface RoutesFile {
  readonly path: string;
  /** What it said when the configuration was read. */
  readonly text: string;
}

/** Every mistake found, at once, and what looks odd beside them: a name that was misspelt may explain one that is missing. */
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

/** Kept here and not with the ACME client, which takes a quarter of a second to load: certificates on disk serve before. */
const letsEncrypt = {
  production: 'https://acme-v02.api.letsencrypt.org/directory',
  staging: 'https://acme-staging-v02.api.letsencrypt.org/directory',
} as const;

export type ReadFile = (path: string) => string;
export type ListFolder = (path: string) => readonly string[];

/** Reads nothing but `env` and the files named in it, and contacts nothing. Throws ConfigError. */
export function readConfig(
  env: Env,
  readFile: ReadFile = readGuardedFileSync,
  listFolder: ListFolder = (path) => readdirSync(path),
): Config {
  const environment = readEnvironment(env, knownVariables());
  refuseUnsupported(environment);
  const alpn = environment.read('ALPN', parseAlpn) ?? ['h2', 'http/1.1'];
  const timeouts = readTimeouts(environment);
  const fixedRouting = readFixedRouting(environment, timeouts, alpn.join() === 'h2');
  const routesFile = environment.read('ROUTES_FILE', (path) => readRoutesFile(path, readFile));
  const nginx = readNginxFolder(environment, readFile, listFolder);
  const plan = readPlan(environment, fixedRouting, routesFile, nginx);
  const listen = readListen(environment, alpn);
  const acme = readAcme(environment, readFile);
  const config: Config = {
    ...plan,
    listen,
    workers: environment.read('WORKERS', (text) => parseCount(text, 1, 1024)) ?? availableParallelism(),
    accessLog: environment.read('ACCESS_LOG', parseSwitch) ?? false,
    routesFile,
    fixedRouting,
    upstreamCa: environment.read('UPSTREAM_CA_FILE', (path) => readRoots(path, readFile)),
    dns: readDns(environment, acme.challenge, listen.port),
    acme,
    stateDir: resolve(environment.read('STATE_DIR', parsePath) ?? '/etc/letsencrypt'),
    evidence: {
      serve: environment.read('EVIDENCE_SERVER', parseSwitch) ?? true,
      dir: resolve(environment.read('EVIDENCE_DIR', parsePath) ?? '/evidences'),
      agentEndpoint: environment.read('DSTACK_SIMULATOR_ENDPOINT', parseAgentEndpoint),
    },
    logLevel: environment.read('LOG_LEVEL', (text) => parseChoice(text, LOG_LEVELS)) ?? 'info',
    warnings: environment.warnings,
  };
  environment.read('DSTACK_INGRESS_NODE_INSIDES', checkInsides);
  refuseWildcards(environment, config);
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

function knownVariables(): Set<string> {
  const ours = settings.flatMap(({ name, aliases = [] }) => [name, ...aliases]);
  const credentials = providerKinds
    .flatMap(({ variables }) => variables)
    .flatMap(({ name, aliases = [] }) => [name, ...aliases]);
  const gone = [...retiredSettings, ...unsupportedSettings].map(({ name }) => name);
  return new Set([...ours, ...credentials, ...gone]);
}

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

function readTimeouts(environment: Environment): UpstreamTimeouts {
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

function readRoutesFile(path: string, readFile: ReadFile): RoutesFile {
  return { path: resolve(path), text: readNamedFile(path, readFile) };
}

function readNamedFile(path: string, readFile: ReadFile): string {
  try {
    return readFile(path);
  } catch (cause) {
    const { subject, cure } = unreadable(cause);
    throw new ValueError(`${quote(path)} ${subject}`, cure, { cause });
  }
}

function readPlan(
  environment: Environment,
  fixed: FixedRouting,
  routesFile: RoutesFile | undefined,
  nginx: NginxFolder,
): RoutingPlan {
  const fileRoutes = readFileRoutes(environment, fixed, routesFile);
  const { plan, problems } = planRouting(fixed, fileRoutes);
  // A domain or upstream that could not be read is one mistake: what follows from it is not told as another.
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

interface NginxFolder {
  readonly path: string;
  readonly files: readonly NginxFile[];
}

/** Where the 1.x images read nginx files from. */
const NGINX_CONF_DIR = '/etc/nginx/conf.d';

function readNginxFolder(environment: Environment, readFile: ReadFile, listFolder: ListFolder): NginxFolder {
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

function readListen(environment: Environment, alpn: readonly Alpn[]): ListenSettings {
  const proxyProtocol = environment.read(['PROXY_PROTOCOL', 'ACCEPT_PROXY_PROTOCOL'], parseSwitch) ?? false;
  const trusted = environment.read('TRUSTED_PROXIES', parseNetworks) ?? parseNetworks('private');
  if (!proxyProtocol && environment.has('TRUSTED_PROXIES')) {
    environment.warn('TRUSTED_PROXIES', 'does nothing: PROXY_PROTOCOL is off');
  }
  const forwarders = environment.read('TRUSTED_FORWARDERS', parseNetworks) ?? [];
  if (forwarders.some((block) => block.endsWith('/0'))) {
    environment.warn('TRUSTED_FORWARDERS', 'names every address: any visitor can claim to be any other');
  }
  return {
    host: environment.read('LISTEN_ADDRESS', parseHost),
    port: environment.read('PORT', parsePort) ?? 443,
    httpPort: environment.read('HTTP_PORT', parsePort),
    alpn,
    proxyProtocol,
    trustedProxies: proxyProtocol ? trusted : [],
    trustedForwarders: forwarders,
    limits: readLimits(environment),
  };
}

function readLimits(environment: Environment): Limits {
  const duration = (name: string, otherwise: number) => environment.read(name, parseDuration) ?? otherwise;
  const count = (name: string, most: number, otherwise: number) =>
    environment.read(name, (text) => parseCount(text, 1, most)) ?? otherwise;
  return {
    maxConnections: count('MAXCONN', 10_000_000, defaultLimits.maxConnections),
    handshakeTimeoutMs: duration('HANDSHAKE_TIMEOUT', defaultLimits.handshakeTimeoutMs),
    headerTimeoutMs: duration('HEADER_TIMEOUT', defaultLimits.headerTimeoutMs),
    clientIdleTimeoutMs: duration('TIMEOUT_CLIENT', defaultLimits.clientIdleTimeoutMs),
    keepAliveTimeoutMs: duration('KEEPALIVE_TIMEOUT', defaultLimits.keepAliveTimeoutMs),
    maxHeaderBytes: readHeaderSize(environment),
    maxHeaderCount: count('MAX_HEADER_COUNT', 2000, defaultLimits.maxHeaderCount),
    maxBodyBytes: environment.read('CLIENT_MAX_BODY_SIZE', parseBodyLimit) ?? defaultLimits.maxBodyBytes,
    maxConcurrentStreams: count('MAX_CONCURRENT_STREAMS', 10_000, defaultLimits.maxConcurrentStreams),
  };
}

/** nginx writes no limit as zero. */
function parseBodyLimit(text: string): number {
  return parseSize(text) || NO_LIMIT;
}

function readHeaderSize(environment: Environment): number {
  const size = environment.read(['MAX_HEADER_SIZE', 'PROXY_BUFFER_SIZE'], (text, name) => {
    const bytes = parseSize(text);
    // What is a small buffer in nginx would be a strict limit here.
    if (name === 'PROXY_BUFFER_SIZE' && bytes <= defaultLimits.maxHeaderBytes)
      return defaultLimits.maxHeaderBytes;
    if (bytes >= 1024 && bytes <= 1024 * 1024) return bytes;
    throw new ValueError(`${quote(text)} is out of range`, 'wants 1k to 1m');
  });
  return size ?? defaultLimits.maxHeaderBytes;
}

function parseAlpn(text: string): Alpn[] {
  const protocols = splitWords(text).map((word) => parseChoice(word, ['h2', 'http/1.1']));
  if (protocols.length === 0)
    throw new ValueError(`${quote(text)} names no protocol`, 'wants h2, http/1.1 or both');
  return [...new Set(protocols)];
}

function readDns(environment: Environment, challenge: AcmeSettings['challenge'], port: number): DnsSettings {
  const delegationZone = environment.read(['DELEGATION_ZONE', 'ACME_CHALLENGE_ALIAS'], parseZone);
  const delegated = environment.has('DELEGATION_ZONE') || environment.has('ACME_CHALLENGE_ALIAS');
  const setup = readSetup(environment, challenge, delegated);
  const writes = setup === 'auto' || delegated;
  if (challenge === 'dns-persist-01') warnOfDraft(environment, delegated);
  const gatewayDomain = environment.read('GATEWAY_DOMAIN', parseGatewayDomain);
  if (
    (setup !== 'print' || delegated || challenge === 'dns-persist-01') &&
    !environment.has('GATEWAY_DOMAIN')
  ) {
    environment.refuse(
      'GATEWAY_DOMAIN',
      'is not set',
      'wants the dstack gateway, as in gateway.dstack-prod5.phala.network',
    );
  }
  if (gatewayDomain?.startsWith('_.')) {
    environment.warn(
      'GATEWAY_DOMAIN',
      `${quote(gatewayDomain)}: Android and some DNS providers refuse an alias to a name with an underscore, use ${quote(gatewayDomain.replace('_', 'gateway'))}`,
    );
  }
  const setCaa = environment.read('SET_CAA', parseSwitch) ?? delegated;
  if (delegated && !setCaa) {
    environment.warn('SET_CAA', 'is off: whoever can write the delegation zone gets certificates');
  }
  return {
    setup,
    provider: readProvider(environment, { challenge, writes, setCaa }),
    webhook: readWebhook(environment, setup),
    delegationZone,
    gatewayDomain,
    publicPort: environment.read('PUBLIC_PORT', parsePort) ?? port,
    appId: environment.read('APP_ID', parseAppId),
    txtPrefix: environment.read('TXT_PREFIX', parseTxtPrefix) ?? '_dstack-app-address',
    setCaa,
    resolvers: environment.read('DNS_RESOLVERS', parseResolvers) ?? [],
    dohResolvers: environment.read('DOH_RESOLVERS', (text) => splitWords(text).map(parseHttpsUrl)) ?? [],
    propagationTimeoutMs: environment.read('DNS_SETUP_TIMEOUT', parseNginxTime) ?? 1_800_000,
    propagationIntervalMs: environment.read('DNS_SETUP_INTERVAL', parseNginxTime) ?? 15_000,
    settleMs: environment.read('DNS_SETTLE_SECONDS', parseSeconds) ?? 30_000,
  };
}

function warnOfDraft(environment: Environment, delegated: boolean): void {
  environment.warn(
    'CHALLENGE_TYPE',
    'dns-persist-01 is a draft: few CAs offer it, and its record may have to be made anew when the draft changes',
  );
  if (!delegated) return;
  environment.refuse(
    'DELEGATION_ZONE',
    'does not go with dns-persist-01',
    "take it away: the one record never changes, and is made once in the domains' own zones",
  );
}

function readSetup(
  environment: Environment,
  challenge: AcmeSettings['challenge'],
  delegated: boolean,
): DnsSetup {
  const setup = environment.read('DNS_SETUP_MODE', (text) =>
    parseChoice(text, ['auto', 'wait', 'print', 'webhook']),
  );
  if (delegated && setup === 'auto') {
    environment.refuse(
      'DNS_SETUP_MODE',
      'auto does not go with DELEGATION_ZONE',
      "the aliases in the domains' own zones are yours to make, wants wait, print or webhook",
    );
  }
  if (challenge === 'dns-01' && !delegated && setup !== undefined && setup !== 'auto') {
    environment.warn(
      'DNS_SETUP_MODE',
      `${setup}: only challenge records are written, the others are left to you`,
    );
  }
  return setup ?? (challenge === 'dns-01' && !delegated ? 'auto' : 'wait');
}

function readWebhook(environment: Environment, setup: DnsSetup): DnsSettings['webhook'] {
  const url = environment.read('DNS_WEBHOOK_URL', parseWebhookUrl);
  const token = environment.read('DNS_WEBHOOK_TOKEN', parseWebhookToken);
  if (setup !== 'webhook') {
    for (const name of ['DNS_WEBHOOK_URL', 'DNS_WEBHOOK_TOKEN']) {
      if (environment.has(name)) environment.warn(name, 'does nothing: DNS_SETUP_MODE is not webhook');
    }
    return undefined;
  }
  if (!environment.has('DNS_WEBHOOK_URL')) {
    environment.refuse(
      'DNS_WEBHOOK_URL',
      'is not set, but DNS_SETUP_MODE=webhook needs it',
      'wants the address of your service, as in https://dns.example.com/hook',
    );
  }
  return url === undefined ? undefined : { url, token };
}

/** What is sent is no secret and is signed, so plain HTTP to a container nearby is fair. Never quotes it: it may hold a key. */
function parseWebhookUrl(text: string): string {
  const url = URL.parse(text);
  if (url === null || !['https:', 'http:'].includes(url.protocol)) {
    throw new ValueError('is not a URL', 'wants https://… or http://…');
  }
  if (url.username !== '' || url.password !== '')
    throw new ValueError('holds a user name or password', 'wants a URL without');
  return url.href;
}

function parseWebhookToken(text: string): string {
  if (!/[\x00-\x1f\x7f]/.test(text)) return text;
  throw new ValueError('has a line break or another control character inside', 'wants one line of text');
}

interface ProviderNeeds {
  readonly challenge: AcmeSettings['challenge'];
  /** Whether records other than challenges are written through it. */
  readonly writes: boolean;
  readonly setCaa: boolean;
}

function readProvider(environment: Environment, needs: ProviderNeeds): DnsSettings['provider'] {
  const { challenge, writes } = needs;
  const choice = chooseProvider(environment.values);
  if (challenge !== 'dns-01' && !writes) {
    if (choice !== undefined) {
      environment.warn(
        'DNS_PROVIDER',
        'credentials are set but not used: DNS_SETUP_MODE=auto would use them',
      );
    }
    return undefined;
  }
  if (choice === undefined) {
    const required = providerKinds.flatMap((kind) => kind.variables.filter((one) => one.required));
    if (environment.isWrong('DNS_PROVIDER', ...required.map(({ name }) => name))) return undefined;
    const names = providerKinds.map(({ name }) => name).join(', ');
    const who = environment.has('DNS_SETUP_MODE') ? 'DNS_SETUP_MODE=auto' : 'DELEGATION_ZONE';
    environment.refuse(
      'DNS_PROVIDER',
      `${challenge === 'dns-01' ? 'dns-01' : who} needs a DNS provider`,
      `wants one of ${names}, and its credentials; CHALLENGE_TYPE=tls-alpn-01 needs none`,
    );
    return undefined;
  }
  if ('problems' in choice) {
    for (const { variable, subject, cure } of choice.problems) {
      if (!environment.isWrong(variable)) environment.refuse(variable, subject, cure);
    }
    return undefined;
  }
  return isUsable(environment, choice, needs) ? choice : undefined;
}

/** Making a provider contacts nothing, and tells whether its credentials can be right. */
function isUsable(
  environment: Environment,
  choice: NonNullable<DnsSettings['provider']>,
  needs: ProviderNeeds,
): boolean {
  const broken = Object.entries(choice.credentials).filter(([, value]) => /[\x00-\x1f\x7f]/.test(value));
  for (const [name] of broken)
    environment.refuse(name, 'has a line break or another control character inside', 'paste it as one line');
  if (broken.length > 0) return false;
  try {
    refuseIncapable(environment, choice.kind.create(choice.credentials), needs);
    return true;
  } catch (error) {
    if (!(error instanceof DnsError)) throw error;
    environment.refuse(
      error.variable ?? 'DNS_PROVIDER',
      error.subject,
      error.cure ?? 'see the table of settings',
    );
    return false;
  }
}

/** What a provider cannot do is said at start, and not when the first order is due. */
function refuseIncapable(environment: Environment, provider: DnsProvider, needs: ProviderNeeds): void {
  if (!needs.writes) return;
  if (provider.challengesOnly) {
    environment.refuse(
      environment.has('DELEGATION_ZONE') ? 'DELEGATION_ZONE' : 'DNS_SETUP_MODE',
      `${provider.name} can write challenges only`,
      'create the other records yourself, with DNS_SETUP_MODE=wait, print or webhook',
    );
  } else if (needs.setCaa && provider.plainCaaOnly) {
    environment.refuse(
      'SET_CAA',
      `${provider.name} cannot hold a CAA record that names an account`,
      'wants another provider, or SET_CAA=false',
    );
  }
}

/** A name that records can point at; unlike those in certificates it may have underscores. */
function parseGatewayDomain(text: string): string {
  const name = text.toLowerCase().replace(/\.$/, '');
  const labels = name.split('.');
  const sound = labels.every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label));
  if (sound && labels.length > 1 && name.length <= 253 && !/^[\d.]+$/.test(name)) return name;
  const unfilled = text === '_.' ? ' (was DSTACK_GATEWAY_DOMAIN empty?)' : '';
  throw new ValueError(
    `${quote(text)} is not a DNS name${unfilled}`,
    'wants one as in gateway.dstack-prod5.phala.network',
  );
}

function parseZone(text: string): string {
  const zone = text.toLowerCase().replace(/\.$/, '');
  const sound = zone.split('.').every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label));
  if (sound && zone.includes('.') && zone.length <= 253 && !/^[\d.]+$/.test(zone)) return zone;
  throw new ValueError(`${quote(text)} is not a DNS zone`, 'wants one as in delegated.example.net');
}

/** With "-wildcard" it still is one label of at most 63 (RFC 1035 §2.3.4). */
function parseTxtPrefix(text: string): string {
  if (/^[a-z0-9_-]{1,54}$/i.test(text)) return text.toLowerCase();
  throw new ValueError(
    `${quote(text)} is not one label of at most 54 letters, digits, hyphens and underscores`,
    'wants one as in _dstack-app-address',
  );
}

function parseAppId(text: string): string {
  if (/^[0-9a-f]{40}$/i.test(text)) return text.toLowerCase();
  throw new ValueError(`${quote(text)} is not an app id`, 'wants 40 hexadecimal digits');
}

function parseResolvers(text: string): string[] {
  return splitWords(text).map((word) => {
    const { host, port } = parseAddress(word, 53);
    return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  });
}

function readAcme(environment: Environment, readFile: ReadFile): AcmeSettings {
  const staging = environment.read(['ACME_STAGING', 'CERTBOT_STAGING'], parseSwitch) ?? false;
  const url = environment.read('ACME_DIRECTORY_URL', parseHttpsUrl);
  if (staging && url !== undefined && url !== letsEncrypt.staging) {
    environment.refuse(
      'ACME_STAGING',
      'ACME_DIRECTORY_URL names another directory',
      'wants one of the two unset',
    );
  }
  return {
    directoryUrl: url ?? (staging ? letsEncrypt.staging : letsEncrypt.production),
    ca: environment.read('ACME_CA_FILE', (path) => readRoots(path, readFile)),
    email: environment.read(['ACME_EMAIL', 'CERTBOT_EMAIL'], parseEmail),
    staging,
    profile: environment.read('ACME_PROFILE', parseProfile),
    eab: readEab(environment),
    challenge: environment.read('CHALLENGE_TYPE', (text) => parseChoice(text, CHALLENGE_TYPES)) ?? 'dns-01',
    accountKey: environment.read('ACME_ACCOUNT_KEY', (text) => parseChoice(text, ['file', 'kms'])) ?? 'file',
    renewIntervalMs: environment.read('RENEW_INTERVAL', parseNginxTime) ?? DAY_MS / 2,
    renewDaysBefore: environment.read('RENEW_DAYS_BEFORE', (text) => parseCount(text, 1, 365)),
  };
}

const CHALLENGE_TYPES = ['dns-01', 'tls-alpn-01', 'http-01', 'dns-persist-01'] as const;

function readEab(environment: Environment): AcmeSettings['eab'] {
  const kid = environment.read('ACME_EAB_KID', (text) => text);
  const hmacKey = environment.read('ACME_EAB_HMAC_KEY', parseHmacKey);
  for (const [name, other] of [
    ['ACME_EAB_KID', 'ACME_EAB_HMAC_KEY'],
    ['ACME_EAB_HMAC_KEY', 'ACME_EAB_KID'],
  ] as const) {
    if (environment.has(other) && !environment.has(name))
      environment.refuse(name, `is not set, but ${other} is`, 'the CA gave you both: wants both or neither');
  }
  return kid === undefined || hmacKey === undefined ? undefined : { kid, hmacKey };
}

/** RFC 8555 §7.3.4: the CA hands it out as base64url. Some print it with padding, or with plain base64's letters. */
function parseHmacKey(text: string): string {
  const key = text.replace(/=+$/, '').replaceAll('+', '-').replaceAll('/', '_');
  if (/^[A-Za-z0-9_-]{16,}$/.test(key)) return key;
  throw new ValueError('is not a key in base64url', 'wants it as the CA gave it, at least 16 characters');
}

function parseEmail(text: string): string {
  const address = text.replace(/^mailto:/i, '');
  if (/^[^\s@,<>?]+@[^\s@,<>?]+$/.test(address)) return address;
  throw new ValueError(`${quote(text)} is not one e-mail address`, 'wants one as in ops@example.com');
}

function parseProfile(text: string): string {
  if (/^[\w.-]{1,64}$/.test(text)) return text;
  throw new ValueError(
    `${quote(text)} is not a profile name`,
    "wants one of the CA's directory, as in shortlived",
  );
}

function readRoots(path: string, readFile: ReadFile): string {
  const pem = readNamedFile(path, readFile);
  const blocks = splitChain(pem);
  if (blocks.length > 0 && blocks.every(isCertificate)) return pem;
  throw new ValueError(`${quote(path)} does not hold certificates`, 'wants a PEM file of roots');
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).raw.length > 0;
  } catch {
    return false;
  }
}

function parsePath(text: string): string {
  if (!text.includes('\0')) return text;
  throw new ValueError('is not a path', 'wants one without NUL characters');
}

/** What the agent's SDK takes: a socket's path or a URL. */
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

/** RFC 8737 §3, RFC 8555 §8.3 and §7.1.3: what proves single names. */
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
