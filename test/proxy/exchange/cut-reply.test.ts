// Replies that break off, as curl takes them: half of a download must never pass for the whole.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import {
  answering,
  eventually,
  HOST,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

const PARTIAL = 'the first half';
const versions = ['--http1.0', '--http1.1', '--http2'] as const;

/** An upstream that begins with a reply and leaves the rest to the test. */
async function start(t: TestContext, head: string) {
  const sockets: Socket[] = [];
  const upstream = await startUpstream((socket) => {
    sockets.push(socket);
    answering(() => head + PARTIAL)(socket);
  });
  t.after(() => upstream.close());
  const ingress = await startIngress([routeTo(settingsFor(upstream.port, 'http', { readTimeoutMs: 5_000 }))]);
  t.after(() => ingress.close());
  return { ingress, sockets };
}

/** Its exit code, and what it printed until `act` and after it. */
async function download(port: number, version: string, act: () => unknown) {
  const child = spawn('curl', [
    '-sSkN',
    version,
    ...['--resolve', `${HOST}:${port}:127.0.0.1`],
    `https://${HOST}:${port}/`,
  ]);
  let printed = '';
  child.stdout.on('data', (bytes: Buffer) => {
    printed += bytes;
  });
  const closed = once(child, 'close');
  await eventually(() => printed === PARTIAL);
  await act();
  const [code] = await closed;
  return { code, printed };
}

const chunk = `${PARTIAL.length.toString(16)}\r\n`;
const framings = {
  'with a length': 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n',
  'in chunks': `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
  'until the close': 'HTTP/1.1 200 OK\r\n\r\n',
};

for (const version of versions) {
  describe(`a download with curl ${version}`, () => {
    for (const [framing, head] of Object.entries(framings)) {
      it(`fails visibly when the upstream breaks off a reply ${framing}`, async (t) => {
        const { ingress, sockets } = await start(t, head);
        const { code, printed } = await download(ingress.port, version, () => {
          for (const socket of sockets) socket.resetAndDestroy();
        });
        assert.equal(printed, PARTIAL);
        assert.notEqual(code, 0);
      });
    }

    it('fails visibly when a drain cuts it off', async (t) => {
      const { ingress } = await start(t, framings['until the close']);
      const { code } = await download(ingress.port, version, () => ingress.listener.drain(100));
      assert.notEqual(code, 0);
    });

    it('succeeds when the upstream ends a reply in order that has no other end than the close', async (t) => {
      const { ingress, sockets } = await start(t, framings['until the close']);
      const { code } = await download(ingress.port, version, () => {
        for (const socket of sockets) socket.end();
      });
      assert.equal(code, 0);
    });
  });
}
