// The heads that leave, with what passes of those that came, and what the ingress says about the client (RFC 9110 §7.6, RFC 7239).

import {
  interimDrops,
  replyDrops,
  replyLengthDrops,
  requestDrops,
  trailerDrops,
  unframedDrops,
  unframedLengthDrops,
} from '../http1/drops.ts';
import { field } from '../http1/known-fields.ts';
import { LINE, type MessageHead, nameAt, valueAt } from '../http1/message.ts';
import { saidBit } from '../rules/field-names.ts';
import type { ClientConnection } from './context.ts';

/** What is said about a client, and whether what it says itself is believed. */
export type Client = Pick<ClientConnection, 'clientAddress' | 'serverPort' | 'trustedClient'>;

/** The forwarded family as a trusted proxy sent it; lower-case names, repeated fields joined by ", ". */
export type ForwardedBefore = Readonly<Partial<Record<string, string>>>;

/**
 * The forwarded family for the upstream: `host` is the Host or :authority as sent. What a client says is overwritten
 * unless it is a trusted proxy: then the lists grow by one and the rest is kept.
 */
export function forwardedFields(client: Client, host: string, before: ForwardedBefore): [string, string][] {
  const believed = client.trustedClient ? before : {};
  const { clientAddress: address } = client;
  return [
    ['x-forwarded-for', appended(believed['x-forwarded-for'], address)],
    ['x-forwarded-proto', believed['x-forwarded-proto'] ?? 'https'],
    ['x-forwarded-host', believed['x-forwarded-host'] ?? host],
    ['x-forwarded-port', believed['x-forwarded-port'] ?? String(client.serverPort)],
    ['x-real-ip', believed['x-real-ip'] ?? address],
    ['forwarded', appended(believed.forwarded, forwardedElement(address, host))],
  ];
}

function appended(list: string | undefined, item: string): string {
  return list === undefined || list === '' ? item : `${list}, ${item}`;
}

/** RFC 7239 §4 to §6: IPv6 in brackets, and what is not a token in quotes. */
function forwardedElement(address: string, host: string): string {
  const node = address.includes(':') ? `"[${address}]"` : address;
  const asked = /[^A-Za-z0-9._-]/.test(host) ? `"${host}"` : host;
  return `for=${node};host=${asked};proto=https`;
}

/**
 * The forwarded family of a client that is not believed, as header lines without those that rules have said (saidBit()). It
 * changes with the host alone, so ask once and keep. Put together in one piece: hosts may change with every request.
 */
export function forwardedLines(client: Omit<Client, 'trustedClient'>, host: string, says = 0): string {
  const { clientAddress: address, serverPort } = client;
  if (says === 0)
    return `x-forwarded-for: ${address}\r\nx-forwarded-proto: https\r\nx-forwarded-host: ${host}\r\nx-forwarded-port: ${serverPort}\r\nx-real-ip: ${address}\r\nforwarded: ${forwardedElement(address, host)}\r\n`;
  let lines = '';
  if ((says & FOR) === 0) lines += `x-forwarded-for: ${address}\r\n`;
  if ((says & PROTO) === 0) lines += 'x-forwarded-proto: https\r\n';
  if ((says & HOST) === 0) lines += `x-forwarded-host: ${host}\r\n`;
  if ((says & PORT) === 0) lines += `x-forwarded-port: ${serverPort}\r\n`;
  if ((says & REAL_IP) === 0) lines += `x-real-ip: ${address}\r\n`;
  return (says & FORWARDED) === 0 ? `${lines}forwarded: ${forwardedElement(address, host)}\r\n` : lines;
}

const FORWARDED = saidBit('forwarded');
const FOR = saidBit('x-forwarded-for');
const PROTO = saidBit('x-forwarded-proto');
const HOST = saidBit('x-forwarded-host');
const PORT = saidBit('x-forwarded-port');
const REAL_IP = saidBit('x-real-ip');

/** Fields of our own as complete HTTP/1.1 header lines. */
export function headerLines(fields: readonly (readonly [string, string])[]): string {
  // Joined, not added up: a sum is kept as the tree of its parts, and walked with every message that it is a part of.
  return fields.map(([name, value]) => `${name}: ${value}\r\n`).join('');
}

