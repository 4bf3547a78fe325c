// Header blocks of HTTP/2 (RFC 7541): field lists to octets and back, with the tables that both ends keep.

import { type Outbox, reserve } from '../socket/outbox.ts';
import { decodedSize, huffmanSize, readHuffman, writeHuffman } from './huffman.ts';

/**
 * A header field, name and value in latin-1. All blocks that refer to an entry of a table share its field, and with it
 * what a reader has found out about it.
 */
export interface HeaderField {
  readonly name: string;
  readonly value: string;
  /** RFC 7541 §7.1.3: it must not enter a table, of ours or of anyone who passes it on. */
  readonly neverIndexed: boolean;
  /** What kind of field it is, once its reader has looked; 0 until then. */
  kind: number;
  /** As a line of HTTP/1.1, made when it is first asked for; empty until then. */
  line: string;
}

export function createField(name: string, value: string, neverIndexed = false): HeaderField {
  return { name, value, neverIndexed, kind: 0, line: '' };
}

/** RFC 7541 Appendix A, in order; the index of the first is 1. */
const STATIC: readonly HeaderField[] = [
  [':authority'],
  ...['GET', 'POST'].map((value) => [':method', value]),
  ...['/', '/index.html'].map((value) => [':path', value]),
  ...['http', 'https'].map((value) => [':scheme', value]),
  ...['200', '204', '206', '304', '400', '404', '500'].map((value) => [':status', value]),
  ['accept-charset'],
  ['accept-encoding', 'gzip, deflate'],
  ...(
    'accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control ' +
    'content-disposition content-encoding content-language content-length content-location content-range ' +
    'content-type cookie date etag expect expires from host if-match if-modified-since if-none-match if-range ' +
    'if-unmodified-since last-modified link location max-forwards proxy-authenticate proxy-authorization range ' +
    'referer refresh retry-after server set-cookie strict-transport-security transfer-encoding user-agent vary ' +
    'via www-authenticate'
  )
    .split(' ')
    .map((name) => [name]),
].map(([name, value = '']) => createField(name!, value));

/** What an entry costs beside its octets (RFC 7541 §4.1). */
const ENTRY_OVERHEAD = 32;
/** RFC 9113 §6.5.2: the size of either table until SETTINGS say otherwise. */
export const DEFAULT_TABLE_BYTES = 4_096;

// --- Reading ---

export interface HpackDecoder {
  /** The dynamic table, a ring: the newest entry at `newest`, older ones after it. */
  readonly entries: (HeaderField | undefined)[];
  newest: number;
  count: number;
  bytes: number;
  /** What the encoder has chosen, up to what we allow. */
  limit: number;
  readonly allowed: number;
}

/** `allowed`: the SETTINGS_HEADER_TABLE_SIZE that the peer was told. */
export function createDecoder(allowed = DEFAULT_TABLE_BYTES): HpackDecoder {
  const most = 2 ** Math.ceil(Math.log2(Math.max(2, allowed / ENTRY_OVERHEAD)));
  return { entries: Array(most).fill(undefined), newest: 0, count: 0, bytes: 0, limit: allowed, allowed };
}

export interface BlockLimits {
  /** Of all fields, each counted as RFC 9113 §6.5.2 does: name, value and 32. */
  readonly bytes: number;
  readonly count: number;
}

export type BlockOutcome =
  | 'whole'
  /** `into` holds the fields within the limits; the tables still match the peer's. */
  | 'too-large'
  /** COMPRESSION_ERROR: the tables no longer match the peer's, and the connection must end. */
  | 'broken';

/** Where one block is being read; blocks are read in one go, one at a time. */
let block: Buffer = Buffer.alloc(0);
let pos = 0;
let end = 0;
let decoded: Buffer = Buffer.allocUnsafeSlow(1_024);

const BROKEN = -1;
/** A larger number is refused: no block that we take needs one. */
const LARGEST = 2 ** 28;

/** Reads the whole header block `bytes[start, stop)` and appends its fields to `into`. */
export function readBlock(
  decoder: HpackDecoder,
  bytes: Buffer,
  start: number,
  stop: number,
  limits: BlockLimits,
  into: HeaderField[],
): BlockOutcome {
  block = bytes;
  pos = start;
  end = stop;
  let size = 0;
  let fields = 0;
  while (pos < end) {
    const first = block[pos]!;
    if ((first & 0xe0) === 0x20) {
      // RFC 7541 §4.2: only at the beginning of a block.
      const limit = readInteger(5);
      if (fields > 0 || limit === BROKEN || limit > decoder.allowed) return 'broken';
      decoder.limit = limit;
      evict(decoder, 0);
      continue;
    }
    const field = readField(decoder, first);
    if (field === undefined) return 'broken';
    size += field.name.length + field.value.length + ENTRY_OVERHEAD;
    fields++;
    if (size <= limits.bytes && fields <= limits.count) into.push(field);
  }
  return size <= limits.bytes && fields <= limits.count ? 'whole' : 'too-large';
}

