// The forms of a line of the access log: our own JSON, Caddy's, the Elastic Common Schema, and the common log format.

import { type Address, authorityOf } from '../rules/routes.ts';
import { type AccessEntry, type AccessLogOptions, isTrouble } from './access-entry.ts';
import { createQueryRedaction } from './access-redaction.ts';
import { loggedTarget } from './logged.ts';

/** `ms`: the date, in milliseconds since 1970; `endedAt`: in the time of `entry.startedAt`. ASCII, its line end included. */
export type LineWriter = (entry: AccessEntry, ms: number, endedAt: number) => string;

export function createLineWriter(options: AccessLogOptions): LineWriter {
  const shape = { queryOf: createQuery(options), sample: options.sample };
  switch (options.format) {
    case 'json':
      return jsonWriter(shape);
    case 'caddy':
      return caddyWriter(shape);
    case 'ecs':
      return ecsWriter(shape);
    case 'common':
      return commonWriter(shape);
  }
}

interface Shape {
  /** Without a question mark; empty: there is none, or none is shown. */
  readonly queryOf: (target: string) => string;
  readonly sample: number;
}

function createQuery(options: AccessLogOptions): Shape['queryOf'] {
  if (!options.query) return () => '';
  const redacted = createQueryRedaction(options);
  return (target) => {
    const at = target.indexOf('?');
    return at === -1 ? '' : redacted(target.slice(at + 1));
  };
}

/*
 * Of one text once it is escaped, so that with all of them this long a line still fits into one write: see LONGEST_WRITE of
 * access-log.ts.
 */
const LONGEST = {
  method: 64,
  host: 260,
  path: 1_300,
  query: 500,
  route: 200,
  userAgent: 300,
  headers: 400,
} as const;

// --- Our own ---

/** Of consecutive lines, what is often the same: each is put together once. */
interface Repeated {
  clientAddress: string;
  client: string;
  method: string;
  host: string;
  methodAndHost: string;
  upstream: Address | undefined;
  upstreamText: string;
  route: string;
  tlsVersion: string;
  userAgent: string;
  circumstances: string;
}

function jsonWriter({ queryOf, sample }: Shape): LineWriter {
  const timeOf = createIsoTime();
  const sampled = sample < 1 ? `,"sample":${sample}` : '';
  const repeated: Repeated = {
    clientAddress: '',
    client: '',
    method: '',
    host: '',
    methodAndHost: '',
    upstream: undefined,
    upstreamText: '',
    route: '',
    tlsVersion: '',
    userAgent: '',
    circumstances: '',
  };
  return (entry, ms, endedAt) => {
    note(entry, repeated);
    const path = loggedTarget(entry.target);
    const query = queryOf(entry.target);
    const level = isTrouble(entry) ? 'warn' : 'info';
    let line = `{"time":"${timeOf(ms)}","level":"${level}","msg":"access${repeated.client}${entry.protocol}"${repeated.methodAndHost}`;
    if (path !== '') line += `,"path":${quoted(path, LONGEST.path)}`;
    if (query !== '') line += `,"query":${quoted(query, LONGEST.query)}`;
    line += outcome(entry);
    line += times(entry, endedAt, repeated.upstreamText);
    line += repeated.circumstances;
    line += identity(entry);
    if (entry.fault === undefined && level === 'info') line += sampled;
    return `${line}}\n`;
  };
}

function outcome({ status, grpcStatus, received, sent }: AccessEntry): string {
  const replied = status === 0 ? '' : `,"status":${status}`;
  const grpc = grpcStatus === -1 ? '' : `,"grpcStatus":${grpcStatus}`;
  return `${replied}${grpc},"received":${received},"sent":${sent}`;
}

function times(entry: AccessEntry, endedAt: number, upstreamText: string): string {
  const { startedAt, replyAt, upstreamAt, attempts } = entry;
  let text = `,"durationMs":${inMs(endedAt - startedAt)}`;
  if (replyAt !== 0) text += `,"firstByteMs":${inMs(replyAt - startedAt)}`;
  text += upstreamText;
  if (upstreamAt !== 0) text += `,"upstreamMs":${inMs(upstreamMs(entry, endedAt))}`;
  return attempts > 1 ? `${text},"retries":${attempts - 1}` : text;
}

function identity(entry: AccessEntry): string {
  const { id, traceparent, shownHeaders, fault } = entry;
  let text = id === '' ? '' : `,"id":"${id}"`;
  if (traceparent !== '') text += `,"traceparent":"${traceparent.slice(0, 55)}"`;
  if (shownHeaders !== undefined)
    text += `,"headers":{${headerMembers(entry)
      .map((member) => member.join(':'))
      .join(',')}}`;
  return fault === undefined ? text : `${text},"fault":"${fault}"`;
}

