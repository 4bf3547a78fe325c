// Every variable that a request has by itself, each looked up only when a rule asks for it.

import { hostname } from 'node:os';
import { percent } from './bytes.ts';
import type { ClientCertificate, Fields, Run, Value } from './compiled.ts';

/** Whether a name needs nobody to define it. */
export function isBuiltIn(name: string): boolean {
  return builtIns[name] !== undefined || families.some(([prefix]) => isOf(prefix, name));
}

/** Names for the reader that tells what was meant by an unknown one. */
export const builtInNames = (): readonly string[] => Object.keys(builtIns);

/** Undefined: there is no such variable. */
export function builtIn(name: string): Value | undefined {
  if (/^[1-9]$/.test(name)) return capture(Number(name));
  const known = builtIns[name];
  if (known !== undefined) return known;
  for (const [prefix, make] of families) if (isOf(prefix, name)) return make(name.slice(prefix.length));
  return undefined;
}

function isOf(prefix: string, name: string): boolean {
  return name.startsWith(prefix) && name.length > prefix.length;
}

function capture(number: number): Value {
  return (run) => run.captures[number] ?? '';
}

/** Whether X-Forwarded-For and Cookie lines are joined by what joins lists or by what joins cookies. */
function joined(fields: Fields, name: string): string {
  const all = fields.all(name);
  if (all.length === 0) return '';
  return all.length === 1 ? all[0]! : all.join(name === 'cookie' ? '; ' : ', ');
}

const families: readonly (readonly [prefix: string, make: (rest: string) => Value])[] = [
  ['http_', (rest) => ofRequest(dashed(rest))],
  ['arg_', (rest) => (run) => argument(run.args, rest) ?? ''],
  ['cookie_', (rest) => (run) => cookie(run.facts.headers, rest)],
  ['upstream_http_', (rest) => ofReply(dashed(rest))],
  ['upstream_cookie_', (rest) => (run) => (run.reply === undefined ? '' : setCookie(run.reply.fields, rest))],
  ['sent_http_', (rest) => ofSent(dashed(rest))],
];

function dashed(name: string): string {
  return name.replaceAll('_', '-');
}

function ofRequest(name: string): Value {
  // HTTP/2 has no Host, and an absolute form overrules it.
  if (name === 'host') return (run) => run.facts.host;
  const underscored = name.replaceAll('-', '_');
  return (run) => {
    const { headers } = run.facts;
    const value = joined(headers, name);
    return value === '' && run.site.underscoresInHeaders ? joined(headers, underscored) : value;
  };
}

function ofReply(name: string): Value {
  return (run) => (run.reply === undefined ? '' : joined(run.reply.fields, name));
}

function ofSent(name: string): Value {
  return (run) => {
    const own = [...run.told, ...run.sent].filter((field) => field.name.toLowerCase() === name);
    if (own.length > 0) return own.map(({ value }) => value).join(', ');
    return run.reply === undefined ? '' : joined(run.reply.fields, name);
  };
}

/** The first value of that name, as sent; names ignore case. Undefined: there is none. */
export function argument(args: string, name: string): string | undefined {
  let start = 0;
  while (start < args.length) {
    const amp = args.indexOf('&', start);
    const end = amp < 0 ? args.length : amp;
    const equals = start + name.length;
    if (args[equals] === '=' && equals < end && args.slice(start, equals).toLowerCase() === name)
      return args.slice(equals + 1, end);
    start = end + 1;
  }
  return undefined;
}

/** The first cookie of that name; names ignore case, as in nginx. */
export function cookie(headers: Fields, name: string): string {
  for (const line of headers.all('cookie')) {
    for (const pair of line.split(';')) {
      const equals = pair.indexOf('=');
      if (equals > 0 && pair.slice(0, equals).trim().toLowerCase() === name)
        return pair.slice(equals + 1).trim();
    }
  }
  return '';
}

function setCookie(fields: Fields, name: string): string {
  for (const line of fields.all('set-cookie')) {
    const equals = line.indexOf('=');
    if (equals > 0 && line.slice(0, equals).toLowerCase() === name)
      return line.slice(equals + 1).split(';', 1)[0]!;
  }
  return '';
}

function ofCertificate(read: (certificate: ClientCertificate) => string): Value {
  return (run) => {
    const certificate = run.facts.tls?.client;
    return certificate === undefined ? '' : read(certificate);
  };
}

const contentType = ofRequest('content-type');

