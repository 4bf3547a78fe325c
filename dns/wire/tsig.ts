// Signed DNS messages (RFC 8945): a shared key proves to each side who wrote a message.

import { createHmac, timingSafeEqual } from 'node:crypto';
import { DnsError } from '../error.ts';
import { cureOf } from '../providers/cures.ts';
import {
  decodeMessage,
  encodeMessage,
  encodeName,
  type Message,
  startOfLastRecord,
  typeNumbers,
} from './message.ts';
import { normalizeName } from './presentation.ts';

/** RFC 8945 §6, without the broken MD5; digest names as node:crypto has them. */
export const tsigAlgorithms: Readonly<Record<string, string>> = {
  'hmac-sha1': 'sha1',
  'hmac-sha224': 'sha224',
  'hmac-sha256': 'sha256',
  'hmac-sha384': 'sha384',
  'hmac-sha512': 'sha512',
};

export interface TsigKey {
  readonly name: string;
  readonly algorithm: string;
  /** The decoded bytes. */
  readonly secret: Buffer;
}

/** Clocks may be this far apart (RFC 8945 §10). */
const FUDGE_SECONDS = 300;
const CLASS_ANY = 255;

export interface SignedMessage {
  readonly bytes: Buffer;
  readonly mac: Buffer;
}

export function signMessage(message: Message, key: TsigKey, now: Date): SignedMessage {
  const unsigned = encodeMessage(message);
  const variables = {
    seconds: Math.floor(now.getTime() / 1000),
    fudge: FUDGE_SECONDS,
    error: 0,
    other: Buffer.alloc(0),
  };
  const mac = digest(key, [unsigned, encodeVariables(key, variables)]);
  const data = Buffer.concat([
    encodeName(key.algorithm),
    encodeTimes(variables),
    uint16(mac.length),
    mac,
    uint16(message.id),
    uint16(0),
    uint16(0),
  ]);
  const record = { name: key.name, type: typeNumbers.TSIG, class: CLASS_ANY, ttl: 0, data };
  return { bytes: encodeMessage({ ...message, additional: [...message.additional, record] }), mac };
}

function refused(subject: string): DnsError {
  return new DnsError('credentials-refused', subject, cureOf('rfc2136', 'credentials-refused'));
}

/**
 * The answer to a message signed with `requestMac`, after its signature is checked and removed. Throws DnsError
 * `credentials-refused` when the server refuses the key, `unintelligible` when the answer is not signed with it.
 */
export function verifyAnswer(bytes: Buffer, requestMac: Buffer, key: TsigKey, now: Date): Message {
  const message = decodeMessage(bytes);
  const signature = message.additional.at(-1);
  if (signature?.type !== typeNumbers.TSIG) {
    const code = message.flags & 0x0f;
    // Nobody signed this refusal, but believing it does no harm.
    if (code === 9 || code === 5) throw refused(`the server does not accept the key ${key.name}`);
    throw new DnsError('unintelligible', 'the answer is not signed');
  }
  const read = readSignature(signature.data);
  if (read.error !== 0) throw refused(`the server refuses the key ${key.name}: ${tsigError(read.error)}`);
  // RFC 8945 §5.3.1: over the request's MAC, the answer as it was before signing, and the variables.
  const withoutIt = Buffer.from(bytes.subarray(0, startOfLastRecord(bytes)));
  withoutIt.writeUInt16BE(message.additional.length - 1, 10);
  withoutIt.writeUInt16BE(read.originalId, 0);
  const expected = digest(key, [
    uint16(requestMac.length),
    requestMac,
    withoutIt,
    encodeVariables(key, read),
  ]);
  const genuine =
    normalizeName(signature.name) === normalizeName(key.name) &&
    read.algorithm === key.algorithm &&
    read.mac.length === expected.length &&
    timingSafeEqual(read.mac, expected);
  if (!genuine) throw new DnsError('unintelligible', 'the answer has a wrong signature');
  if (Math.abs(read.seconds - now.getTime() / 1000) > read.fudge) {
    throw new DnsError('unintelligible', 'the answer was signed at another time than now');
  }
  return { ...message, additional: message.additional.slice(0, -1) };
}

interface Variables {
  readonly seconds: number;
  readonly fudge: number;
  readonly error: number;
  readonly other: Buffer;
}

function digest(key: TsigKey, parts: readonly Buffer[]): Buffer {
  const hmac = createHmac(tsigAlgorithms[key.algorithm] ?? '', key.secret);
  for (const part of parts) hmac.update(part);
  return hmac.digest();
}

/** RFC 8945 §4.3.3: names in lower case and uncompressed. */
function encodeVariables(key: TsigKey, variables: Variables): Buffer {
  const { error, other } = variables;
  return Buffer.concat([
    encodeName(normalizeName(key.name)),
    uint16(CLASS_ANY),
    Buffer.alloc(4),
    encodeName(key.algorithm),
    encodeTimes(variables),
    uint16(error),
    uint16(other.length),
    other,
  ]);
}

function encodeTimes({ seconds, fudge }: Pick<Variables, 'seconds' | 'fudge'>): Buffer {
  const times = Buffer.alloc(8);
  times.writeUIntBE(seconds, 0, 6);
  times.writeUInt16BE(fudge, 6);
  return times;
}

function readSignature(data: Buffer): Variables & { algorithm: string; mac: Buffer; originalId: number } {
  try {
    // The algorithm is a name without compression: read up to its root label.
    let end = 0;
    const labels: string[] = [];
    for (let size = data.readUInt8(0); size !== 0; size = data.readUInt8(end)) {
      labels.push(data.subarray(end + 1, end + 1 + size).toString('latin1'));
      end += 1 + size;
    }
    const at = end + 1;
    const macLength = data.readUInt16BE(at + 8);
    const rest = at + 10 + macLength;
    return {
      algorithm: labels.join('.').toLowerCase(),
      seconds: data.readUIntBE(at, 6),
      fudge: data.readUInt16BE(at + 6),
      mac: data.subarray(at + 10, rest),
      originalId: data.readUInt16BE(rest),
      error: data.readUInt16BE(rest + 2),
      other: data.subarray(rest + 6, rest + 6 + data.readUInt16BE(rest + 4)),
    };
  } catch (cause) {
    throw new DnsError('unintelligible', 'the signature of the answer cannot be read', { cause });
  }
}

function tsigError(code: number): string {
  return (
    { 16: 'bad signature', 17: 'unknown key', 18: 'the clocks are too far apart', 22: 'bad truncation' }[
      code
    ] ?? `error ${code}`
  );
}

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}
