// The head of an HTTP/1.1 message, as it was read: its lines, and what they say about its framing and connection.

import type { FaultCode } from '../faults.ts';
import { nameById } from './known-fields.ts';

/** Why a message is refused: the code for the client, the reason for the log. */
export interface Refusal {
  readonly code: FaultCode;
  readonly reason: string;
}

export interface HeadLimits {
  readonly maxHeaderBytes: number;
  readonly maxHeaderCount: number;
}

/** One line takes this many numbers of `MessageHead.lines`. */
export const LINE = 5;

/** A parsed head. The object is made once per connection and filled anew by each parse. */
export interface MessageHead {
  /** Latin-1, one character a byte, from the start line to the empty line, both included. */
  text: string;
  /** Offset in `text` of the first header line. */
  fieldsStart: number;
  count: number;
  /** Per header line: start of name, end of name, start of value, end of value (offsets in `text`), field id. */
  lines: Int32Array;
  /** Of HTTP/1.x. */
  minor: 0 | 1;
  /** Of a request; empty in a reply. */
  method: string;
  target: string;
  /** Of a reply; 0 in a request. */
  status: number;
  /** -1: none given. */
  contentLength: number;
  chunked: boolean;
  /** Of a reply: its length was said in a form that is not to be passed on; `contentLength` is what it means. */
  lengthRewritten: boolean;
  /** Of a request: the field's value as sent, and whether there was one, without which only HTTP/1.0 may be. */
  host: string;
  hasHost: boolean;
  /** Connection options (RFC 9110 §7.6.1). */
  close: boolean;
  keepAlive: boolean;
  upgrade: boolean;
  /** Lower-case names that Connection nominates, those that are always dropped left out. */
  nominated: readonly string[];
  /** The value of Upgrade; empty if there is none. */
  upgradeTo: string;
  expectsContinue: boolean;
  /** The line of each; -1: there is none. Of X-Request-ID and Tracestate the last. */
  userAgentLine: number;
  requestIdLine: number;
  traceparentLine: number;
  tracestateLine: number;
  /** How many there are: more than one is malformed. */
  traceparents: number;
  /** Why the last parse refused. */
  refusal: Refusal;
}

const NOTHING: readonly string[] = [];
export const NOT_REFUSED: Refusal = { code: 'failed', reason: 'not refused' };

export function createMessageHead(): MessageHead {
  return {
    text: '',
    fieldsStart: 0,
    count: 0,
    lines: new Int32Array(24 * LINE),
    minor: 1,
    method: '',
    target: '',
    status: 0,
    contentLength: -1,
    chunked: false,
    lengthRewritten: false,
    host: '',
    hasHost: false,
    close: false,
    keepAlive: false,
    upgrade: false,
    nominated: NOTHING,
    upgradeTo: '',
    expectsContinue: false,
    userAgentLine: -1,
    requestIdLine: -1,
    traceparentLine: -1,
    tracestateLine: -1,
    traceparents: 0,
    refusal: NOT_REFUSED,
  };
}

/** More bytes are needed. */
export const INCOMPLETE = 0;
/** The message must not be forwarded; `head.refusal` says why. Nothing else can be read from the connection. */
export const REFUSED = -1;

/** A head's field value by line number. */
export function valueAt(head: MessageHead, line: number): string {
  return head.text.slice(head.lines[line * LINE + 2], head.lines[line * LINE + 3]);
}

/** A head's field name by line number, as sent. */
export function nameAt(head: MessageHead, line: number): string {
  return head.text.slice(head.lines[line * LINE], head.lines[line * LINE + 1]);
}

/** A head's field name by line number, in lower case. */
export function lowerName(head: MessageHead, line: number): string {
  return nameById[head.lines[line * LINE + 4]!] ?? nameAt(head, line).toLowerCase();
}

export function reset(head: MessageHead): void {
  // Whoever remembers a head by its text sees that its lines are gone.
  head.text = '';
  head.count = 0;
  head.method = '';
  head.target = '';
  head.status = 0;
  head.contentLength = -1;
  head.chunked = false;
  head.lengthRewritten = false;
  head.host = '';
  head.hasHost = false;
  head.close = false;
  head.keepAlive = false;
  head.upgrade = false;
  head.nominated = NOTHING;
  head.upgradeTo = '';
  head.expectsContinue = false;
  head.userAgentLine = -1;
  head.requestIdLine = -1;
  head.traceparentLine = -1;
  head.tracestateLine = -1;
  head.traceparents = 0;
}

export function refuse(head: MessageHead, code: FaultCode, reason: string): typeof REFUSED {
  head.refusal = { code, reason };
  return REFUSED;
}

export function incomplete(head: MessageHead, size: number, limits: HeadLimits, code: FaultCode): number {
  if (size < limits.maxHeaderBytes) return INCOMPLETE;
  return refuse(head, code, `no end within ${limits.maxHeaderBytes} bytes`);
}

export function refused(head: MessageHead, code: FaultCode, reason: string): false {
  refuse(head, code, reason);
  return false;
}