const builtIns: Readonly<Record<string, Value>> = {
  __proto__: null as never,
  host: (run) => run.host,
  hostname: () => hostname().toLowerCase(),
  request_uri: (run) => run.facts.target,
  uri: (run) => run.uri,
  document_uri: (run) => run.uri,
  args: (run) => run.args,
  query_string: (run) => run.args,
  is_args: (run) => (run.args === '' ? '' : '?'),
  request_method: (run) => (run.asker ?? run).method,
  request: ({ facts }) => `${facts.method} ${facts.target} ${facts.protocol}`,
  request_length: ({ facts }) => String(facts.headerBytes),
  request_id: (run) => run.facts.requestId(),
  request_time: (run) => ((Date.now() - run.facts.startedAt) / 1000).toFixed(3),
  request_completion: () => '',
  request_filename: fileName,
  document_root: (run) => run.place.settings.files.root?.path(run) ?? '',
  realpath_root: (run) => run.place.settings.files.root?.path(run) ?? '',
  scheme: (run) => run.facts.scheme,
  https: (run) => (run.facts.scheme === 'https' ? 'on' : ''),
  server_name: (run) => run.site.label,
  server_port: (run) => String(run.facts.serverPort),
  server_addr: (run) => run.facts.serverAddress,
  server_protocol: (run) => run.facts.protocol,
  http2: (run) => (run.facts.protocol === 'HTTP/2.0' ? 'h2' : ''),
  remote_addr: (run) => run.client,
  binary_remote_addr: (run) => run.client,
  remote_port: (run) => String(run.facts.clientPort),
  remote_user: (run) => run.user,
  realip_remote_addr: (run) => run.facts.clientAddress,
  realip_remote_port: (run) => String(run.facts.clientPort),
  proxy_protocol_addr: (run) => run.facts.clientAddress,
  proxy_protocol_port: (run) => String(run.facts.clientPort),
  proxy_add_x_forwarded_for: (run) => {
    const { headers } = run.facts;
    if (headers.all('x-forwarded-for').length === 0) return run.client;
    return `${joined(headers, 'x-forwarded-for')}, ${run.client}`;
  },
  proxy_host: (run) => run.proxyHost,
  proxy_port: (run) => /:(\d+)$/.exec(run.proxyHost)?.[1] ?? '80',
  content_type: contentType,
  content_length: ({ facts }) => (facts.contentLength < 0 ? '' : String(facts.contentLength)),
  connection: (run) => String(run.facts.connection),
  connection_requests: (run) => String(run.facts.connectionRequests),
  limit_rate: () => '0',
  nginx_version: () => '1.27.0',
  pid: () => String(process.pid),
  msec: () => (Date.now() / 1000).toFixed(3),
  time_iso8601: () => `${new Date().toISOString().slice(0, 19)}+00:00`,
  time_local: timeLocal,
  status: (run) => (run.status === 0 ? '000' : String(run.status)),
  body_bytes_sent: () => '0',
  bytes_sent: () => '0',
  upstream_addr: (run) => run.reply?.addresses ?? '',
  upstream_status: (run) => (run.reply === undefined ? '' : (run.reply.statuses ?? String(run.reply.status))),
  upstream_response_time: upstreamSeconds,
  upstream_header_time: upstreamSeconds,
  upstream_cache_status: () => '',
  ssl_protocol: (run) => run.facts.tls?.protocol ?? '',
  ssl_cipher: (run) => run.facts.tls?.cipher ?? '',
  ssl_server_name: (run) => run.facts.tls?.serverName ?? '',
  ssl_session_reused: (run) => (run.facts.tls === undefined ? '' : run.facts.tls.resumed ? 'r' : '.'),
  ssl_client_verify: (run) => (run.facts.tls === undefined ? '' : (run.facts.tls.client?.verify ?? 'NONE')),
  ssl_client_s_dn: ofCertificate((certificate) => certificate.subject),
  ssl_client_i_dn: ofCertificate((certificate) => certificate.issuer),
  ssl_client_serial: ofCertificate((certificate) => certificate.serial),
  ssl_client_fingerprint: ofCertificate((certificate) => certificate.fingerprint),
  ssl_client_v_start: ofCertificate((certificate) => certificate.validFrom),
  ssl_client_v_end: ofCertificate((certificate) => certificate.validTo),
  ssl_client_v_remain: ofCertificate(({ validTo }) =>
    String(Math.max(0, Math.floor((Date.parse(validTo) - Date.now()) / 86_400_000))),
  ),
  ssl_client_raw_cert: ofCertificate((certificate) => certificate.certificate),
  ssl_client_cert: ofCertificate((certificate) => certificate.certificate.trim().replaceAll('\n', '\n\t')),
  ssl_client_escaped_cert: ofCertificate(({ certificate }) =>
    certificate.replaceAll(/[^A-Za-z0-9\-._~]/g, (byte) => percent[byte.charCodeAt(0)]!),
  ),
};

/** Where the URI is on disk: below the root, or in the place of what the location matched. */
export function fileName(run: Run): string {
  const { root } = run.place.settings.files;
  if (root === undefined) return '';
  const path = root.path(run);
  if (!root.alias) return path + run.uri;
  return run.place.kind === 'pattern' ? path : path + run.uri.slice(run.place.path.length);
}

function upstreamSeconds(run: Run): string {
  const { reply } = run;
  return reply?.milliseconds === undefined ? '' : (reply.milliseconds / 1000).toFixed(3);
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

function timeLocal(): string {
  const [date, time] = new Date().toISOString().split('T') as [string, string];
  const [year, month, day] = date.split('-') as [string, string, string];
  return `${day}/${months[Number(month) - 1]}/${year}:${time.slice(0, 8)} +0000`;
}
