// What a client sends reaches whoever takes it once, whole and in order, however it is held back; its memory is soon free.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { connect, type TLSSocket } from 'node:tls';
import { V8_FLAGS } from '../../../proxy/socket/insides/v8-flags.ts';
import { onData } from '../../../proxy/socket/reads.ts';
import { unlessUsed } from '../../support/insides.ts';
import { appCertificate, eventually } from '../../support/proxy.ts';
import { connectTlsPair } from '../../support/tls-pair.ts';

const SIZE = 8 * 1024 * 1024;

test('a taker that pauses again and again gets every byte in order, and then the end', async (t) => {
  const sent = randomBytes(SIZE);
  const hash = createHash('sha256');
  let size = 0;
  let pieces = 0;
  const { promise: ended, resolve } = Promise.withResolvers<number>();
  const client = await connectTlsPair(t, (socket) => {
    onData(socket, (bytes) => {
      hash.update(bytes);
      size += bytes.length;
      pieces += 1;
      if (pieces % 3 !== 0) return;
      socket.pause();
      // Sometimes within the same turn, sometimes after others have read.
      if (pieces % 2 === 0) process.nextTick(() => socket.resume());
      else setImmediate(() => socket.resume());
    });
    socket.on('end', () => resolve(size));
  });
  client.end(sent);
  assert.equal(await ended, SIZE);
  assert.equal(hash.digest('hex'), createHash('sha256').update(sent).digest('hex'));
});

test('one that is paused stops the client, and has the rest when it goes on', async (t) => {
  const { promise: paused, resolve } = Promise.withResolvers<TLSSocket>();
  let size = 0;
  const client = await connectTlsPair(t, (socket) => {
    onData(socket, (bytes) => {
      if (size === 0) {
        socket.pause();
        resolve(socket);
      }
      size += bytes.length;
    });
  });
  client.write(Buffer.alloc(SIZE));
  const socket = await paused;
  const first = size;
  let before = -1;
  await eventually(() => {
    const settled = socket.bytesRead === before;
    before = socket.bytesRead;
    return settled && socket.readableLength > 0;
  });
  assert.equal(size, first);
  assert.ok(socket.readableLength < SIZE / 8, `${socket.readableLength} bytes wait`);
  socket.resume();
  await eventually(() => size === SIZE);
});

test('what has been read before anybody took it comes first', async (t) => {
  const { promise: accepted, resolve } = Promise.withResolvers<TLSSocket>();
  const client = await connectTlsPair(t, resolve);
  const socket = await accepted;
  client.write('one ');
  await eventually(() => socket.readableLength === 4);
  let text = '';
  onData(socket, (bytes) => {
    text += bytes.toString();
  });
  client.write('two');
  await eventually(() => text.length === 7);
  assert.equal(text, 'one two');
});

test('nothing is taken from a socket that was destroyed', async (t) => {
  let calls = 0;
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  const client = await connectTlsPair(t, (socket) => {
    socket.on('close', () => resolve());
    socket.on('error', () => {});
    onData(socket, () => {
      calls += 1;
      socket.destroy();
    });
  });
  client.on('error', () => {});
  client.write(Buffer.alloc(1024 * 1024));
  await closed;
  await nextTurn();
  assert.equal(calls, 1);
});

test('a piece that is taken schedules nothing', { skip: unlessUsed('straight-reads') }, async (t) => {
  const pieces = 200;
  const count = async (listen: (socket: TLSSocket, take: () => void) => void): Promise<number> => {
    let taken = 0;
    let told: (() => void) | undefined;
    const client = await connectTlsPair(t, (socket) =>
      listen(socket, () => {
        taken += 1;
        told?.();
      }),
    );
    const ticks = t.mock.method(process, 'nextTick');
    for (let piece = 0; piece < pieces; piece += 1) {
      const { promise, resolve } = Promise.withResolvers<void>();
      told = resolve;
      client.write('x');
      await promise;
    }
    assert.equal(taken, pieces);
    const { length } = ticks.mock.calls;
    ticks.mock.restore();
    return length;
  };
  const plain = await count((socket, take) => void socket.on('data', take));
  const straight = await count(onData);
  assert.ok(straight <= plain - pieces, `${straight} ticks, and ${plain} as a listener of 'data'`);
});

/** Takes in `size` bytes over TLS in a process of its own: how often V8 collected its young generation meanwhile. */
async function youngCollections(flags: readonly string[], size: number): Promise<number> {
  const receiver = `
    import { createServer } from 'node:tls';
    import { onData } from ${JSON.stringify(new URL('../../../proxy/socket/reads.ts', import.meta.url).href)};
    let size = 0;
    const tls = ${JSON.stringify({ key: appCertificate.key, cert: appCertificate.chain })};
    const server = createServer(tls, (socket) => {
      onData(socket, (bytes) => {
        size += bytes.length;
        if (size === ${size}) process.exit(0);
      });
    }).listen(0, '127.0.0.1', () => console.log('port ' + server.address().port));`;
  const args = [...flags, '--trace-gc', '--input-type=module', '--eval', receiver];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines: string[] = [];
  const { promise: listening, resolve } = Promise.withResolvers<number>();
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(line);
    const port = /^port (\d+)$/.exec(line)?.[1];
    if (port !== undefined) resolve(Number(port));
  });
  const closed = once(child, 'close');
  const client = connect({ port: await listening, host: '127.0.0.1', rejectUnauthorized: false });
  client.on('error', () => {});
  const piece = Buffer.alloc(1024 * 1024);
  for (let sent = 0; sent < size; sent += piece.length) {
    if (!client.write(piece)) await once(client, 'drain');
  }
  assert.deepEqual(await closed, [0, null]);
  client.destroy();
  return lines.filter((line) => line.includes(' ms: Scavenge ')).length;
}

test('a long upload has the young generation collected for every 32 MiB of it', {
  skip: unlessUsed('young-collection') || unlessUsed('v8-flags'),
}, async () => {
  const size = 512 * 1024 * 1024;
  const collections = await youngCollections(V8_FLAGS, size);
  const left = await youngCollections(
    V8_FLAGS.filter((flag) => flag !== '--expose-gc'),
    size,
  );
  assert.ok(collections >= 16, `${collections} collections`);
  assert.ok(left < 16, `${left} collections where nobody asks for one`);
});