function readField(decoder: HpackDecoder, first: number): HeaderField | undefined {
  if (first >= 0x80) return fieldAt(decoder, readInteger(7));
  const indexed = (first & 0xc0) === 0x40;
  const name = readName(decoder, indexed ? 6 : 4);
  const value = name === undefined ? undefined : readString();
  if (name === undefined || value === undefined) return undefined;
  const field = createField(name, value, (first & 0xf0) === 0x10);
  if (indexed) insert(decoder, field);
  return field;
}

function readName(decoder: HpackDecoder, prefixBits: number): string | undefined {
  const index = readInteger(prefixBits);
  return index === 0 ? readString() : fieldAt(decoder, index)?.name;
}

function fieldAt(decoder: HpackDecoder, index: number): HeaderField | undefined {
  if (index <= STATIC.length) return STATIC[index - 1];
  const nth = index - STATIC.length - 1;
  return nth < decoder.count
    ? decoder.entries[(decoder.newest + nth) & (decoder.entries.length - 1)]
    : undefined;
}

/** RFC 7541 §5.1. */
function readInteger(prefixBits: number): number {
  const mask = 2 ** prefixBits - 1;
  let value = block[pos++]! & mask;
  if (value < mask) return value;
  for (let scale = 1; pos < end; scale *= 128) {
    const byte = block[pos++]!;
    value += (byte & 0x7f) * scale;
    if (value > LARGEST || scale > LARGEST) return BROKEN;
    if (byte < 0x80) return value;
  }
  return BROKEN;
}

/** RFC 7541 §5.2. */
function readString(): string | undefined {
  if (pos >= end) return undefined;
  const coded = block[pos]! >= 0x80;
  const size = readInteger(7);
  if (size === BROKEN || size > end - pos) return undefined;
  const start = pos;
  pos += size;
  if (!coded) return block.toString('latin1', start, pos);
  if (decodedSize(size) > decoded.length) decoded = Buffer.allocUnsafeSlow(2 * decodedSize(size));
  const length = readHuffman(block, start, pos, decoded);
  return length === -1 ? undefined : decoded.toString('latin1', 0, length);
}

/** RFC 7541 §4.4. */
function insert(decoder: HpackDecoder, field: HeaderField): void {
  const size = field.name.length + field.value.length + ENTRY_OVERHEAD;
  evict(decoder, size);
  // An entry larger than the table empties it and is not added.
  if (size > decoder.limit) return;
  const { entries } = decoder;
  decoder.newest = (decoder.newest - 1) & (entries.length - 1);
  entries[decoder.newest] = field;
  decoder.count++;
  decoder.bytes += size;
}

function evict(decoder: HpackDecoder, room: number): void {
  const { entries } = decoder;
  while (decoder.count > 0 && decoder.bytes + room > decoder.limit) {
    const oldest = (decoder.newest + --decoder.count) & (entries.length - 1);
    const { name, value } = entries[oldest]!;
    entries[oldest] = undefined;
    decoder.bytes -= name.length + value.length + ENTRY_OVERHEAD;
  }
}

// --- Writing ---

/** What the encoder knows of one name. */
interface KnownName {
  /** 0: none. */
  readonly staticIndex: number;
  readonly fixed: ReadonlyMap<string, number> | undefined;
  readonly secret: boolean;
  /** The value that was sent last: one that comes twice in a row is worth an entry. */
  last: string | undefined;
  /** Entries of the dynamic table, by value; each as the number of insertions up to it. */
  readonly entries: Map<string, number>;
  newest: number;
}

interface SentEntry {
  readonly known: KnownName;
  readonly value: string;
  readonly size: number;
}

export interface HpackEncoder {
  readonly names: Map<string, KnownName>;
  /** The dynamic table, oldest first from `oldest` on. */
  readonly table: SentEntry[];
  oldest: number;
  inserted: number;
  bytes: number;
  limit: number;
  /** Below 0: the peer knows the limit. Otherwise the lowest limit since the peer was last told one (RFC 7541 §4.2). */
  lowest: number;
}

export function createEncoder(): HpackEncoder {
  return {
    names: new Map(),
    table: [],
    oldest: 0,
    inserted: 0,
    bytes: 0,
    limit: DEFAULT_TABLE_BYTES,
    lowest: -1,
  };
}

/** So many names are remembered for each connection; fields of other names are sent as literals. */
const MOST_NAMES = 256;
/** A larger entry would evict most others. */
const LARGEST_ENTRY = DEFAULT_TABLE_BYTES / 4;

/** RFC 7541 §7.1: values that must not enter a shared table, where the size of a block would help to guess them. */
const SECRETS = new Set(['authorization', 'proxy-authorization', 'cookie', 'set-cookie']);

const staticNames = new Map<string, { index: number; fixed: Map<string, number> }>();
STATIC.forEach(({ name, value }, at) => {
  const known = staticNames.get(name) ?? { index: at + 1, fixed: new Map() };
  if (value !== '') known.fixed.set(value, at + 1);
  staticNames.set(name, known);
});

