// The header block of an HTTP/2 request, read strictly (RFC 9113 §8.2 and §8.3).

import type { FaultCode } from '../faults.ts';
import { parseHost, sameAuthority } from '../http1/authority.ts';
import { isToken } from '../http1/characters.ts';
import { fieldKind, kindOf } from '../http2/fields.ts';
import { createField, type HeaderField } from '../http2/hpack.ts';
import type { ForwardedBefore } from './headers.ts';

export interface Http2Request {
  readonly method: string;
  /** As sent, with the query; empty for a plain CONNECT. */
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
  /** The forwarded family as the client sent it. */
  readonly forwarded: ForwardedBefore | undefined;
  readonly userAgent: string;
  /** As sent; undefined: there is none. Several are one list, which no reader of one takes for sound. */
  readonly requestId: string | undefined;
  readonly traceparent: string | undefined;
  readonly tracestate: string | undefined;
  /** What passes on, cookies rejoined. Left out are `host`, `content-length` and `te`, which each protocol puts its own way. */
  readonly fields: readonly HeaderField[];
  /** With an underscore in the name: rules may let them pass. */
  readonly underscored?: readonly HeaderField[] | undefined;
}

/** The forwarded family for the upstream in both forms: as fields and as header lines. */
export interface ForwardedFamily {
  readonly fields: readonly HeaderField[];
  readonly lines: string;
}

/** What leaves for the upstream. */
export interface Forwarding {
  readonly request: Http2Request;
  readonly forwarded: ForwardedFamily;
}

