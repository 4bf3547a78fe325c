// Interim replies without end: all reach a client that takes them, and little is kept for one that does not.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { describe, it } from 'node:test';
import {
  flag,
  frameType,
  headersFrame,
  PREFACE,
  requestFields,
  settingsFrame,
  startFrameServer,
} from '../../support/http2-frames.ts';
import {
  eventually,
  type Ingress,
  type RawClient,
  request,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

const MIB = 1024 * 1024;
const WHOLE = 48 * MIB;
const INTERIM = `HTTP/1.1 103 Early Hints\r\nlink: <${'a'.repeat(1_000)}>\r\n\r\n`;

const clients: readonly (readonly [string, (ingress: Ingress) => Promise<RawClient>])[] = [
  [
    'HTTP/1.1',
    async (ingress) => {
      const client = await ingress.connect();
      client.socket.pause();
      client.send(request('GET /'));
      return client;
    },
  ],
  [
    'HTTP/2',
    async (ingress) => {
      const client = await ingress.connect({ ALPNProtocols: ['h2'] });
      client.socket.pause();
      client.send(Buffer.concat([PREFACE, settingsFrame(), headersFrame(1, requestFields())]));
      return client;
    },
  ],
];

/** Writes interim replies as fast as they are taken, and then the reply. */
function flood(socket: Socket, written: (bytes: number) => void) {
  const piece = Buffer.from(INTERIM.repeat(60), 'latin1');
  let sent = 0;
  const more = () => {
    while (sent < WHOLE) {
      sent += piece.length;
      written(sent);
      if (!socket.write(piece)) return void socket.once('drain', more);
    }
    socket.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast');
  };
  more();
}

for (const [spoken, connect] of clients) {
  describe(`a client of ${spoken} that takes nothing`, () => {
    it('holds back an upstream of HTTP/1.1, and gets every interim reply when it goes on', async (t) => {
      let written = 0;
      const upstream = await startUpstream((socket) => {
        socket.once('data', () =>
          flood(socket, (bytes) => {
            written = bytes;
          }),
        );
      });
      t.after(upstream.close);
      const ingress = await startIngress([routeTo(settingsFor(upstream.port))]);
      t.after(ingress.close);
      const client = await connect(ingress);
      for (let before = -1; before !== written || written === 0; ) {
        before = written;
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
      assert.ok(written < WHOLE / 2, `${written} bytes were taken from the upstream`);
      let received = 0;
      let tail = '';
      client.socket.removeAllListeners('data');
      client.socket.on('data', (bytes: Buffer) => {
        received += bytes.length;
        tail = (tail + bytes.subarray(-100).toString('latin1')).slice(-100);
      });
      client.socket.resume();
      await eventually(() => tail.endsWith('last'));
      if (spoken === 'HTTP/1.1') assert.ok(received > WHOLE);
    });

    it("ends an upstream's stream of HTTP/2, which nothing else holds back", async (t) => {
      let floods: NodeJS.Timeout | undefined;
      const upstream = await startFrameServer((received, peer) => {
        if (received.type === frameType.rstStream) return clearInterval(floods);
        if (received.type !== frameType.headers) return;
        const interim = headersFrame(
          received.streamId,
          [
            [':status', '103'],
            ['link', 'a'.repeat(1_000)],
          ],
          flag.endHeaders,
        );
        const piece = Buffer.concat(Array(200).fill(interim));
        floods = setInterval(() => peer.send(piece), 1);
      });
      t.after(() => {
        clearInterval(floods);
        upstream.close();
      });
      const ingress = await startIngress([routeTo(settingsFor(upstream.port, 'h2c'))]);
      t.after(ingress.close);
      await connect(ingress);
      await eventually(
        () => upstream.peers[0]?.received.some(({ type }) => type === frameType.rstStream) === true,
      );
    });
  });
}
