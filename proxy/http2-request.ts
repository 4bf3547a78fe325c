// The header block of an HTTP/2 request, read strictly (RFC 9113 §8.2 and §8.3).

import type { ServerHttp2Stream } from 'node:http2';
import type { AccessEntry } from './access-log.ts';
import type { Connection, ProxyContext } from './connection.ts';
import type { FaultCode } from './errors.ts';
import { dropsFromRequest, type ForwardedBefore } from './headers.ts';
import { parseHost } from './http1.ts';
import type { UpstreamSettings } from './routes.ts';

export interface Http2Request {
  readonly method: string;
  /** As sent, with the query. */
  readonly path: string;
  /** As sent. */
  readonly authority: string;
  /** Of the authority: lower case, without port. */
  readonly host: string;
  /** `:protocol` of an extended CONNECT (RFC 8441). */
  readonly protocol: string | undefined;
  /** Whether the header block ended the stream: there is no body. */
  readonly endStream: boolean;
  /** -1: none given. */
  readonly contentLength: number;
  readonly grpc: boolean;
  /** Whether the client says that it reads trailers (`te: trailers`, RFC 9110 §10.1.4). */
  readonly trailers: boolean;
  /** The forwarded family as the client sent it. */
  readonly forwarded: ForwardedBefore | undefined;
  /**
   * Flat, name and value in turn, lower-case names: the fields that pass on, cookies rejoined. Left out are `host`,
   * `content-length` and `te`, which each protocol puts its own way.
   */
  readonly fields: readonly string[];
}

/** The forwarded family for the upstream in both forms: flat, name and value in turn, and as header lines. */
export interface ForwardedFamily {
  readonly fields: readonly string[];
  readonly lines: string;
}

/** One request on its way to its upstream. */
export interface Http2Exchange {
  readonly stream: ServerHttp2Stream;
  readonly request: Http2Request;
  readonly connection: Connection;
  readonly upstream: UpstreamSettings;
  readonly context: ProxyContext;
  readonly forwarded: ForwardedFamily;
  /** Undefined where no access log is written. */
  readonly access: AccessEntry | undefined;
}

// RFC 3986 §3.3 and §3.4 as sent by clients in the wild: visible ASCII, no fragment.
const PATH = /^\/[\x21\x22\x24-\x7e]*$/;
const LENGTH = /^(?:0|[1-9]\d{0,14})$/;
const GRPC = /^application\/grpc(?:$|[+;])/;
// RFC 9113 §8.2.2: these belong to a connection, and a request with one of them is malformed.
const CONNECTION_SPECIFIC = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
]);

/** The pseudo-header fields and those fields that the ingress itself must understand. */
interface Known {
  method: string;
  scheme: string;
  path: string;
  authority: string | undefined;
  protocol: string | undefined;
  host: string | undefined;
  cookie: string | undefined;
  length: string | undefined;
  expect: string | undefined;
  grpc: boolean;
  trailers: boolean;
  forwarded: Record<string, string> | undefined;
  underscored: string[] | undefined;
}

/** `raw` is flat, name and value in turn, as received; `endStream` whether the block carried END_STREAM. */
export function readRequest(
  raw: readonly string[],
  endStream: boolean,
  maxHeaderBytes: number,
): Http2Request | FaultCode {
  const known: Known = {
    method: '',
    scheme: '',
    path: '',
    authority: undefined,
    protocol: undefined,
    host: undefined,
    cookie: undefined,
    length: undefined,
    expect: undefined,
    grpc: false,
    trailers: false,
    forwarded: undefined,
    underscored: undefined,
  };
  const fields: string[] = [];
  let size = 0;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!;
    const value = raw[i + 1]!;
    // As a line of HTTP/1.1: the limit is the same in both.
    size += name.length + value.length + 4;
    if (size > maxHeaderBytes) return 'headers-too-large';
    const refusal = readField(known, fields, name, value);
    if (refusal !== undefined) return refusal;
  }
  if (known.cookie !== undefined) fields.push('cookie', known.cookie);
  // gRPC metadata may be named so, and no gRPC server takes the one name for the other.
  if (known.grpc && known.underscored !== undefined) fields.push(...known.underscored);
  return judge(known, fields, endStream);
}

function readField(known: Known, fields: string[], name: string, value: string): FaultCode | undefined {
  switch (name) {
    case ':method':
      known.method = value;
      return;
    case ':scheme':
      known.scheme = value;
      return;
    case ':path':
      known.path = value;
      return;
    case ':authority':
      known.authority = value;
      return;
    case ':protocol':
      known.protocol = value;
      return;
    case 'host':
      if (known.host !== undefined) return 'bad-request';
      known.host = value;
      return;
    case 'cookie':
      // RFC 9113 §8.2.3: crumbs become one field outside of HTTP/2.
      known.cookie = known.cookie === undefined ? value : `${known.cookie}; ${value}`;
      return;
    case 'content-length':
      if (known.length !== undefined) return 'bad-request';
      known.length = value;
      return;
    case 'expect':
      if (known.expect !== undefined) return 'expectation-failed';
      known.expect = value.toLowerCase();
      break;
    case 'te':
      // RFC 9113 §8.2.2: the one value that is allowed. Whether it goes on depends on the upstream's protocol.
      known.trailers = value.toLowerCase() === 'trailers';
      return known.trailers ? undefined : 'bad-request';
    case 'content-type':
      known.grpc = GRPC.test(value);
      break;
    default:
      if (dropsFromRequest(name)) return setAside(known, name, value);
  }
  fields.push(name, value);
  return;
}

function setAside(known: Known, name: string, value: string): FaultCode | undefined {
  if (CONNECTION_SPECIFIC.has(name)) return 'bad-request';
  if (name.includes('_')) {
    known.underscored ??= [];
    known.underscored.push(name, value);
  } else if (name.startsWith('x-') || name === 'forwarded') {
    known.forwarded ??= {};
    const before = known.forwarded[name];
    known.forwarded[name] = before === undefined ? value : `${before}, ${value}`;
  }
  return;
}

function judge(known: Known, fields: readonly string[], endStream: boolean): Http2Request | FaultCode {
  const { method, scheme, path, protocol, length, expect } = known;
  if (method === 'CONNECT' && protocol === undefined) return 'method-refused';
  if (scheme !== 'https' && scheme !== 'http') return 'bad-request';
  if (!PATH.test(path) && !(path === '*' && method === 'OPTIONS')) return 'bad-request';
  if (expect !== undefined && expect !== '100-continue') return 'expectation-failed';
  // RFC 9113 §8.3.1: Host must not differ from :authority, which a client may leave to Host alone.
  const authority = known.authority ?? known.host;
  if (authority === undefined) return 'bad-request';
  if (known.host !== undefined && known.host.toLowerCase() !== authority.toLowerCase()) return 'bad-request';
  const host = parseHost(authority);
  if (host === undefined) return 'bad-request';
  if (length !== undefined && !LENGTH.test(length)) return 'bad-request';
  const contentLength = length === undefined ? -1 : Number(length);
  if (endStream && contentLength > 0) return 'bad-request';
  const { grpc, trailers, forwarded } = known;
  return {
    method,
    path,
    authority,
    host,
    protocol,
    endStream,
    contentLength,
    grpc,
    trailers,
    forwarded,
    fields,
  };
}
