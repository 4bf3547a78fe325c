// Record values as bytes for a DNS message, the counterpart of reading them.

import { isIPv4, isIPv6 } from 'node:net';
import { DnsError } from '../error.ts';
import type { DnsRecord } from '../provider.ts';
import { encodeName } from './message.ts';
import { parseCaa } from './presentation.ts';

/** Throws DnsError `unsupported` for a value that its type cannot have. */
export function encodeValue({ type, value, name }: DnsRecord): Buffer {
  switch (type) {
    case 'A':
      if (isIPv4(value)) return Buffer.from(value.split('.').map(Number));
      break;
    case 'AAAA':
      if (isIPv6(value)) return encodeIPv6(value);
      break;
    case 'CNAME':
      return encodeName(value);
    case 'TXT':
      return encodeText(value);
    case 'CAA': {
      const property = parseCaa(value);
      if (property === undefined) break;
      // RFC 8659 §4.1.
      return Buffer.concat([
        Buffer.from([property.flags, property.tag.length]),
        Buffer.from(property.tag + property.value),
      ]);
    }
  }
  throw new DnsError('unsupported', `${JSON.stringify(value)} is not a value for ${type} of ${name}`);
}

function encodeIPv6(text: string): Buffer {
  // The URL parser turns an IPv4 tail into hex; only the gap is left to fill.
  const groups = new URL(`http://[${text}]/`).hostname.slice(1, -1).split('::');
  const [head = [], tail = []] = groups.map((part) => (part === '' ? [] : part.split(':')));
  const gap = groups.length === 2 ? Array.from({ length: 8 - head.length - tail.length }, () => '0') : [];
  return Buffer.from([...head, ...gap, ...tail].map((group) => group.padStart(4, '0')).join(''), 'hex');
}

/** RFC 1035 §3.3: strings of at most 255 octets, at least one. */
function encodeText(text: string): Buffer {
  const octets = Buffer.from(text, 'utf8');
  const strings: Buffer[] = [];
  for (let at = 0; at < octets.length || strings.length === 0; at += 255) {
    const part = octets.subarray(at, at + 255);
    strings.push(Buffer.from([part.length]), part);
  }
  return Buffer.concat(strings);
}
