// DNS messages as bytes (RFC 1035 §4), read strictly: a message that does not parse completely is refused.

import { DnsError } from '../error.ts';
import { formatCaa, normalizeName } from './presentation.ts';

export const typeNumbers = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  TXT: 16,
  AAAA: 28,
  OPT: 41,
  TSIG: 250,
  ANY: 255,
  CAA: 257,
} as const;

/** RFC 1035 §4.1.1 and RFC 2136 §2.2. */
export const responseCodes: Readonly<Record<number, string>> = {
  0: 'NOERROR',
  1: 'FORMERR',
  2: 'SERVFAIL',
  3: 'NXDOMAIN',
  4: 'NOTIMP',
  5: 'REFUSED',
  6: 'YXDOMAIN',
  7: 'YXRRSET',
  8: 'NXRRSET',
  9: 'NOTAUTH',
  10: 'NOTZONE',
};

export interface Question {
  /** Lower case, without the trailing dot; the root is "". */
  readonly name: string;
  readonly type: number;
  readonly class: number;
}

export interface ResourceRecord {
  readonly name: string;
  readonly type: number;
  readonly class: number;
  readonly ttl: number;
  /** As on the wire; names inside it are written out in full. */
  readonly data: Buffer;
}

export interface Message {
  readonly id: number;
  /** The second 16 bits of the header as they are. */
  readonly flags: number;
  readonly questions: readonly Question[];
  readonly answers: readonly ResourceRecord[];
  readonly authority: readonly ResourceRecord[];
  readonly additional: readonly ResourceRecord[];
}

export const FLAG_RESPONSE = 0x8000;
export const FLAG_AUTHORITATIVE = 0x0400;
export const FLAG_TRUNCATED = 0x0200;
export const FLAG_RECURSION_DESIRED = 0x0100;
/** In a question: tell me (RFC 6840 §5.7). In an answer: the resolver has validated it (RFC 4035 §3.2.3). */
export const FLAG_AUTHENTIC_DATA = 0x0020;
export const CLASS_IN = 1;

export function responseCode(message: Message): number {
  return message.flags & 0x0f;
}

/** One question with EDNS(0) (RFC 6891): answers of up to 1232 octets fit one datagram on any path. */
export function encodeQuery(id: number, question: Question, recursionDesired: boolean): Buffer {
  return encodeMessage({
    id,
    flags: recursionDesired ? FLAG_RECURSION_DESIRED | FLAG_AUTHENTIC_DATA : 0,
    questions: [question],
    answers: [],
    authority: [],
    additional: [{ name: '', type: typeNumbers.OPT, class: 1232, ttl: 0, data: Buffer.alloc(0) }],
  });
}

/** Names are written without compression. Throws DnsError `unsupported` for a name that DNS cannot hold. */
export function encodeMessage(message: Message): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt16BE(message.id, 0);
  header.writeUInt16BE(message.flags, 2);
  const sections = [message.questions, message.answers, message.authority, message.additional];
  sections.forEach((section, index) => {
    header.writeUInt16BE(section.length, 4 + 2 * index);
  });
  const records = [...message.answers, ...message.authority, ...message.additional];
  return Buffer.concat([header, ...message.questions.map(encodeQuestion), ...records.map(encodeRecord)]);
}

/** RFC 1035 §3.1. `\DDD` and `\.` escapes are understood, as decoding produces them. */
export function encodeName(name: string): Buffer {
  const refuse = (why: string) =>
    new DnsError('unsupported', `${JSON.stringify(name)} is not a DNS name: ${why}`);
  const parts: Buffer[] = [];
  if (name !== '') {
    for (const label of splitLabels(name)) {
      if (label.length === 0) throw refuse('it has an empty label');
      if (label.length > 63) throw refuse('a label is longer than 63 octets');
      parts.push(Buffer.from([label.length]), label);
    }
  }
  const encoded = Buffer.concat([...parts, Buffer.from([0])]);
  if (encoded.length > 255) throw refuse('it is longer than 255 octets');
  return encoded;
}