function note(entry: AccessEntry, repeated: Repeated): void {
  const { clientAddress, method, host, upstream, tlsVersion, userAgent } = entry;
  const route = entry.match?.route ?? '';
  if (clientAddress !== repeated.clientAddress) {
    repeated.clientAddress = clientAddress;
    repeated.client = `","client":"${clientAddress}","protocol":"`;
  }
  if (method !== repeated.method || host !== repeated.host) {
    repeated.method = method;
    repeated.host = host;
    const methodText = method === '' ? '' : `,"method":${quoted(method, LONGEST.method)}`;
    repeated.methodAndHost = host === '' ? methodText : `${methodText},"host":${quoted(host, LONGEST.host)}`;
  }
  if (upstream !== repeated.upstream) {
    repeated.upstream = upstream;
    repeated.upstreamText = upstream === undefined ? '' : `,"upstream":"${upstream.host}:${upstream.port}"`;
  }
  if (route === repeated.route && tlsVersion === repeated.tlsVersion && userAgent === repeated.userAgent)
    return;
  repeated.route = route;
  repeated.tlsVersion = tlsVersion;
  repeated.userAgent = userAgent;
  const routeText = route === '' ? '' : `,"route":${quoted(route, LONGEST.route)}`;
  const tlsText = tlsVersion === '' ? '' : `,"tls":"${tlsVersion}"`;
  const agentText = userAgent === '' ? '' : `,"userAgent":${quoted(userAgent, LONGEST.userAgent)}`;
  repeated.circumstances = routeText + tlsText + agentText;
}

/** From when the upstream was had until it began to answer, or until the end. */
function upstreamMs({ replyAt, upstreamAt }: AccessEntry, endedAt: number): number {
  return (replyAt === 0 ? endedAt : replyAt) - upstreamAt;
}

/** So many of them as there is room for: JSON, names and values escaped. */
function headerMembers({ shownHeaders = [] }: AccessEntry): [name: string, value: string][] {
  let left = LONGEST.headers;
  const members: [string, string][] = [];
  for (const [name, value] of shownHeaders) {
    const member: [string, string] = [quoted(name, 100), quoted(value, 200)];
    left -= member[0].length + member[1].length + 30;
    if (left < 0) break;
    members.push(member);
  }
  return members;
}

// --- Caddy's, which log analysers read ---

function caddyWriter({ queryOf }: Shape): LineWriter {
  return (entry, ms, endedAt) => {
    const { clientAddress, method, host, target, status, received, sent, id } = entry;
    const level = isTrouble(entry) ? 'error' : 'info';
    const headers = [
      entry.userAgent === '' ? '' : `"User-Agent":[${quoted(entry.userAgent, LONGEST.userAgent)}]`,
      ...headerMembers(entry).map(([name, value]) => `${name}:[${value}]`),
    ].filter((part) => part !== '');
    const query = queryOf(target);
    const uri = query === '' ? loggedTarget(target) : `${loggedTarget(target)}?${query}`;
    const request = [
      `"remote_ip":"${clientAddress}","client_ip":"${clientAddress}","proto":"${httpOf(entry)}"`,
      `"method":${quoted(method, LONGEST.method)},"host":${quoted(host, LONGEST.host)}`,
      `"uri":${quoted(uri, LONGEST.path)},"headers":{${headers.join(',')}}`,
      ...(entry.tlsVersion === ''
        ? []
        : [`"tls":{"version":${tlsNumber(entry.tlsVersion)},"proto":"${alpnOf(entry)}"}`]),
    ].join(',');
    const named = id === '' ? '' : `,"request_id":"${id}"`;
    const failed = entry.fault === undefined ? '' : `,"error":"${entry.fault}"`;
    return (
      `{"level":"${level}","ts":${(ms / 1_000).toFixed(3)},"logger":"http.log.access","msg":"handled request",` +
      `"request":{${request}},"bytes_read":${received},"user_id":"",` +
      `"duration":${seconds(endedAt - entry.startedAt)},` +
      `"size":${sent},"status":${status},"resp_headers":{}${named}${failed}}\n`
    );
  };
}

function seconds(ms: number): string {
  return (Math.max(0, ms) / 1_000).toFixed(6);
}

function httpOf({ protocol }: AccessEntry): string {
  if (protocol === 'tcp') return 'TCP';
  return protocol === 'h2' ? 'HTTP/2.0' : 'HTTP/1.1';
}

function alpnOf({ protocol }: AccessEntry): string {
  return protocol === 'h2' ? 'h2' : protocol === 'tcp' ? '' : 'http/1.1';
}

/** RFC 8446 §4.2.1: 0x0304 is TLS 1.3. */
function tlsNumber(version: string): number {
  return 0x0300 + 1 + Number(/^TLSv1\.(\d)$/.exec(version)?.[1] ?? 0);
}

// --- Elastic Common Schema ---

