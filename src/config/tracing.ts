// Traces: whether requests are recorded as spans, which of them, and the collector that they go to; by OpenTelemetry's own names.

import { readShownQueries } from './access-log.ts';
import type { Environment } from './environment.ts';
import { type ReadFile, readRoots } from './files.ts';
import { parseChoice, parseCount, parseFraction, quote, ValueError } from './values.ts';

export interface TracingConfig {
  /** See Sampling of proxy/exchange/tracing.ts. */
  readonly followsParent: boolean;
  readonly ratio: number;
  /** What spans show of queries; undefined: nothing. */
  readonly query: { readonly redact: readonly string[] } | undefined;
  readonly collector: CollectorSettings;
  /** What all spans say of this program: names and values, `service.name` among them. */
  readonly resource: ReadonlyMap<string, string>;
}

export interface CollectorSettings {
  /** Where spans are posted, whole. */
  readonly url: string;
  readonly encoding: 'json' | 'protobuf';
  /** Secret. */
  readonly headers: Readonly<Record<string, string>>;
  readonly gzip: boolean;
  readonly timeoutMs: number;
  /** PEM: trusted in the place of the public roots. */
  readonly ca: string | undefined;
}

/** What OpenTelemetry's SDKs know, but for the samplers that ask a server of their maker's. */
const samplers = {
  always_on: { followsParent: false, ratio: () => 1 },
  always_off: { followsParent: false, ratio: () => 0 },
  traceidratio: { followsParent: false, ratio: (given: number) => given },
  parentbased_always_on: { followsParent: true, ratio: () => 1 },
  parentbased_always_off: { followsParent: true, ratio: () => 0 },
  parentbased_traceidratio: { followsParent: true, ratio: (given: number) => given },
} as const;
type Sampler = keyof typeof samplers;

const DEFAULT_TIMEOUT_MS = 10_000;
const PATH_OF_TRACES = 'v1/traces';
/** Each is set for all that OpenTelemetry sends, or for traces alone. */
const both = (name: string) => [`OTEL_EXPORTER_OTLP_TRACES_${name}`, `OTEL_EXPORTER_OTLP_${name}`];