// RFC 3986 §3.3 and §3.4 as sent by clients in the wild: visible ASCII, no fragment.
const PATH = /^\/[\x21\x22\x24-\x7e]*$/;
// RFC 3986 §3.2 without user information, which RFC 9113 §8.3.1 forbids here.
const AUTHORITY = /^[A-Za-z0-9\-._~%!$&'()*+,;=:[\]]*$/;
const LENGTH = /^(?:0|[1-9]\d{0,14})$/;
const GRPC = /^application\/grpc(?:$|[+;])/;

/** What has been read of the block under way: blocks are read in one go, one at a time. */
let method: string | undefined;
let scheme: string | undefined;
let path: string | undefined;
let authority: string | undefined;
let protocol: string | undefined;
let host: string | undefined;
let cookie: string | undefined;
let length: string | undefined;
let expect: string | undefined;
let grpc = false;
let userAgent = '';
let requestId: string | undefined;
let traceparent: string | undefined;
let tracestate: string | undefined;
let forwarded: Record<string, string> | undefined;
let underscored: HeaderField[] | undefined;
let pseudoAllowed = true;
let fields: HeaderField[] = [];

/**
 * `ended`: whether the block carried END_STREAM. `malformed` is what RFC 9113 §8.1.1 asks to reset; a FaultCode is a
 * request that can be told why it is refused.
 */
export function readRequest(
  list: readonly HeaderField[],
  ended: boolean,
): Http2Request | FaultCode | 'malformed' {
  method = scheme = path = authority = protocol = host = cookie = length = expect = undefined;
  forwarded = undefined;
  underscored = undefined;
  grpc = false;
  userAgent = '';
  requestId = traceparent = tracestate = undefined;
  pseudoAllowed = true;
  fields = [];
  for (let i = 0; i < list.length; i++) {
    const refusal = readField(list[i]!);
    if (refusal !== undefined) return refusal;
  }
  // RFC 9113 §8.2.3: crumbs become one field outside of HTTP/2.
  if (cookie !== undefined) fields.push(createField('cookie', cookie, true));
  // gRPC metadata may be named so, and no gRPC server takes the one name for the other.
  if (grpc && underscored !== undefined) {
    fields.push(...(underscored as HeaderField[]));
    underscored = undefined;
  }
  return judge(ended);
}

function readField(field: HeaderField): FaultCode | 'malformed' | undefined {
  const kind = kindOf(field);
  const { value } = field;
  if (kind >= fieldKind.method && kind <= fieldKind.otherPseudo) return readPseudo(kind, value);
  pseudoAllowed = false;
  switch (kind) {
    case fieldKind.plain:
      break;
    case fieldKind.malformed:
      return 'malformed';
    case fieldKind.host:
      if (host !== undefined) return 'bad-request';
      host = value;
      return;
    case fieldKind.cookie:
      cookie = cookie === undefined ? value : `${cookie}; ${value}`;
      return;
    case fieldKind.contentLength:
      if (length !== undefined || !LENGTH.test(value)) return 'malformed';
      length = value;
      return;
    case fieldKind.expect:
      if (expect !== undefined) return 'expectation-failed';
      expect = value.toLowerCase();
      break;
    case fieldKind.te:
      // What goes on depends on the upstream's protocol.
      return;
    case fieldKind.contentType:
      grpc = GRPC.test(value);
      break;
    case fieldKind.userAgent:
      userAgent = value;
      break;
    case fieldKind.requestId:
      requestId = listed(requestId, value);
      break;
    case fieldKind.traceparent:
      traceparent = listed(traceparent, value);
      break;
    case fieldKind.tracestate:
      tracestate = listed(tracestate, value);
      break;
    case fieldKind.underscored:
      underscored ??= [];
      underscored.push(field);
      return;
    case fieldKind.forwarded: {
      forwarded ??= {};
      const before = forwarded[field.name];
      forwarded[field.name] = before === undefined ? value : `${before}, ${value}`;
      return;
    }
    default:
      return;
  }
  fields.push(field);
  return;
}

/** RFC 9110 §5.3. */
function listed(before: string | undefined, value: string): string {
  return before === undefined ? value : `${before}, ${value}`;
}

/** RFC 9113 §8.3: each once, none unknown, all before the others. */
function readPseudo(kind: number, value: string): 'malformed' | undefined {
  if (!pseudoAllowed) return 'malformed';
  let before: string | undefined;
  switch (kind) {
    case fieldKind.method:
      before = method;
      method = value;
      break;
    case fieldKind.scheme:
      before = scheme;
      scheme = value;
      break;
    case fieldKind.path:
      before = path;
      path = value;
      break;
    case fieldKind.authority:
      before = authority;
      authority = value;
      break;
    case fieldKind.protocol:
      before = protocol;
      protocol = value;
      break;
    default:
      return 'malformed';
  }
  return before === undefined ? undefined : 'malformed';
}

function judge(ended: boolean): Http2Request | FaultCode | 'malformed' {
  if (method === undefined || !isMethod(method)) return 'malformed';
  const refusal = judgePlace(method);
  if (refusal !== undefined) return refusal;
  if (expect !== undefined && expect !== '100-continue') return 'expectation-failed';
  // RFC 9113 §8.3.1: a client may leave :authority to Host alone.
  const asked = authority ?? host;
  if (asked === undefined || asked === '') return 'malformed';
  const parsed = isSameHost(asked) ? parseHost(asked) : undefined;
  const contentLength = length === undefined ? -1 : Number(length);
  if (parsed === undefined || (ended && contentLength > 0)) return 'bad-request';
  return {
    method,
    path: path!,
    authority: asked,
    host: parsed,
    protocol,
    endStream: ended,
    contentLength,
    grpc,
    forwarded,
    userAgent,
    requestId,
    traceparent,
    tracestate,
    fields,
    underscored,
  };
}

/** RFC 9113 §8.3.1: Host, if there is one, must not differ from what is asked for. */
function isSameHost(asked: string): boolean {
  return host === undefined || host === asked || sameAuthority(host, asked, scheme ?? '');
}

/** Of the pseudo-header fields, what names the place that is asked for. */
function judgePlace(asking: string): FaultCode | 'malformed' | undefined {
  if (authority !== undefined && !AUTHORITY.test(authority)) return 'malformed';
  if (asking !== 'CONNECT' || protocol !== undefined) return judgeTarget(asking);
  // RFC 9113 §8.5: a plain CONNECT names a place to connect to, and no resource.
  if (scheme !== undefined || path !== undefined || authority === undefined) return 'malformed';
  path = '';
  return undefined;
}

function judgeTarget(asking: string): FaultCode | 'malformed' | undefined {
  // RFC 8441 §4: extended CONNECT, and nothing else, names a protocol.
  if (protocol !== undefined && asking !== 'CONNECT') return 'malformed';
  if (scheme === undefined || path === undefined) return 'malformed';
  if (!path.startsWith('/') && !(path === '*' && asking === 'OPTIONS')) return 'malformed';
  if (scheme !== 'https' && scheme !== 'http') return 'bad-request';
  return path === '*' || PATH.test(path) ? undefined : 'bad-request';
}

const COMMON_METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'CONNECT']);

function isMethod(text: string): boolean {
  return COMMON_METHODS.has(text) || isToken(text);
}
