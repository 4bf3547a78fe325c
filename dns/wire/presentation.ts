// Record values in the form of a zone file (RFC 1035 §5.1): TXT character-strings, CAA properties, host names.

import { isIPv4, isIPv6 } from 'node:net';
import type { DnsRecord, RecordType } from '../provider.ts';

export interface CaaProperty {
  /** 128 is the critical bit (RFC 8659 §4.1). */
  readonly flags: number;
  /** Lower case. */
  readonly tag: string;
  readonly value: string;
}

/** RFC 1035 §3.3: a character-string holds at most 255 octets. */
const LONGEST_STRING = 255;

/** Text -> `"first 255 octets" "the rest"`, quotes, backslashes and unprintable octets escaped. */
export function quoteTxt(text: string): string {
  const octets = Buffer.from(text, 'utf8');
  const strings: string[] = [];
  for (let at = 0; at < octets.length || strings.length === 0; at += LONGEST_STRING) {
    strings.push(`"${escapeOctets(octets.subarray(at, at + LONGEST_STRING))}"`);
  }
  return strings.join(' ');
}

/** One or more quoted strings -> the text; anything that is not wholly quoted is the text itself. */
export function unquoteTxt(value: string): string {
  const trimmed = value.trim();
  if (!/^"(?:[^"\\]|\\.)*"(?:\s*"(?:[^"\\]|\\.)*")*$/s.test(trimmed)) return value;
  const strings = trimmed.match(/"(?:[^"\\]|\\.)*"/gs) ?? [];
  return Buffer.concat(strings.map((string) => unescapeOctets(string.slice(1, -1)))).toString('utf8');
}

/** `0 issue "letsencrypt.org"` or undefined if it is not a CAA value. Reads RFC 3597 hex (`\# 22 00 05 …`) as well. */
export function parseCaa(text: string): CaaProperty | undefined {
  const trimmed = text.trim();
  if (trimmed.startsWith('\\#')) return parseGenericCaa(trimmed);
  const match = /^(\d{1,3})\s+([a-z0-9]{1,255})\s+(.*)$/is.exec(trimmed);
  if (match === null || Number(match[1]) > 255) return undefined;
  return { flags: Number(match[1]), tag: match[2]!.toLowerCase(), value: unquoteTxt(match[3]!) };
}

export function formatCaa(property: CaaProperty): string {
  return `${property.flags} ${property.tag.toLowerCase()} "${escapeOctets(Buffer.from(property.value, 'utf8'))}"`;
}

/** Lower case and without the trailing dot (RFC 4343: names compare without case). */
export function normalizeName(name: string): string {
  return name.trim().replace(/\.$/, '').toLowerCase();
}

/** Two values of a type mean the same record exactly when their normal forms are equal. */
export function normalizeValue(type: RecordType, value: string): string {
  if (type === 'CNAME') return normalizeName(value);
  if (type === 'AAAA') return shortestAddress(value);
  if (type !== 'CAA') return value;
  const property = parseCaa(value);
  return property === undefined ? value : formatCaa(property);
}

export function sameRecord(a: DnsRecord, b: DnsRecord): boolean {
  return (
    a.type === b.type &&
    normalizeName(a.name) === normalizeName(b.name) &&
    normalizeValue(a.type, a.value) === normalizeValue(b.type, b.value)
  );
}

/** The value as a zone file writes it: TXT quoted, a CNAME's target with a trailing dot. */
export function zoneFileValue({ type, value }: DnsRecord): string {
  if (type === 'TXT') return quoteTxt(value);
  return type === 'CNAME' ? `${value}.` : value;
}

/** The record whose value a zone file has as `content`. */
export function fromZoneFile(name: string, type: RecordType, content: string): DnsRecord {
  if (type === 'TXT') return { name, type, value: unquoteTxt(content) };
  return { name, type, value: normalizeValue(type, content) };
}

/** A line for a zone file, without a TTL so that the zone's own applies. */
export function zoneFileLine(record: DnsRecord): string {
  return `${record.name}. IN ${record.type} ${zoneFileValue(record)}`;
}

function parseGenericCaa(text: string): CaaProperty | undefined {
  // RFC 3597 §5: \# <length> <hex, blanks allowed>.
  const [, length, ...hex] = text.split(/\s+/);
  const data = Buffer.from(hex.join(''), 'hex');
  const tagLength = data[1] ?? 0;
  if (data.length !== Number(length) || tagLength === 0 || data.length < 2 + tagLength) return undefined;
  return {
    flags: data[0]!,
    tag: data
      .subarray(2, 2 + tagLength)
      .toString('latin1')
      .toLowerCase(),
    value: data.subarray(2 + tagLength).toString('utf8'),
  };
}

function shortestAddress(value: string): string {
  const text = value.trim();
  if (!isIPv6(text) || isIPv4(text)) return text;
  return new URL(`http://[${text}]/`).hostname.slice(1, -1);
}

function escapeOctets(octets: Uint8Array): string {
  let text = '';
  for (const octet of octets) {
    if (octet === 0x22 || octet === 0x5c) text += `\\${String.fromCharCode(octet)}`;
    else if (octet >= 0x20 && octet < 0x7f) text += String.fromCharCode(octet);
    else text += `\\${String(octet).padStart(3, '0')}`;
  }
  return text;
}

function unescapeOctets(text: string): Buffer {
  const parts: Buffer[] = [];
  for (const [token] of text.matchAll(/\\[0-9]{3}|\\[\s\S]|[^\\]+/g)) {
    if (/^\\[0-9]{3}$/.test(token)) parts.push(Buffer.from([Number(token.slice(1)) & 0xff]));
    else parts.push(Buffer.from(token.startsWith('\\') ? token.slice(1) : token, 'utf8'));
  }
  return Buffer.concat(parts);
}
