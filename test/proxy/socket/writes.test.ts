// What is gathered leaves together, at the end of the turn or before the socket is destroyed, and none of it is lost.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { defaultLimits } from '../../../proxy/limits.ts';
import { createDeadlines } from '../../../proxy/socket/deadlines.ts';
import {
  flush,
  gather,
  settle,
  writeAdjoining,
  writeLent,
  writeReply,
} from '../../../proxy/socket/writes.ts';
import { createTunnel, socketClient } from '../../../proxy/tunnel/tunnel.ts';
import { createUpstreams } from '../../../proxy/upstream/http1-pool.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { eventually, settingsFor } from '../../support/proxy.ts';
import { tlsEnd, tlsEnds } from '../../support/tls-pair.ts';

/** A connected socket, and all that its other end has received. */
async function connectPair(t: TestContext): Promise<{ socket: Socket; received: () => string }> {
  let text = '';
  const server = createServer((peer) => {
    peer.on('data', (bytes) => {
      text += bytes.toString('latin1');
    });
    peer.on('error', () => {});
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  await once(socket, 'connect');
  t.after(() => {
    socket.destroy();
    server.close();
  });
  return { socket, received: () => text };
}

test('small replies wait for the end of the turn, in order with what else is written', async (t) => {
  const { socket, received } = await tlsEnd(t);
  const lent = Buffer.from('..body..');
  assert.equal(writeReply(socket, 'head ', lent, 2, 6), true);
  socket.write(' next ', 'latin1');
  writeReply(socket, 'head ', lent, 2, 6);
  lent.fill('x');
  assert.equal(socket.writableCorked, 1);
  assert.equal(socket.bytesWritten, 'head body next head body'.length);
  assert.equal(socket.writableLength, 'head body next head body'.length);
  await eventually(() => received() === 'head body next head body');
  assert.equal(socket.writableCorked, 0);
});

test('a large one leaves at once, behind what is waiting', async (t) => {
  const { socket, received } = await tlsEnd(t);
  const large = Buffer.alloc(20_000, 'a');
  writeReply(socket, 'head ', large, 0, large.length);
  assert.equal(socket.writableCorked, 0);
  writeReply(socket, 'small ', large, 0, 1);
  writeReply(socket, 'large ', large, 0, large.length);
  large.fill('b');
  const a = 'a'.repeat(20_000);
  await eventually(() => received().length === 2 * 20_005 + 8);
  assert.equal(received(), `head ${a}small alarge ${a}`);
});

test('the replies of a turn are put together in one place, and each gets its own: also in the next turn', async (t) => {
  const ends = await tlsEnds(t, 8);
  const expected = ends.map(() => '');
  for (let turn = 0; turn < 4; turn++) {
    const body = Buffer.from(`body ${turn} `);
    for (const [index, { socket }] of ends.entries()) {
      writeReply(socket, `head ${index} `, body, 0, body.length);
      expected[index] += `head ${index} ${body}`;
    }
    body.fill('x');
    await nextTurn();
  }
  await eventually(() => ends.every(({ received }, index) => received() === expected[index]));
});

test('what waits behind a write that is not done yet is not overwritten by the next turns', async (t) => {
  const [busy, other] = await tlsEnds(t, 2);
  const body = Buffer.from('waiting');
  // Of more than the kernel takes: it stays busy until the client has read.
  busy!.socket.write(Buffer.alloc(8 * 1024 * 1024, 'a'));
  assert.equal(writeReply(busy!.socket, 'head ', body, 0, body.length), false);
  for (let turn = 0; turn < 4; turn++) {
    writeReply(other!.socket, 'HEAD ', Buffer.from('OTHERS '), 0, 7);
    await nextTurn();
  }
  await eventually(() => busy!.received().length === 8 * 1024 * 1024 + 12);
  assert.equal(busy!.received().slice(-13), 'ahead waiting');
  await eventually(() => other!.received() === 'HEAD OTHERS '.repeat(4));
});

test('more small replies in one turn than there is room for are all whole', async (t) => {
  const ends = await tlsEnds(t, 40);
  const body = Buffer.alloc(16_000, 'body ');
  for (const [index, { socket }] of ends.entries())
    writeReply(socket, `head ${index} `, body, 0, body.length);
  await eventually(() => ends.every(({ received }, index) => received() === `head ${index} ${body}`));
});

test('small pieces that are only lent wait as well, and are copied', async (t) => {
  const { socket, received } = await tlsEnd(t);
  const lent = Buffer.from('..one..two..');
  writeLent(socket, lent, 2, 5);
  writeLent(socket, lent, 7, 10);
  lent.fill('x');
  assert.equal(socket.writableCorked, 1);
  const large = Buffer.alloc(20_000, 'a');
  writeLent(socket, large, 0, large.length);
  large.fill('b');
  await eventually(() => received() === `onetwo${'a'.repeat(20_000)}`);
  assert.equal(socket.writableCorked, 0);
});

test('what is flushed before the socket is destroyed arrives', async (t) => {
  const { socket, received } = await connectPair(t);
  gather(socket);
  socket.write('one ');
  gather(socket);
  socket.write('two');
  flush(socket);
  socket.destroy();
  await eventually(() => received() === 'one two');
});

test('a tunnel that is cut off in the middle of a turn has passed on what it was given', async (t) => {
  const [client, upstream] = [await tlsEnd(t), await connectPair(t)];
  const tunnel = createTunnel(
    {
      context: {
        deadlines: createDeadlines(),
        limits: defaultLimits,
        log: silentLog,
        tunnels: new Set(),
        upstreams: createUpstreams({ deadlines: createDeadlines() }),
      },
      client: socketClient(client.socket),
      settings: settingsFor(1, 'tcp'),
    },
    {
      socket: upstream.socket,
      endpoint: { address: { host: '127.0.0.1', port: 1 } } as never,
      reused: false,
      handTo() {},
      release() {},
      destroy: () => upstream.socket.destroy(),
      fail() {},
    },
  );
  tunnel.clientData(Buffer.from('up'));
  tunnel.upstreamData(Buffer.from('down'), 4);
  tunnel.clientClosed();
  tunnel.upstreamClosed(new Error('reset'), 'unheard');
  await eventually(() => client.socket.destroyed && upstream.socket.destroyed);
  await eventually(() => client.received() === 'down' && upstream.received() === 'up');
});

test('an end sends what is waiting before it', async (t) => {
  const { socket, received } = await connectPair(t);
  gather(socket);
  socket.write('one ');
  socket.end('two');
  await eventually(() => received() === 'one two');
});

test('a socket that is destroyed with something waiting harms no other', async (t) => {
  const [first, second] = [await connectPair(t), await connectPair(t)];
  for (const { socket } of [first, second]) {
    gather(socket);
    socket.write('text');
  }
  first.socket.destroy();
  await eventually(() => second.received() === 'text');
  assert.equal(first.received(), '');
});

/** Flushes it: in how many pieces what was waiting goes to the kernel. */
function flushedPieces(socket: Socket): number {
  const pieces: number[] = [];
  const { _writev } = socket;
  socket._writev = (chunks, done) => {
    pieces.push(chunks.length);
    _writev!.call(socket, chunks, done);
  };
  flush(socket);
  return pieces[0] ?? 1;
}

test('records that adjoin one another in memory leave as one piece, others in their order', async (t) => {
  const { socket, received } = await connectPair(t);
  const block = Buffer.from('.onetwo.three.four.');
  gather(socket);
  writeAdjoining(socket, block.subarray(1, 4), 0, 3);
  writeAdjoining(socket, block, 4, 7);
  writeAdjoining(socket, block, 8, 13);
  writeAdjoining(socket, Buffer.from('five'), 0, 4);
  writeAdjoining(socket, block.subarray(14), 0, 4);
  assert.equal(flushedPieces(socket), 4);
  await eventually(() => received() === 'onetwothreefivefour');
});

test('records of two uploads that adjoin one another go each its way, in the turn that brought them', async (t) => {
  const [first, second] = [await connectPair(t), await connectPair(t)];
  const block = Buffer.from('onetwothree');
  for (const { socket } of [first, second]) gather(socket);
  writeAdjoining(first.socket, block, 0, 3);
  writeAdjoining(second.socket, block, 3, 6);
  writeAdjoining(first.socket, block, 6, 11);
  await eventually(() => first.received() === 'onethree' && second.received() === 'two');
});

test('bytes held back are written before those that follow settle(), and are dropped once their socket is gone', async (t) => {
  const [first, second] = [await connectPair(t), await connectPair(t)];
  gather(first.socket);
  writeAdjoining(first.socket, Buffer.from('one'), 0, 3);
  settle();
  first.socket.write('two');
  gather(second.socket);
  writeAdjoining(second.socket, Buffer.from('lost'), 0, 4);
  second.socket.destroy();
  second.socket.write = () => assert.fail('nobody can take it');
  await eventually(() => first.received() === 'onetwo');
});
