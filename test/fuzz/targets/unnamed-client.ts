// Clients that name no protocol (proxy/listener/unnamed.ts), each over a connection of its own to a bare host:port.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer, type Socket } from 'node:net';
import { type ConnectionOptions, connect } from 'node:tls';
import fc from 'fast-check';
import { createLineGuard, createOpeningReader } from '../../../proxy/listener/opening.ts';
import { HOST, routeTo, settingsFor, startIngress } from '../../support/proxy.ts';
import { cuts, fuzzTarget, mutated, piecesOf } from '../target.ts';
import { openings, openingTokens, REQUEST_LINE } from './opening.ts';

/** Of one client from its first byte to the end of its connection: what takes longer hangs. */
const PATIENCE_MS = 20_000;

interface Stage {
  readonly port: number;
  /** What each connection of the upstream has received, latin-1. */
  readonly received: string[];
  /** Resolves when no connection to the upstream is open: what was sent on them has arrived. */
  heard(): Promise<void>;
  close(): Promise<void>;
}

let opened: Promise<Stage> | undefined;

/** An ingress, and an upstream that hears everything and has nothing to say. */
async function openStage(): Promise<Stage> {
  const received: string[] = [];
  const open = new Set<Socket>();
  const upstream = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket.on('close', () => open.delete(socket)));
    const place = received.push('') - 1;
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      received[place] += bytes.toString('latin1');
      // No reply will come: whoever waits for one is to know at once.
      socket.end();
    });
    socket.on('end', () => socket.end());
  });
  upstream.listen(0, '127.0.0.1');
  await once(upstream, 'listening');
  const { port } = upstream.address() as AddressInfo;
  const ingress = await startIngress([routeTo(settingsFor(port, 'auto'))]);
  return {
    port: ingress.port,
    received,
    async heard() {
      await Promise.all([...open].map((socket) => once(socket, 'close')));
    },
    async close() {
      await ingress.close();
      upstream.close();
    },
  };
}

/** Of the last visit: a handshake that resumes costs a fraction. */
let session: ConnectionOptions['session'];

/** Sends all of it, ends, and waits for the connection to be over. */
async function visit(port: number, pieces: readonly Buffer[]): Promise<void> {
  const options = { port, host: '127.0.0.1', servername: HOST, rejectUnauthorized: false };
  const socket = connect({ ...options, session });
  socket.on('session', (fresh) => {
    session = fresh;
  });
  socket.on('error', () => {});
  const closed = once(socket, 'close');
  const late = setTimeout(() => socket.destroy(new Error('it hangs')), PATIENCE_MS);
  socket.resume();
  for (const piece of pieces) socket.write(piece);
  socket.end();
  await closed;
  clearTimeout(late);
  assert.notEqual(socket.errored?.message, 'it hangs');
}

/** What we have forwarded carries our word for who the client is, and not the client's. */
function isForwarded(text: string): boolean {
  return /\r\nx-forwarded-for: 127\.0\.0\.1\r\n/i.test(text);
}

/** Whether all of it is to reach the upstream as it is. */
function isRaw(bytes: Buffer): boolean {
  const reader = createOpeningReader();
  return (reader.read(bytes) ?? reader.end()) === 'other' && createLineGuard().passes(bytes);
}

interface Input {
  readonly bytes: Buffer;
  readonly positions: readonly number[];
}

export const unnamedClient = fuzzTarget<Input>({
  name: 'client without a protocol',
  input: fc.record({ bytes: mutated(openings, openingTokens), positions: cuts }),
  async check({ bytes, positions }) {
    opened ??= openStage();
    const { port, received, heard } = await opened;
    const before = received.length;
    await visit(port, piecesOf(bytes, positions));
    await heard();
    const sent = bytes.toString('latin1');
    const raw = received.slice(before).filter((text) => !isForwarded(text) && text !== '');
    for (const text of raw) {
      assert.ok(sent.startsWith(text), `the upstream was sent ${JSON.stringify(text)}`);
      assert.ok(!REQUEST_LINE.test(text), `a request as raw bytes: ${JSON.stringify(text)}`);
    }
    if (sent !== '' && isRaw(bytes)) assert.deepEqual(raw, [sent]);
  },
  growing: {},
  async close() {
    await (await opened)?.close();
    opened = undefined;
  },
});
