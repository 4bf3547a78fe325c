// Talks to an upstream that can be reached, to see whether it speaks what its scheme says; for commands, not for the data path.

import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { Fault } from '../faults.ts';
import { type Address, authorityOf, type UpstreamProtocol } from '../rules/routes.ts';
import { destroyOnError } from '../socket/errors.ts';
import { ownHeader } from './announcement.ts';
import { foreignBytes, tlsBehindPlain } from './foreign-bytes.ts';

/** Undefined: it does, or nobody can tell. Where there is TLS the handshake has shown it already. */
export async function recogniseUpstream(
  protocol: UpstreamProtocol,
  address: Address,
  timeoutMs: number,
  announced: boolean,
): Promise<Fault | undefined> {
  const asked = greetingFor(protocol, address);
  if (asked === undefined) return undefined;
  const greeting = announced ? Buffer.concat([ownHeader, asked]) : asked;
  const bytes = await firstBytes(connectTcp(address), 'connect', greeting, timeoutMs);
  if (bytes === undefined) return undefined;
  const foreign =
    foreignBytes(protocol, bytes, 0, bytes.length) ??
    // A server of TLS may close on what is no handshake, without a word.
    (bytes.length === 0 && (await shakesHands(address, timeoutMs)) ? tlsBehindPlain(protocol) : undefined);
  return foreign === undefined ? undefined : new Fault('upstream-malformed', foreign);
}

async function shakesHands(address: Address, timeoutMs: number): Promise<boolean> {
  const socket = connectTls({ ...address, rejectUnauthorized: false });
  return (await firstBytes(socket, 'secureConnect', undefined, timeoutMs)) !== undefined;
}

/** None: it closed. Undefined: there was no connection, or silence. Without `greeting` the connection is all that is wanted. */
function firstBytes(
  socket: Socket,
  ready: 'connect' | 'secureConnect',
  greeting: Buffer | undefined,
  timeoutMs: number,
): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    let heard: Buffer | undefined;
    const timer = setTimeout(() => {
      heard = undefined;
      socket.destroy();
    }, timeoutMs);
    destroyOnError(socket, () => {});
    socket.once(ready, () => {
      heard = Buffer.alloc(0);
      if (greeting === undefined) socket.destroy();
      else socket.write(greeting);
    });
    socket.once('data', (bytes: Buffer) => {
      heard = bytes;
      socket.destroy();
    });
    socket.once('close', () => {
      clearTimeout(timer);
      resolve(heard);
    });
  });
}

/** RFC 9113 §3.4 and §6.5: the preface, and SETTINGS that are empty. */
const HTTP2_PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0', 'latin1');

/** What makes a server show what it speaks, and asks nothing of the app; undefined: nobody knows what would. */
function greetingFor(protocol: UpstreamProtocol, address: Address): Buffer | undefined {
  if (protocol === 'h2c' || protocol === 'grpc') return HTTP2_PREFACE;
  if (protocol !== 'http') return undefined;
  // RFC 9110 §9.3.7: about the server as a whole.
  const head = `OPTIONS * HTTP/1.1\r\nHost: ${authorityOf(address)}\r\nConnection: close\r\n\r\n`;
  return Buffer.from(head, 'latin1');
}
