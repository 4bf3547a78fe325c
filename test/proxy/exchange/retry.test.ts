// What is sent to an upstream again, alike from all clients to all upstreams: what was never begun, and what does no harm.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { KeptBody } from '../../../proxy/exchange/kept-body.ts';
import { MOST_REFUSALS, mayTryAgain } from '../../../proxy/exchange/retry.ts';
import { openHttp2Connection, type StreamEnd } from '../../../proxy/http2/connection.ts';
import { createDeadlines } from '../../../proxy/socket/deadlines.ts';
import { startFrameServer } from '../../support/http2-frames.ts';
import { startNginx } from '../../support/nginx.ts';
import { type Answer, join, pairings } from '../../support/pairings.ts';
import { freePort } from '../../support/ports.ts';

const KIB = 1024;

for (const pairing of pairings.filter(({ upstream }) => upstream === 'h2c')) {
  describe(`${pairing.name}: a server that ends each session after 20 requests`, () => {
    it('fails none of 3,000 POSTs, bodies up to what is kept included', async (t) => {
      const inner = await freePort();
      const nginx = await startNginx({
        port: await freePort(),
        listen: 'http2',
        // It answers when it has the whole body, as an application does.
        server: `keepalive_requests 20; location / { proxy_pass http://127.0.0.1:${inner}; }`,
        beside: `server { listen 127.0.0.1:${inner}; location / { return 200 "ok"; } }`,
      });
      t.after(nginx.stop);
      const { client } = await join(t, pairing, nginx.port);
      const sizes = [0, 1, 1_000, 64 * KIB];
      const failed: Answer[] = [];
      let left = 3_000;
      const worker = async () => {
        const one = client();
        while (left > 0) {
          const body = 'x'.repeat(sizes[left-- % sizes.length]!);
          const answer = await one.ask({ method: 'POST', body, chunked: left % 2 === 0 });
          if (answer.status !== 200 || answer.cut || answer.body !== 'ok') failed.push(answer);
        }
      };
      await Promise.all(Array.from({ length: 12 }, worker));
      assert.deepEqual(failed.slice(0, 3), []);
    });
  });
}

describe('what may be tried again', () => {
  const tries = () => ({ refusals: 0, repeated: false });

  it('is whatever was not begun, some times, and what does no harm, once', () => {
    const refused = tries();
    for (let i = 0; i < MOST_REFUSALS; i++) assert.ok(mayTryAgain(refused, 'unbegun', 'POST', true));
    assert.equal(mayTryAgain(refused, 'unbegun', 'POST', true), false);
    for (const method of ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE']) {
      const lost = tries();
      assert.ok(mayTryAgain(lost, 'unheard', method, true), method);
      assert.equal(mayTryAgain(lost, 'unheard', method, true), false, method);
    }
    for (const method of ['POST', 'PATCH', 'CONNECT', 'PURGE', 'get']) {
      assert.equal(mayTryAgain(tries(), 'unheard', method, true), false, method);
    }
  });

  it('is not repeated after an answer, or without its body', () => {
    assert.equal(mayTryAgain(tries(), 'answered', 'GET', true), false);
    assert.equal(mayTryAgain(tries(), 'unbegun', 'GET', false), false);
    assert.equal(mayTryAgain(tries(), 'unheard', 'PUT', false), false);
  });
});

describe('a kept body', () => {
  it('of a thousand pieces of one byte is a thousand bytes', () => {
    const kept = new KeptBody();
    const text = 'abcdefghij'.repeat(100);
    const bytes = Buffer.from(text);
    for (let at = 0; at < 990; at++) kept.add(bytes, at, at + 1);
    kept.addText(text.slice(990));
    bytes.fill(0);
    assert.equal(kept.size, 1_000);
    assert.equal(kept.content.toString(), text);
  });
});

describe('a session that ends', () => {
  it('has not begun with what had not left, and that never leaves', async (t) => {
    const server = await startFrameServer(() => {});
    t.after(() => server.close());
    const socket = connect(server.port, '127.0.0.1');
    await once(socket, 'connect');
    const ends: StreamEnd[] = [];
    const http2 = openHttp2Connection({
      socket,
      role: 'client',
      deadlines: createDeadlines(),
      user: { connectionClosed() {} },
      streamWindow: 65_535,
      connectionWindow: 65_535,
      fieldLimits: { bytes: 16_384, count: 100 },
    });
    const begin = () => {
      const stream = http2.openStream({
        streamData() {},
        streamTrailers() {},
        streamEnded() {},
        streamDrained() {},
        streamClosed: ({ end }) => void ends.push(end),
      });
      stream.beginHead();
      stream.addField(':method', 'POST');
      stream.endHead('last');
    };
    begin();
    // What is said in a turn leaves at its end.
    await new Promise((resolve) => setTimeout(resolve, 20));
    begin();
    http2.fail(0, 'over');
    assert.deepEqual(ends, ['lost', 'refused']);
    await once(socket, 'close');
    const heads = server.peers[0]!.received.filter(({ type }) => type === 1);
    assert.deepEqual(
      heads.map(({ streamId }) => streamId),
      [1],
    );
  });
});