/** Throws DnsError `unintelligible`. Octets after the last record are refused too. */
export function decodeMessage(bytes: Buffer): Message {
  const reader = createReader(bytes);
  const id = reader.uint16();
  const flags = reader.uint16();
  const counts = [reader.uint16(), reader.uint16(), reader.uint16(), reader.uint16()] as const;
  const times = <T>(count: number, read: () => T) => Array.from({ length: count }, read);
  const message = {
    id,
    flags,
    questions: times(counts[0], reader.question),
    answers: times(counts[1], reader.record),
    authority: times(counts[2], reader.record),
    additional: times(counts[3], reader.record),
  };
  // A truncated message may end anywhere. Its records are not used, as the question is repeated over TCP.
  if (!reader.atEnd()) throw unreadable('it goes on after its last record');
  return message;
}

/** Where the last record begins: a signature covers everything before itself (RFC 8945 §4.3). */
export function startOfLastRecord(bytes: Buffer): number {
  const { questions, answers, authority, additional } = decodeMessage(bytes);
  const reader = createReader(bytes);
  for (let header = 0; header < 6; header++) reader.uint16();
  for (let left = questions.length; left > 0; left--) reader.question();
  for (let left = answers.length + authority.length + additional.length - 1; left > 0; left--)
    reader.record();
  return reader.position();
}

/** The record's value as DnsRecord has it. Throws DnsError `unintelligible` if its data does not fit its type. */
export function recordValue(record: ResourceRecord): string {
  const { data, type } = record;
  switch (type) {
    case typeNumbers.A:
      if (data.length !== 4) throw unreadable('an A record has not 4 octets');
      return [...data].join('.');
    case typeNumbers.AAAA:
      if (data.length !== 16) throw unreadable('an AAAA record has not 16 octets');
      return new URL(`http://[${data.toString('hex').replace(/(.{4})(?=.)/g, '$1:')}]/`).hostname.slice(
        1,
        -1,
      );
    case typeNumbers.CNAME:
    case typeNumbers.NS:
      return createReader(data).wholeName();
    case typeNumbers.TXT:
      return Buffer.concat(characterStrings(data)).toString('utf8');
    case typeNumbers.CAA:
      return caaValue(data);
    default:
      return data.toString('hex');
  }
}

/** The strings of a TXT record one by one (RFC 1035 §3.3.14). */
export function characterStrings(data: Buffer): Buffer[] {
  const strings: Buffer[] = [];
  for (let at = 0; at < data.length; ) {
    const end = at + 1 + data[at]!;
    if (end > data.length) throw unreadable('a TXT string is longer than its record');
    strings.push(data.subarray(at + 1, end));
    at = end;
  }
  if (strings.length === 0) throw unreadable('a TXT record has no string');
  return strings;
}

/** RFC 8659 §4.1: flags, tag length, tag, value. */
function caaValue(data: Buffer): string {
  const tagLength = data[1] ?? 0;
  if (tagLength === 0 || data.length < 2 + tagLength) throw unreadable('a CAA record has no tag');
  return formatCaa({
    flags: data[0]!,
    tag: data.subarray(2, 2 + tagLength).toString('latin1'),
    value: data.subarray(2 + tagLength).toString('utf8'),
  });
}

function encodeQuestion(question: Question): Buffer {
  const tail = Buffer.alloc(4);
  tail.writeUInt16BE(question.type, 0);
  tail.writeUInt16BE(question.class, 2);
  return Buffer.concat([encodeName(question.name), tail]);
}

function encodeRecord(record: ResourceRecord): Buffer {
  const middle = Buffer.alloc(10);
  middle.writeUInt16BE(record.type, 0);
  middle.writeUInt16BE(record.class, 2);
  middle.writeUInt32BE(record.ttl, 4);
  middle.writeUInt16BE(record.data.length, 8);
  return Buffer.concat([encodeName(record.name), middle, record.data]);
}

