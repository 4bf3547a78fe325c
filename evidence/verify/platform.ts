// What the certificate of a processor says of its platform (Intel SGX PCK Certificate and CRL Profile Specification, §1.3.5).

import type { X509Certificate } from '@peculiar/x509';

export interface Platform {
  /** Lower-case hex: the family, model and stepping that TCB infos are made for. */
  readonly fmspc: string;
  readonly pceId: string;
  /** 16 of them. */
  readonly sgxSvns: readonly number[];
  readonly pceSvn: number;
}

const SGX = '1.2.840.113741.1.13.1';
const [SEQUENCE, INTEGER, OCTETS, OBJECT_IDENTIFIER] = [0x30, 0x02, 0x04, 0x06];

/** undefined if the certificate is not of a processor, or says it in no way that is known. */
export function platformOf(certificate: X509Certificate): Platform | undefined {
  const extension = certificate.getExtension(SGX);
  if (extension === null) return undefined;
  try {
    const fields = entriesIn(contentOf(SEQUENCE, readOnly(new Uint8Array(extension.value))));
    const tcb = entriesIn(contentOf(SEQUENCE, field(fields, `${SGX}.2`)));
    const svn = (index: number) => numberIn(contentOf(INTEGER, field(tcb, `${SGX}.2.${index}`)));
    return {
      fmspc: hex(contentOf(OCTETS, field(fields, `${SGX}.4`)), 6),
      pceId: hex(contentOf(OCTETS, field(fields, `${SGX}.3`)), 2),
      sgxSvns: Array.from({ length: 16 }, (_, index) => svn(index + 1)),
      pceSvn: svn(17),
    };
  } catch {
    return undefined;
  }
}

/** One value of DER: tag, length, content (X.690 §8.1). */
interface Value {
  readonly tag: number;
  readonly content: Uint8Array;
}

function entriesIn(sequence: Uint8Array): Map<string, Value> {
  const entries = valuesIn(sequence).map((entry): [string, Value] => {
    const [oid, value] = valuesIn(contentOf(SEQUENCE, entry));
    return [hexOf(contentOf(OBJECT_IDENTIFIER, oid)), value!];
  });
  return new Map(entries);
}

function field(entries: ReadonlyMap<string, Value>, oid: string): Value {
  const value = entries.get(hexOf(encodeOid(oid)));
  if (value === undefined) throw new RangeError(`no ${oid}`);
  return value;
}

function contentOf(tag: number, value: Value | undefined): Uint8Array {
  if (value?.tag !== tag) throw new RangeError('another kind of value');
  return value.content;
}

function readOnly(bytes: Uint8Array): Value {
  const [value, ...others] = valuesIn(bytes);
  if (value === undefined || others.length > 0) throw new RangeError('not one value');
  return value;
}

function valuesIn(bytes: Uint8Array): Value[] {
  const values: Value[] = [];
  for (let at = 0; at < bytes.length; ) {
    const tag = bytes[at]!;
    const first = bytes[at + 1]!;
    const sizeBytes = first < 0x80 ? 0 : first & 0x7f;
    if (sizeBytes > 2) throw new RangeError('a length of more than two bytes');
    const start = at + 2 + sizeBytes;
    const size = sizeBytes === 0 ? first : numberIn(bytes.subarray(at + 2, start));
    if (!(start + size <= bytes.length)) throw new RangeError('cut short');
    values.push({ tag, content: bytes.subarray(start, start + size) });
    at = start + size;
  }
  return values;
}

function numberIn(bytes: Uint8Array): number {
  // A leading zero keeps a number positive.
  if (bytes.length === 0 || bytes.length > 3) throw new RangeError('no small number');
  return bytes.reduce((sum, byte) => sum * 256 + byte, 0);
}

/** The content of an OBJECT IDENTIFIER (X.690 §8.19). */
export function encodeOid(oid: string): Uint8Array {
  const [first, second, ...rest] = oid.split('.').map(Number) as [number, number, ...number[]];
  return Uint8Array.from([first * 40 + second, ...rest.flatMap(base128)]);
}

function base128(arc: number): number[] {
  const septets = [arc & 0x7f];
  for (let left = arc >> 7; left > 0; left >>= 7) septets.unshift((left & 0x7f) | 0x80);
  return septets;
}

function hex(bytes: Uint8Array, length: number): string {
  if (bytes.length !== length) throw new RangeError(`not ${length} bytes`);
  return hexOf(bytes);
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
