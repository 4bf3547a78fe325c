// What a certificate says of its place in the logs: its timestamps (SCT), and the entry that each log has of it (RFC 6962 §3).

import type { X509Certificate } from 'node:crypto';
import { contentOf, encodeOid, encodeValue, readOnly, type Value, valuesIn } from './der.ts';
import { sha256 } from './documents.ts';

export interface Timestamp {
  /** SHA-256 of the log's key, hex. */
  readonly logId: string;
  /** Place of the entry in the log; undefined: a log of the older kind does not say (static-ct-api, SCT Extension). */
  readonly index: number | undefined;
  /** What the log has signed, and what it hashes as a leaf: both begin with two zeros (RFC 6962 §3.2, §3.4). */
  readonly entry: Buffer;
  /** As RFC 5246 §4.7 writes it: algorithms, length, signature. */
  readonly signature: Buffer;
}

const [SEQUENCE, OCTETS, OBJECT_IDENTIFIER, EXTENSIONS] = [0x30, 0x04, 0x06, 0xa3];
const SCT_LIST = Buffer.from(encodeOid('1.3.6.1.4.1.11129.2.4.2'));
const VERSION_1 = 0;
const PRECERTIFICATE = 1;
const LEAF_INDEX = 0;
const MOST = 16;

/** Those that the certificate carries; none if it carries none, or none that can be read. */
export function timestampsOf(leaf: X509Certificate, issuer: X509Certificate): Timestamp[] {
  try {
    const { list, rest } = takenApart(leaf.raw);
    if (list === undefined) return [];
    const issuerKey = issuer.publicKey.export({ type: 'spki', format: 'der' });
    const signedEntry = Buffer.concat([
      number(PRECERTIFICATE, 2),
      Buffer.from(sha256(issuerKey), 'hex'),
      number(rest.length, 3),
      rest,
    ]);
    return sctsIn(list).flatMap((sct) => timestampIn(sct, signedEntry) ?? []);
  } catch (error) {
    if (error instanceof RangeError) return [];
    throw error;
  }
}

/** The list of timestamps, and the rest as the CA showed it to the logs: the same without the list (RFC 6962 §3.2). */
function takenApart(certificate: Uint8Array): { list: Uint8Array | undefined; rest: Uint8Array } {
  const [tbs] = valuesIn(contentOf(SEQUENCE, readOnly(certificate)));
  const fields = valuesIn(contentOf(SEQUENCE, tbs));
  const at = fields.findIndex(({ tag }) => tag === EXTENSIONS);
  const extensions = at === -1 ? [] : valuesIn(contentOf(SEQUENCE, readOnly(fields[at]!.content)));
  const own = extensions.find(isList);
  if (own === undefined) return { list: undefined, rest: new Uint8Array() };
  const others = extensions.filter((one) => one !== own).map(({ whole }) => whole);
  const changed = encodeValue(EXTENSIONS, encodeValue(SEQUENCE, Buffer.concat(others)));
  const kept = fields.map(({ whole }, index) => (index === at ? changed : whole));
  const value = valuesIn(own.content).at(-1);
  return {
    list: contentOf(OCTETS, readOnly(contentOf(OCTETS, value))),
    rest: encodeValue(SEQUENCE, Buffer.concat(kept)),
  };
}

function isList(extension: Value): boolean {
  const [id] = valuesIn(contentOf(SEQUENCE, extension));
  return SCT_LIST.equals(contentOf(OBJECT_IDENTIFIER, id));
}

function sctsIn(list: Uint8Array): Buffer[] {
  const read = createReader(Buffer.from(list));
  const all = createReader(read.vector());
  const found: Buffer[] = [];
  while (!all.done() && found.length < MOST) found.push(all.vector());
  return found;
}

/** Undefined: it is of a version that is not known. */
function timestampIn(sct: Buffer, signedEntry: Buffer): Timestamp | undefined {
  const read = createReader(sct);
  if (read.bytes(1)[0] !== VERSION_1) return undefined;
  const logId = read.bytes(32).toString('hex');
  const time = read.bytes(8);
  const extensions = read.vector();
  const entry = Buffer.concat([
    Buffer.of(VERSION_1, 0),
    time,
    signedEntry,
    number(extensions.length, 2),
    extensions,
  ]);
  return { logId, index: indexIn(extensions), entry, signature: read.rest() };
}

function indexIn(extensions: Buffer): number | undefined {
  const read = createReader(extensions);
  while (!read.done()) {
    const [type] = read.bytes(1);
    const data = read.vector();
    if (type === LEAF_INDEX) return data.length === 5 ? data.readUIntBE(0, 5) : undefined;
  }
  return undefined;
}

function createReader(from: Buffer) {
  let at = 0;
  const bytes = (length: number): Buffer => {
    if (at + length > from.length) throw new RangeError('cut short');
    at += length;
    return from.subarray(at - length, at);
  };
  return {
    bytes,
    vector: () => bytes(bytes(2).readUInt16BE()),
    rest: () => from.subarray(at),
    done: () => at === from.length,
  };
}

function number(value: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  bytes.writeUIntBE(value, 0, length);
  return bytes;
}