const ENDPOINTS = ['OTEL_EXPORTER_OTLP_ENDPOINT', 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'];
const DEPENDENT = [
  ...['HEADERS', 'PROTOCOL', 'TIMEOUT', 'CERTIFICATE', 'COMPRESSION'].flatMap(both),
  ...['OTEL_TRACES_SAMPLER', 'OTEL_TRACES_SAMPLER_ARG', 'OTEL_SERVICE_NAME', 'OTEL_RESOURCE_ATTRIBUTES'],
];

/** Undefined: nothing is recorded, and traces pass as they come. */
export function readTracing(environment: Environment, readFile: ReadFile): TracingConfig | undefined {
  if (!ENDPOINTS.some((name) => environment.has(name))) {
    // Not read: what else is set may be meant for the apps beside the ingress.
    for (const name of DEPENDENT)
      if (environment.has(name))
        environment.warn(name, 'does nothing: OTEL_EXPORTER_OTLP_ENDPOINT is not set');
    return undefined;
  }
  const { query, redact } = readShownQueries(environment);
  const sampling = readSampling(environment);
  const resource = readResource(environment);
  const collector = readCollector(environment, readFile);
  return collector && { ...sampling, query: query ? { redact } : undefined, collector, resource };
}

function readSampling(environment: Environment): Pick<TracingConfig, 'followsParent' | 'ratio'> {
  const sampler = environment.read('OTEL_TRACES_SAMPLER', parseSampler) ?? 'parentbased_always_on';
  const given = environment.read('OTEL_TRACES_SAMPLER_ARG', parseFraction) ?? 1;
  const { followsParent, ratio } = samplers[sampler];
  return { followsParent, ratio: ratio(given) };
}

function readResource(environment: Environment): ReadonlyMap<string, string> {
  const attributes = environment.read('OTEL_RESOURCE_ATTRIBUTES', parsePairs) ?? [];
  const name = environment.read('OTEL_SERVICE_NAME', (text) => text);
  const named = new Map([['service.name', 'dstack-ingress'], ...attributes]);
  return name === undefined ? named : named.set('service.name', name);
}

function readCollector(environment: Environment, readFile: ReadFile): CollectorSettings | undefined {
  const base = environment.read('OTEL_EXPORTER_OTLP_ENDPOINT', parseEndpoint);
  const exact = environment.read('OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', parseEndpoint);
  const protocol = environment.read(both('PROTOCOL'), parseProtocol) ?? 'http/json';
  const headers = environment.read(both('HEADERS'), parseHeaders) ?? [];
  const compression = environment.read(both('COMPRESSION'), (text) => parseChoice(text, ['gzip', 'none']));
  const timeoutMs = environment.read(both('TIMEOUT'), (text) => parseCount(text, 1, 600_000));
  const ca = environment.read(both('CERTIFICATE'), (path) => readRoots(path, readFile));
  const url = exact?.href ?? (base && underBase(base));
  if (url === undefined) return undefined;
  if (ca !== undefined && url.startsWith('http:'))
    environment.warn('OTEL_EXPORTER_OTLP_CERTIFICATE', 'does nothing: the endpoint is http://');
  return {
    url,
    encoding: protocol === 'http/protobuf' ? 'protobuf' : 'json',
    headers: Object.fromEntries(headers),
    gzip: compression === 'gzip',
    timeoutMs: timeoutMs ?? DEFAULT_TIMEOUT_MS,
    ca,
  };
}

function parseEndpoint(text: string): URL {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol))
    throw new ValueError(
      `${quote(text)} is no http:// or https:// URL`,
      'wants one as in http://collector:4318',
    );
  if (url.username !== '' || url.password !== '')
    throw new ValueError('holds a user name or password', 'put them into OTEL_EXPORTER_OTLP_HEADERS');
  if (url.port === '4317')
    throw new ValueError(
      'names port 4317, where collectors speak gRPC',
      'wants the one of OTLP over HTTP, which is 4318 as a rule',
    );
  url.hash = '';
  return url;
}

/** The specification: the path is added, whatever path there is. */
function underBase(url: URL): string {
  const under = new URL(url);
  under.pathname = `${url.pathname.replace(/\/$/, '')}/${PATH_OF_TRACES}`;
  return under.href;
}

function parseSampler(text: string): Sampler {
  return parseChoice(text, Object.keys(samplers) as Sampler[]);
}

function parseProtocol(text: string) {
  if (text.toLowerCase() === 'grpc')
    throw new ValueError(
      'grpc is not spoken',
      'wants http/json or http/protobuf, and the port of OTLP over HTTP in the endpoint (4318)',
    );
  return parseChoice(text, ['http/json', 'http/protobuf']);
}

/** `name=value,other=value`, values percent-encoded (W3C Baggage, without properties). Quotes nothing: it may be secret. */
function parsePairs(text: string): [name: string, value: string][] {
  return text
    .split(',')
    .map((pair) => pair.trim())
    .filter((pair) => pair !== '')
    .map((pair, index) => {
      const equals = pair.indexOf('=');
      const name = pair.slice(0, equals).trim();
      if (equals < 1 || name === '')
        throw new ValueError(`item ${index + 1} has no name before a =`, 'wants name=value,name=value');
      return [decoded(name), decoded(pair.slice(equals + 1).trim())];
    });
}

/** What the request says of itself. */
const NOT_OURS = new Set(['content-type', 'content-length', 'content-encoding', 'host', 'connection']);

function parseHeaders(text: string): [name: string, value: string][] {
  return parsePairs(text).map(([name, value], index) => {
    if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/i.test(name) || NOT_OURS.has(name.toLowerCase()))
      throw new ValueError(`item ${index + 1} is no header that can be set`, 'wants name=value,name=value');
    if (!/^[\t\x20-\x7e]*$/.test(value))
      throw new ValueError(`item ${index + 1} has a value that no header carries`, 'wants visible ASCII');
    return [name.toLowerCase(), value];
  });
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new ValueError('has a % that begins no escape', 'write %25 for it');
  }
}