function splitLabels(name: string): Buffer[] {
  const labels: Buffer[][] = [[]];
  for (const [token] of name.matchAll(/\\[0-9]{3}|\\[\s\S]|[^\\.]+|\./g)) {
    if (token === '.') labels.push([]);
    else if (/^\\[0-9]{3}$/.test(token)) labels.at(-1)!.push(Buffer.from([Number(token.slice(1)) & 0xff]));
    else labels.at(-1)!.push(Buffer.from(token.startsWith('\\') ? token.slice(1) : token, 'latin1'));
  }
  return labels.map((parts) => Buffer.concat(parts));
}

function createReader(bytes: Buffer) {
  let at = 0;
  const take = (length: number): Buffer => {
    if (at + length > bytes.length) throw unreadable('it ends in the middle of a record');
    at += length;
    return bytes.subarray(at - length, at);
  };
  const uint16 = () => take(2).readUInt16BE();
  const uint32 = () => take(4).readUInt32BE();
  const name = () => {
    const read = readName(bytes, at);
    at = read.end;
    return read.name;
  };
  const record = (): ResourceRecord => {
    const head = { name: name(), type: uint16(), class: uint16(), ttl: uint32() };
    const length = uint16();
    const start = at;
    const raw = take(length);
    return { ...head, data: expandNames(bytes, start, raw, head.type) };
  };
  return {
    uint16,
    record,
    question: (): Question => ({ name: name(), type: uint16(), class: uint16() }),
    atEnd: () => at === bytes.length,
    position: () => at,
    wholeName: () => {
      const read = name();
      if (at !== bytes.length) throw unreadable('a name is shorter than its record');
      return read;
    },
  };
}

/** RFC 1035 §4.1.4: names in these old types may be compressed; in all others they must not be (RFC 3597 §4). */
function expandNames(message: Buffer, start: number, raw: Buffer, type: number): Buffer {
  if (type !== typeNumbers.CNAME && type !== typeNumbers.NS) return raw;
  const { name, end } = readName(message, start);
  if (end !== start + raw.length) throw unreadable('a name is not as long as its record');
  return encodeName(name);
}

function readName(bytes: Buffer, start: number): { name: string; end: number } {
  const labels: string[] = [];
  let at = start;
  let end: number | undefined;
  let length = 1;
  // A pointer must point before everything read so far, so that no input can make this loop endless.
  let limit = start;
  for (;;) {
    const size = bytes[at];
    if (size === undefined) throw unreadable('a name goes on after its end');
    if (size === 0) break;
    if (size >= 0xc0) {
      const low = bytes[at + 1];
      if (low === undefined) throw unreadable('a name goes on after its end');
      const target = ((size & 0x3f) << 8) | low;
      if (target >= limit) throw unreadable('a compressed name points forwards');
      end ??= at + 2;
      limit = target;
      at = target;
      continue;
    }
    if (size > 63) throw unreadable('a label has an unknown form');
    length += size + 1;
    if (length > 255) throw unreadable('a name is longer than 255 octets');
    if (at + 1 + size > bytes.length) throw unreadable('a name goes on after its end');
    labels.push(labelText(bytes.subarray(at + 1, at + 1 + size)));
    at += 1 + size;
  }
  return { name: normalizeName(labels.join('.')), end: end ?? at + 1 };
}

function labelText(octets: Buffer): string {
  let text = '';
  for (const octet of octets) {
    if (octet === 0x2e || octet === 0x5c) text += `\\${String.fromCharCode(octet)}`;
    else if (octet > 0x20 && octet < 0x7f) text += String.fromCharCode(octet);
    else text += `\\${String(octet).padStart(3, '0')}`;
  }
  return text;
}

function unreadable(why: string): DnsError {
  return new DnsError('unintelligible', `a DNS message cannot be read: ${why}`);
}
