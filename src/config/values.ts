// The words that settings are written in: durations, sizes, counts, switches, lists, addresses; text in, value out.

import { isIP, isIPv4, isIPv6 } from 'node:net';
import ipaddr from 'ipaddr.js';
import { meantIn, nearest } from '../lib/spelling.ts';

/** The text is not what the setting wants. `subject`: what is wrong with it. `cure`: what is wanted. */
export class ValueError extends Error {
  override readonly name = 'ValueError';
  readonly code = 'unreadable-value';
  readonly subject: string;
  readonly cure: string;
  constructor(subject: string, cure: string, options?: ErrorOptions) {
    super(`${subject}: ${cure}`, options);
    this.subject = subject;
    this.cure = cure;
  }
}

/** The longest delay that a timer can carry is 2^31 - 1 ms, a little under 25 days. */
const LONGEST_TIMEOUT_DAYS = 24;
const MS_PER_UNIT = { us: 0.001, ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/**
 * `10s`, `500ms`, `5m`, `24h`, `1d`, as HAProxy writes times. HAProxy reads a bare number as milliseconds and nginx as
 * seconds, so a number without a unit is refused.
 */
export function parseDuration(text: string): number {
  const match = /^(\d+)(us|ms|s|m|h|d)$/.exec(text);
  if (match === null) {
    const unitless = /^\d+$/.test(text);
    throw unitless
      ? new ValueError(
          `${quote(text)} has no unit`,
          `write ${quote(`${text}s`)} for seconds or ${quote(`${text}ms`)} for milliseconds`,
        )
      : new ValueError(
          `${quote(text)} is not a duration`,
          'wants a number and a unit (ms, s, m, h, d), as in 10s',
        );
  }
  return checkedTimeout(text, Number(match[1]) * MS_PER_UNIT[match[2] as keyof typeof MS_PER_UNIT]);
}

/** As nginx writes times: `60s`, `5m`, `1h`, and a bare number is seconds. */
export function parseNginxTime(text: string): number {
  return parseDuration(/^\d+$/.test(text) ? `${text}s` : text);
}

function checkedTimeout(text: string, ms: number): number {
  const rounded = Math.ceil(ms);
  if (rounded >= 1 && rounded <= LONGEST_TIMEOUT_DAYS * MS_PER_UNIT.d) return rounded;
  throw new ValueError(`${quote(text)} is out of range`, `wants 1ms to ${LONGEST_TIMEOUT_DAYS}d`);
}

/** A bare number is seconds, as the 2.x images had it; a unit is understood too. Zero is allowed. */
export function parseSeconds(text: string): number {
  return /^0+s?$/.test(text) ? 0 : parseNginxTime(text);
}

const BYTES_PER_UNIT = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 } as const;

/** As nginx writes sizes: `8k`, `10m`, `1g`, and a bare number is bytes. */
export function parseSize(text: string): number {
  const match = /^(\d{1,12})([kmg]?)$/i.exec(text);
  if (match === null) {
    throw new ValueError(
      `${quote(text)} is not a size`,
      'wants a number of bytes, or one with k, m or g, as in 10m',
    );
  }
  return Number(match[1]) * BYTES_PER_UNIT[match[2]!.toLowerCase() as keyof typeof BYTES_PER_UNIT];
}

export function parseCount(text: string, least: number, most: number): number {
  const count = /^(0|[1-9]\d{0,9})$/.test(text) ? Number(text) : Number.NaN;
  if (count >= least && count <= most) return count;
  const isNumber = /^\d{1,15}$/.test(text);
  throw new ValueError(
    `${quote(text)} is ${isNumber ? 'out of range' : 'not a number'}`,
    `wants a whole number from ${least} to ${most}${isNumber && /^0\d/.test(text) ? ', without a zero in front' : ''}`,
  );
}

/** From 0 to 1, as in `0.01`. */
export function parseFraction(text: string): number {
  const fraction = /^(?:0|1|[01]?\.\d{1,9})$/.test(text) ? Number(text) : Number.NaN;
  if (fraction >= 0 && fraction <= 1) return fraction;
  throw new ValueError(`${quote(text)} is not a part of one`, 'wants a number from 0 to 1, as in 0.01');
}

export function parsePort(text: string): number {
  return parseCount(text, 1, 65_535);
}

export function parseSwitch(text: string): boolean {
  if (/^(true|yes|on|1)$/i.test(text)) return true;
  if (/^(false|no|off|0)$/i.test(text)) return false;
  throw new ValueError(
    `${quote(text)} is neither true nor false`,
    `wants one of the two${meantIn(text.toLowerCase(), ['true', 'false'])}`,
  );
}

export function parseChoice<const T extends string>(text: string, choices: readonly T[]): T {
  const chosen = choices.find((choice) => choice === text.toLowerCase());
  if (chosen !== undefined) return chosen;
  const like = nearest(text.toLowerCase(), choices);
  throw new ValueError(
    `${quote(text)} is not one of ${choices.join(', ')}`,
    like === undefined ? 'wants one of them' : `was ${like} meant?`,
  );
}

