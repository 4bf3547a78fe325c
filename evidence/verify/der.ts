// DER, as far as certificates need it to be taken apart and put together again (X.690). Throws RangeError for anything else.

/** One value of DER: tag, length, content (X.690 §8.1). */
export interface Value {
  readonly tag: number;
  readonly content: Uint8Array;
  /** With tag and length. */
  readonly whole: Uint8Array;
}

export function contentOf(tag: number, value: Value | undefined): Uint8Array {
  if (value?.tag !== tag) throw new RangeError('another kind of value');
  return value.content;
}

export function readOnly(bytes: Uint8Array): Value {
  const [value, ...others] = valuesIn(bytes);
  if (value === undefined || others.length > 0) throw new RangeError('not one value');
  return value;
}

export function valuesIn(bytes: Uint8Array): Value[] {
  const values: Value[] = [];
  for (let at = 0; at < bytes.length; ) {
    const tag = bytes[at]!;
    const first = bytes[at + 1]!;
    const sizeBytes = first < 0x80 ? 0 : first & 0x7f;
    if (sizeBytes > 2) throw new RangeError('a length of more than two bytes');
    const start = at + 2 + sizeBytes;
    const size = sizeBytes === 0 ? first : numberIn(bytes.subarray(at + 2, start));
    if (!(start + size <= bytes.length)) throw new RangeError('cut short');
    const end = start + size;
    values.push({ tag, content: bytes.subarray(start, end), whole: bytes.subarray(at, end) });
    at = start + size;
  }
  return values;
}

export function numberIn(bytes: Uint8Array): number {
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

/** A value of DER around this content. */
export function encodeValue(tag: number, content: Uint8Array): Uint8Array {
  const size = content.length;
  const length = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff];
  if (size > 0xffff) throw new RangeError('a length of more than two bytes');
  return Buffer.concat([Uint8Array.of(tag, ...length), content]);
}
