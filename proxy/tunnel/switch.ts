// Whether a 101 switches to what was asked for (RFC 9110 §7.8, RFC 6455 §4.1): one rule, whatever the client speaks.

import { createHash, randomBytes } from 'node:crypto';
import { type MessageHead, nameAt, valueAt } from '../http1/message.ts';

/** What a request asked to switch to. */
export interface SwitchAsked {
  /** Lower case. */
  readonly protocols: readonly string[];
  /** Sec-WebSocket-Key; undefined: there was none, or more than one, and no WebSocket can come of it. */
  readonly key: string | undefined;
}

/** Of an HTTP/1.1 request that asks for an upgrade. */
export function switchAskedBy(head: MessageHead): SwitchAsked {
  return { protocols: protocolsOf(head), key: onlyValue(head, 'sec-websocket-key') };
}

/** A WebSocket handshake made by the ingress, for an extended CONNECT (RFC 8441 §5.1). */
export function askForWebsocket(): SwitchAsked & { readonly key: string } {
  return { protocols: [WEBSOCKET], key: randomBytes(16).toString('base64') };
}

/**
 * RFC 9110 §7.8: a server must not switch to a protocol that was not asked for. For a WebSocket it must also show that it
 * has read the key. An attacker can make caches and echoing servers say 101, and would then have a tunnel to a server that
 * still speaks HTTP.
 */
export function switchesAsAsked(head: MessageHead, asked: SwitchAsked): boolean {
  const protocols = protocolsOf(head);
  if (!head.upgrade || protocols.length === 0) return false;
  if (!protocols.every((protocol) => asked.protocols.includes(protocol))) return false;
  return !protocols.includes(WEBSOCKET) || acceptsKey(head, asked.key);
}

/** Whether what a head switches to is WebSocket and nothing beside it. */
export function isWebsocket(head: MessageHead): boolean {
  return head.upgradeTo.toLowerCase() === WEBSOCKET;
}

const WEBSOCKET = 'websocket';

/** RFC 6455 §4.1, client requirement 4; §11.3.3: at most once. */
function acceptsKey(head: MessageHead, key: string | undefined): boolean {
  if (key === undefined) return false;
  const wanted = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  return onlyValue(head, 'sec-websocket-accept') === wanted;
}

function protocolsOf({ upgradeTo }: MessageHead): string[] {
  return upgradeTo
    .toLowerCase()
    .split(',')
    .map((protocol) => protocol.trim())
    .filter((protocol) => protocol !== '');
}

function onlyValue(head: MessageHead, name: string): string | undefined {
  let found: string | undefined;
  for (let line = 0; line < head.count; line++) {
    if (nameAt(head, line).toLowerCase() !== name) continue;
    if (found !== undefined) return undefined;
    found = valueAt(head, line);
  }
  return found;
}