/** The forwarded family as an HTTP/1.1 request carries it. */
export function forwardedBefore(head: MessageHead): ForwardedBefore {
  const before: Record<string, string> = {};
  for (let line = 0; line < head.count; line++) {
    const id = head.lines[line * LINE + 4]!;
    if (id < field.forwarded || id > field.xRealIp) continue;
    const name = nameAt(head, line).toLowerCase();
    before[name] = appended(before[name], valueAt(head, line));
  }
  return before;
}

/** The request head for the upstream. `target` in origin or asterisk form; `own` are complete header lines. */
export function requestHeadText(head: MessageHead, target: string, own: string, upgrade: boolean): string {
  const lines = upgrade ? `${own}Connection: Upgrade\r\nUpgrade: ${head.upgradeTo}\r\n` : own;
  // The start line of RFC 9112 §3, which is how most arrive.
  if (head.minor === 1 && target === head.target) return keptText(head, 0, requestDrops, lines);
  return `${head.method} ${target} HTTP/1.1\r\n${keptText(head, head.fieldsStart, requestDrops, lines)}`;
}

/** How a reply's body leaves: framed as it came, or not at all framed (close-delimited, to HTTP/1.0). */
export type ReplyFraming = 'as-it-came' | 'unframed';

/** A final reply's head for the client. `own` are complete header lines. */
export function replyHeadText(head: MessageHead, framing: ReplyFraming, own: string): string {
  return withStatusLine(head, finalDrops(head, framing), rewrittenLength(head) + own);
}

/** Of a final reply. */
export function finalDrops({ status, lengthRewritten }: MessageHead, framing: ReplyFraming): Uint8Array {
  // RFC 9110 §8.6: no Content-Length in 204.
  if (status === 204) return interimDrops;
  if (framing === 'unframed') return lengthRewritten ? unframedLengthDrops : unframedDrops;
  return lengthRewritten ? replyLengthDrops : replyDrops;
}

export function rewrittenLength({ status, lengthRewritten, contentLength }: MessageHead): string {
  return lengthRewritten && status !== 204 ? `Content-Length: ${contentLength}\r\n` : '';
}

/** An interim reply's head (RFC 9110 §15.2), 101 included: `own` then says what was switched to. */
export function interimHeadText(head: MessageHead, own = ''): string {
  return withStatusLine(head, interimDrops, own);
}

/** The trailer section without its forbidden fields, its empty line included. */
export function trailerText(trailers: MessageHead, nominated: readonly string[]): string {
  trailers.nominated = nominated;
  return keptText(trailers, trailers.fieldsStart, trailerDrops, '');
}

const BARE_STATUS_LINE = 'HTTP/1.1 204\r\n'.length;

/** The start line is always that of HTTP/1.1: the version is the ingress's own (RFC 9110 §6.2). */
function withStatusLine(head: MessageHead, drops: Uint8Array, own: string): string {
  // RFC 9112 §4: the space after the status belongs there even if no reason follows.
  if (head.fieldsStart === BARE_STATUS_LINE)
    return `HTTP/1.1 ${head.status} \r\n${keptText(head, head.fieldsStart, drops, own)}`;
  if (head.minor === 1) return keptText(head, 0, drops, own);
  return `HTTP/1.1${keptText(head, 'HTTP/1.0'.length, drops, own)}`;
}

/** The head as it came from offset `from` on, without the lines in `drops` and those that Connection nominated, and with `own`. */
function keptText(head: MessageHead, from: number, drops: Uint8Array, own: string): string {
  const { text, lines, count, nominated } = head;
  const blank = text.length - 2;
  let kept = '';
  let start = from;
  for (let line = 0; line < count; line++) {
    const at = line * LINE;
    if (drops[lines[at + 4]!] === 0 && (nominated.length === 0 || !isNominated(head, line))) continue;
    kept += text.slice(start, lines[at]);
    start = line + 1 < count ? lines[at + LINE]! : blank;
  }
  if (own === '') return kept + text.slice(start);
  return `${kept}${text.slice(start, blank)}${own}\r\n`;
}

function isNominated(head: MessageHead, line: number): boolean {
  return head.nominated.includes(nameAt(head, line).toLowerCase());
}