/** Items between commas or line ends; what follows a # at the start of a line or after a space is a comment. */
export function splitLines(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.replace(/(^|\s)#.*$/, ''))
    .flatMap((line) => line.split(','))
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

/** Items between commas, spaces or line ends. */
export function splitWords(text: string): string[] {
  return splitLines(text).flatMap((item) => item.split(/\s+/));
}

/**
 * A host as a socket address takes it: a name in lower case (service names with underscores too), or an IP literal
 * without its brackets (RFC 3986 §3.2.2).
 */
export function parseHost(text: string): string {
  const bracketed = /^\[(.*)\]$/.exec(text);
  if (bracketed !== null) {
    if (isIPv6(bracketed[1]!)) return bracketed[1]!.toLowerCase();
    throw new ValueError(`${quote(text)} is not an IPv6 address`, 'wants one as in [fd00::1]');
  }
  if (text.includes(':')) {
    throw new ValueError(
      `${quote(text)} is not a host name`,
      'wants one as in app, or an IPv6 address in brackets',
    );
  }
  if (/^[\d.]+$/.test(text)) {
    if (isIPv4(text)) return text;
    throw new ValueError(`${quote(text)} is not an IPv4 address`, 'wants one as in 10.0.0.1');
  }
  // Container names may hold underscores, which host names (RFC 1123 §2.1) may not.
  if (text.length <= 253 && /^[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*\.?$/i.test(text)) {
    return text.toLowerCase().replace(/\.$/, '');
  }
  throw new ValueError(`${quote(text)} is not a host name`, 'wants one as in app or app.internal');
}

/** `host:port`, `1.2.3.4:53`, `[::1]:53`; a missing port is `defaultPort`, or refused where there is none. */
export function parseAddress(text: string, defaultPort?: number): { host: string; port: number } {
  const bareIpv6 = isIPv6(text);
  const match = bareIpv6 ? null : /^(.*):([^:\]]*)$/.exec(text);
  if (match !== null) return { host: parseHost(match[1]!), port: parsePort(match[2]!) };
  const host = parseHost(bareIpv6 ? `[${text}]` : text);
  if (defaultPort === undefined) throw new ValueError(`${quote(text)} has no port`, 'wants host:port');
  return { host, port: defaultPort };
}

/** Loopback, RFC 1918, RFC 6598, link-local and RFC 4193: where a gateway's tunnel or a container bridge has its end. */
const PRIVATE_NETWORKS = [
  '127.0.0.0/8',
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '100.64.0.0/10',
  '169.254.0.0/16',
  '::1/128',
  'fc00::/7',
  'fe80::/10',
] as const;

/** `private`, `any`, addresses and CIDR blocks -> CIDR blocks. */
export function parseNetworks(text: string): string[] {
  const words = splitWords(text);
  if (words.length === 0)
    throw new ValueError(`${quote(text)} names no network`, 'wants private, any, an address or a CIDR block');
  return words.flatMap((word) => {
    if (word.toLowerCase() === 'private') return PRIVATE_NETWORKS;
    if (word.toLowerCase() === 'any') return ['0.0.0.0/0', '::/0'];
    return [parseNetwork(word)];
  });
}

function parseNetwork(word: string): string {
  const block = isIP(word) ? `${word}/${isIPv4(word) ? 32 : 128}` : word;
  // The parser also takes forms such as 10/8 that other readers of the same setting would read otherwise.
  const plain = isIP(block.split('/')[0]!) !== 0;
  if (plain && ipaddr.isValidCIDR(block)) return block.toLowerCase();
  throw new ValueError(
    `${quote(word)} is not a network`,
    `wants private, any, an address or a CIDR block as in 10.0.0.0/8${meantIn(word.toLowerCase(), ['private', 'any'])}`,
  );
}

/** An https URL without credentials, normalised. */
export function parseHttpsUrl(text: string): string {
  const url = URL.parse(text);
  if (url === null) throw new ValueError(`${quote(text)} is not a URL`, 'wants https://…');
  if (url.username !== '' || url.password !== '')
    throw new ValueError('holds a user name or password', 'wants a URL without');
  if (url.protocol !== 'https:')
    throw new ValueError(`${quote(text)} is not an https:// URL`, 'wants https://…');
  return url.href;
}

/** The text as it can be shown: on one line, not too much of it, and without a password. */
export function quote(text: string): string {
  const shown = withoutUserInfo(text);
  return JSON.stringify(shown.length > 80 ? `${shown.slice(0, 77)}…` : shown);
}

/** What stands before an @ may be a password (RFC 3986 §3.2.1). */
export function withoutUserInfo(text: string): string {
  return text.replace(/[^\s"/]+@/g, '…@');
}