/** Applies the peer's SETTINGS_HEADER_TABLE_SIZE. We never use more than the default. */
export function limitTable(encoder: HpackEncoder, allowed: number): void {
  const limit = Math.min(allowed, DEFAULT_TABLE_BYTES);
  if (limit === encoder.limit) return;
  encoder.lowest = encoder.lowest < 0 ? limit : Math.min(encoder.lowest, limit);
  encoder.limit = limit;
  dropEntries(encoder, 0);
}

/** To be called before the first field of a block. */
export function beginBlock(encoder: HpackEncoder, out: Outbox): void {
  const { lowest, limit } = encoder;
  if (lowest < 0) return;
  reserve(out, 12);
  if (lowest < limit) writeInteger(out, 0x20, 5, lowest);
  writeInteger(out, 0x20, 5, limit);
  encoder.lowest = -1;
}

/** Appends one field, `name` in lower case. */
export function writeField(
  encoder: HpackEncoder,
  out: Outbox,
  name: string,
  value: string,
  neverIndexed = false,
) {
  // Strings take at most their length: Huffman is used only where it is shorter. The rest is for the numbers.
  reserve(out, name.length + value.length + 24);
  const known = encoder.names.get(name) ?? meet(encoder, name);
  if (known === undefined)
    return writeLiteral(encoder, out, neverIndexed ? 0x10 : 0, 4, undefined, name, value);
  if (neverIndexed || known.secret) return writeLiteral(encoder, out, 0x10, 4, known, name, value);
  const fixed = known.fixed?.get(value);
  if (fixed !== undefined) return writeInteger(out, 0x80, 7, fixed);
  const entry = known.entries.get(value);
  if (entry !== undefined) return writeInteger(out, 0x80, 7, indexOf(encoder, entry));
  const size = name.length + value.length + ENTRY_OVERHEAD;
  if (known.last !== value || size > encoder.limit) {
    known.last = size > LARGEST_ENTRY ? undefined : value;
    return writeLiteral(encoder, out, 0, 4, known, name, value);
  }
  writeLiteral(encoder, out, 0x40, 6, known, name, value);
  dropEntries(encoder, size);
  encoder.table.push({ known, value, size });
  encoder.bytes += size;
  known.newest = ++encoder.inserted;
  known.entries.set(value, known.newest);
}

function meet(encoder: HpackEncoder, name: string): KnownName | undefined {
  if (encoder.names.size >= MOST_NAMES) return undefined;
  const standard = staticNames.get(name);
  const known: KnownName = {
    staticIndex: standard?.index ?? 0,
    fixed: standard?.fixed,
    secret: SECRETS.has(name),
    last: undefined,
    entries: new Map(),
    newest: 0,
  };
  encoder.names.set(name, known);
  return known;
}

function indexOf(encoder: HpackEncoder, entry: number): number {
  return STATIC.length + 1 + encoder.inserted - entry;
}

function writeLiteral(
  encoder: HpackEncoder,
  out: Outbox,
  pattern: number,
  prefixBits: number,
  known: KnownName | undefined,
  name: string,
  value: string,
): void {
  if (known !== undefined && known.staticIndex > 0) writeInteger(out, pattern, prefixBits, known.staticIndex);
  else if (known !== undefined && known.newest > 0)
    writeInteger(out, pattern, prefixBits, indexOf(encoder, known.newest));
  else {
    out.bytes[out.length++] = pattern;
    writeString(out, name);
  }
  writeString(out, value);
}

function writeInteger(out: Outbox, pattern: number, prefixBits: number, value: number): void {
  const { bytes: to } = out;
  const mask = 2 ** prefixBits - 1;
  if (value < mask) {
    to[out.length++] = pattern | value;
    return;
  }
  to[out.length++] = pattern | mask;
  let rest = value - mask;
  for (; rest >= 128; rest >>>= 7) to[out.length++] = (rest & 0x7f) | 0x80;
  to[out.length++] = rest;
}

function writeString(out: Outbox, text: string): void {
  const size = huffmanSize(text);
  if (size < text.length) {
    writeInteger(out, 0x80, 7, size);
    out.length = writeHuffman(text, out.bytes, out.length);
    return;
  }
  writeInteger(out, 0, 7, text.length);
  out.length += out.bytes.write(text, out.length, 'latin1');
}

function dropEntries(encoder: HpackEncoder, room: number): void {
  const { table } = encoder;
  while (encoder.oldest < table.length && encoder.bytes + room > encoder.limit) {
    const { known, value, size } = table[encoder.oldest++]!;
    const entry = encoder.inserted - (table.length - encoder.oldest);
    known.entries.delete(value);
    if (known.newest === entry) known.newest = 0;
    encoder.bytes -= size;
  }
  // Removes dropped entries from the array, many at a time.
  if (encoder.oldest < 64) return;
  table.splice(0, encoder.oldest);
  encoder.oldest = 0;
}
