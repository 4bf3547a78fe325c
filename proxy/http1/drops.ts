// Which header fields stay here and which are passed on (RFC 9110 §7.6): one table for each kind of message.

import { FIELD_KINDS, field, fieldId } from './known-fields.ts';

/** RFC 9110 §7.6.1: fields that concern one connection only. */
const hopByHop = [
  field.connection,
  field.keepAlive,
  field.proxyConnection,
  field.te,
  field.upgrade,
  field.http2Settings,
  field.proxyAuthenticate,
  field.proxyAuthorization,
  field.proxyAuthenticationInfo,
];
const forwardedFamily = [
  field.forwarded,
  field.xForwardedFor,
  field.xForwardedProto,
  field.xForwardedHost,
  field.xForwardedPort,
  field.xRealIp,
];

// CGI and its heirs read a name with an underscore as the one with a hyphen. So it is dropped, as nginx does.
export const requestDrops = table([...hopByHop, ...forwardedFamily, field.underscored]);
export const replyDrops = table(hopByHop);
export const interimDrops = table([...hopByHop, field.contentLength, field.transferEncoding]);
/** Of a reply on its way to HTTP/2, which frames it anew (RFC 9113 §8.2.2). */
export const connectionDrops = table([...hopByHop, field.transferEncoding]);
export const unframedDrops = table([...hopByHop, field.transferEncoding, field.trailer]);
export const replyLengthDrops = table([...hopByHop, field.contentLength]);
export const unframedLengthDrops = table([
  ...hopByHop,
  field.transferEncoding,
  field.trailer,
  field.contentLength,
]);
// RFC 9110 §6.5.1: framing, routing and credentials have no place in trailers.
export const trailerDrops = table([
  ...hopByHop,
  ...forwardedFamily,
  field.underscored,
  field.host,
  field.contentLength,
  field.transferEncoding,
  field.trailer,
  field.expect,
  field.authorization,
  field.cookie,
]);

/** Indexed by field id: 1 stays here. */
function table(ids: Iterable<number>): Uint8Array {
  const drops = new Uint8Array(FIELD_KINDS);
  for (const id of ids) drops[id] = 1;
  return drops;
}

/** Whether a request field stays here, by its lower-case name; what Connection nominates comes on top (HTTP/1.1). */
export function dropsFromRequest(name: string): boolean {
  return requestDrops[fieldId(name)] === 1;
}

/** Whether a reply field stays here, by its lower-case name. */
export function dropsFromReply(name: string): boolean {
  return replyDrops[fieldId(name)] === 1;
}

/** Whether a field may not be passed on in a trailer section, by its lower-case name. */
export function dropsFromTrailers(name: string): boolean {
  return trailerDrops[fieldId(name)] === 1;
}
