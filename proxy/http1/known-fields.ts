// The header fields that a relay must know, each with a number: found by a hash while a name is being checked.

import { TOKEN } from './characters.ts';

/** The fields that a relay must know, and two that most replies have and many rules hide; `other` is every other, `underscored` every name with an underscore. */
export const field = {
  other: 0,
  underscored: 1,
  host: 2,
  contentLength: 3,
  transferEncoding: 4,
  connection: 5,
  keepAlive: 6,
  proxyConnection: 7,
  te: 8,
  trailer: 9,
  upgrade: 10,
  expect: 11,
  forwarded: 12,
  xForwardedFor: 13,
  xForwardedProto: 14,
  xForwardedHost: 15,
  xForwardedPort: 16,
  xRealIp: 17,
  http2Settings: 18,
  proxyAuthenticate: 19,
  proxyAuthorization: 20,
  proxyAuthenticationInfo: 21,
  authorization: 22,
  cookie: 23,
  userAgent: 24,
  xRequestId: 25,
  traceparent: 26,
  tracestate: 27,
  date: 28,
  server: 29,
} as const;
export const FIELD_KINDS = 30;

const fieldNames: readonly (readonly [string, number])[] = [
  ['host', field.host],
  ['content-length', field.contentLength],
  ['transfer-encoding', field.transferEncoding],
  ['connection', field.connection],
  ['keep-alive', field.keepAlive],
  ['proxy-connection', field.proxyConnection],
  ['te', field.te],
  ['trailer', field.trailer],
  ['upgrade', field.upgrade],
  ['expect', field.expect],
  ['forwarded', field.forwarded],
  ['x-forwarded-for', field.xForwardedFor],
  ['x-forwarded-proto', field.xForwardedProto],
  ['x-forwarded-host', field.xForwardedHost],
  ['x-forwarded-port', field.xForwardedPort],
  ['x-real-ip', field.xRealIp],
  ['http2-settings', field.http2Settings],
  ['proxy-authenticate', field.proxyAuthenticate],
  ['proxy-authorization', field.proxyAuthorization],
  ['proxy-authentication-info', field.proxyAuthenticationInfo],
  ['authorization', field.authorization],
  ['cookie', field.cookie],
  ['user-agent', field.userAgent],
  ['x-request-id', field.xRequestId],
  ['traceparent', field.traceparent],
  ['tracestate', field.tracestate],
  ['date', field.date],
  ['server', field.server],
];

const idByName = new Map(fieldNames);
export const nameById: string[] = [];
for (const [name, id] of fieldNames) nameById[id] = name;

/** `name` in lower case. */
export function fieldId(name: string): number {
  return name.includes('_') ? field.underscored : (idByName.get(name) ?? field.other);
}

/** Names by a hash that the parser computes while it checks them: slot -> id. */
const SLOTS = 2048;
const idBySlot = new Uint8Array(SLOTS);
const bytesById: Uint8Array[] = [];
for (const [name, id] of fieldNames) {
  const bytes = Buffer.from(name);
  let hash = 0;
  for (const byte of bytes) hash = mix(hash, byte);
  if (idBySlot[slotOf(hash)] !== 0) throw new Error(`two known field names share a slot: ${name}`);
  idBySlot[slotOf(hash)] = id;
  bytesById[id] = bytes;
}

function mix(hash: number, byte: number): number {
  return (Math.imul(hash, 31) + byte) | 0;
}

function slotOf(hash: number): number {
  return (hash ^ (hash >>> 17)) & (SLOTS - 1);
}

export function knownId(hash: number, bytes: Buffer, start: number, end: number): number {
  const id = idBySlot[slotOf(hash)]!;
  if (id === 0) return field.other;
  const name = bytesById[id]!;
  if (name.length !== end - start) return field.other;
  for (let i = 0; i < name.length; i++) {
    if (TOKEN[bytes[start + i]!] !== name[i]) return field.other;
  }
  return id;
}