function ecsWriter({ queryOf }: Shape): LineWriter {
  const timeOf = createIsoTime();
  return (entry, ms, endedAt) => {
    const trouble = isTrouble(entry);
    const fields: [name: string, value: string][] = [
      ['@timestamp', `"${timeOf(ms)}"`],
      ['log.level', trouble ? '"warn"' : '"info"'],
      ['message', '"access"'],
      ['ecs.version', '"8.11.0"'],
      ['event.dataset', '"dstack_ingress.access"'],
      ['event.category', '["web"]'],
      ['event.outcome', trouble || entry.status >= 400 ? '"failure"' : '"success"'],
      ['event.duration', String(Math.max(0, Math.round((endedAt - entry.startedAt) * 1_000_000)))],
      ['client.ip', `"${entry.clientAddress}"`],
      ['network.protocol', entry.protocol === 'tcp' ? '"tls"' : '"http"'],
      ['http.request.body.bytes', String(entry.received)],
      ['http.response.body.bytes', String(entry.sent)],
      ...optional(
        'http.version',
        entry.protocol === 'tcp' ? '' : httpOf(entry).slice(5).replace('2.0', '2'),
        8,
      ),
      ...optional('http.request.method', entry.method, LONGEST.method),
      ...optional('http.request.id', entry.id, 128),
      ...optional('url.domain', entry.host, LONGEST.host),
      ...optional('url.path', loggedTarget(entry.target), LONGEST.path),
      ...optional('url.query', queryOf(entry.target), LONGEST.query),
      ...optional('user_agent.original', entry.userAgent, LONGEST.userAgent),
      ...optional('tls.version', entry.tlsVersion.replace('TLSv', ''), 8),
      ...optional('trace.id', entry.traceparent.slice(3, 35), 32),
      ...optional('rule.name', entry.match?.route ?? '', LONGEST.route),
      ...optional('error.code', entry.fault ?? '', 64),
    ];
    if (entry.status !== 0) fields.push(['http.response.status_code', String(entry.status)]);
    if (entry.upstream !== undefined)
      fields.push(['destination.address', `"${authorityOf(entry.upstream)}"`]);
    for (const [name, value] of headerMembers(entry))
      fields.push([`http.request.headers.${name.slice(1, -1)}`, value]);
    return `{${fields.map(([name, value]) => `"${name}":${value}`).join(',')}}\n`;
  };
}

function optional(name: string, text: string, longest: number): [string, string][] {
  return text === '' ? [] : [[name, quoted(text, longest)]];
}

// --- The common log format, with the referrer, if it is among the headers that are shown, and the user agent ---

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

function commonWriter({ queryOf }: Shape): LineWriter {
  return (entry, ms) => {
    const { clientAddress, method, target, status, sent, userAgent } = entry;
    const query = queryOf(target);
    const uri = query === '' ? loggedTarget(target) : `${loggedTarget(target)}?${query}`;
    const line = method === '' ? '-' : `${method} ${uri} ${httpOf(entry)}`;
    const agent = userAgent === '' ? '"-"' : quoted(userAgent, LONGEST.userAgent);
    const referrer = entry.shownHeaders?.find(([name]) => name === 'referer')?.[1] ?? '-';
    return (
      `${clientAddress || '-'} - - [${commonTime(ms)}] ${quoted(line, LONGEST.path + LONGEST.query)} ` +
      `${status === 0 ? '-' : status} ${sent} ${quoted(referrer, LONGEST.headers)} ${agent}\n`
    );
  };
}

function commonTime(ms: number): string {
  const [date = '', time = ''] = new Date(ms).toISOString().split('T');
  const [year, month, day] = date.split('-');
  return `${day}/${MONTHS[Number(month) - 1]}/${year}:${time.slice(0, 8)} +0000`;
}

// --- Texts ---

function createIsoTime(): (ms: number) => string {
  let lastMs = Number.NaN;
  let lastTime = '';
  return (ms) => {
    if (ms !== lastMs) {
      lastMs = ms;
      lastTime = new Date(ms).toISOString();
    }
    return lastTime;
  };
}

const FRACTIONS = Array.from({ length: 1_000 }, (_, index) =>
  index === 0 ? '' : `${index / 1_000}`.slice(1),
);

/** With three decimals at most. V8 remembers the texts of small whole numbers, but makes those of others anew. */
function inMs(ms: number): string {
  const rounded = Math.max(0, Math.round(ms * 1_000));
  return `${Math.floor(rounded / 1_000)}${FRACTIONS[rounded % 1_000]}`;
}

// Visible ASCII and the space, but for the two that JSON escapes.
const PLAIN = /^[ !#-[\]-~]*$/;

/** A JSON string in ASCII: what is not plain would be for terminals, or for readers of other encodings, to act upon. */
function quoted(text: string, longest: number): string {
  if (text.length <= longest && PLAIN.test(text)) return `"${text}"`;
  let escaped = '';
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!;
    const code = text.charCodeAt(i);
    const piece =
      code < 32 || code > 126
        ? `\\u${code.toString(16).padStart(4, '0')}`
        : char === '"' || char === '\\'
          ? `\\${char}`
          : char;
    if (escaped.length + piece.length > longest - 3) return `"${escaped}..."`;
    escaped += piece;
  }
  return `"${escaped}"`;
}
