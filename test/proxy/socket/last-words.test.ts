// What a peer said before it went away arrives, though a write to it fails first: early replies, GOAWAY, tunnels.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { hearLastWords } from '../../../proxy/socket/insides/last-words.ts';
import { unlessUsed } from '../../support/insides.ts';
import { type Answer, join, pairings } from '../../support/pairings.ts';
import {
  connectRaw,
  eventually,
  makeCertificate,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

const REPLY = 'HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large';
const UNTIL_CLOSE = 'HTTP/1.1 413 Too Large\r\n\r\ntoo large';
const TIMES = 40;
const BODY = 'x'.repeat(2_000_000);

/** An upstream that looks at the head, says what it has to say, and leaves with the body unread. */
const leaving = (reply: string, leave: (socket: Socket) => void) => (socket: Socket) => {
  socket.once('data', () => {
    socket.pause();
    socket.write(reply, () => leave(socket));
  });
};

const ways: readonly (readonly [string, (socket: Socket) => void])[] = [
  ['closes at once', (socket) => socket.destroy()],
  [
    'ends, and closes a moment later',
    (socket) => {
      socket.end();
      setTimeout(() => socket.destroy(), 1);
    },
  ],
  ['resets', (socket) => socket.resetAndDestroy()],
];

async function upload(t: TestContext, pairing: (typeof pairings)[number], port: number): Promise<Answer[]> {
  const { client } = await join(t, pairing, port);
  const answers: Answer[] = [];
  for (let i = 0; i < TIMES; i++) {
    const one = client();
    answers.push(await one.ask({ method: 'POST', body: BODY }));
    one.close();
  }
  return answers;
}

for (const pairing of pairings.filter(({ upstream }) => upstream === 'h1')) {
  describe(`${pairing.name}: an upstream that answers in the middle of an upload`, {
    skip: unlessUsed('last-words'),
  }, () => {
    for (const [how, leave] of ways) {
      it(`and ${how}: the client gets the answer, ${TIMES} times of ${TIMES}`, async (t) => {
        const upstream = await startUpstream(leaving(REPLY, leave));
        t.after(upstream.close);
        const answers = await upload(t, pairing, upstream.port);
        const said = answers.filter(
          ({ status, body, cut }) => status === 413 && body === 'too large' && !cut,
        );
        assert.equal(said.length, TIMES);
      });
    }

    it('and resets a reply that lasts until the close: what there is of it, and that it is cut', async (t) => {
      const upstream = await startUpstream(leaving(UNTIL_CLOSE, (socket) => socket.destroy()));
      t.after(upstream.close);
      const answers = await upload(t, pairing, upstream.port);
      assert.deepEqual(new Set(answers.map(({ status, cut }) => `${status} ${cut}`)), new Set(['413 true']));
    });

    it('and says nothing: 502, and the next one is served', async (t) => {
      const upstream = await startUpstream((socket, index) =>
        leaving(index === 0 ? 'HTTP/1.1' : REPLY, (one) => one.destroy())(socket),
      );
      t.after(upstream.close);
      const { client } = await join(t, pairing, upstream.port);
      assert.equal((await client().ask({ method: 'POST', body: BODY })).status, 502);
      assert.equal((await client().ask({ method: 'POST', body: BODY })).status, 413);
    });
  });
}

it('an upstream behind TLS that answers in the middle of an upload and closes is heard as well', {
  skip: unlessUsed('last-words'),
}, async (t) => {
  const certificate = await makeCertificate(['localhost', '127.0.0.1']);
  const server = createTlsServer({ cert: certificate.chain, key: certificate.key }, (socket) => {
    socket.on('error', () => {});
    leaving(REPLY, (one) => one.destroy())(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { port } = server.address() as { port: number };
  const ingress = await startIngress([routeTo(settingsFor(port, 'https'))], {
    upstreamCa: certificate.chain,
  });
  t.after(ingress.close);
  for (let i = 0; i < 10; i++) {
    const client = await ingress.connect();
    client.send(`POST / HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: ${BODY.length}\r\n\r\n`);
    client.send(BODY);
    assert.equal((await client.reply()).body, 'too large');
    client.socket.destroy();
  }
});

describe('a tunnel', { skip: unlessUsed('last-words') }, () => {
  const LAST = 'these are the last words';

  for (const [how, leave] of ways) {
    it(`passes on the last words of an upstream that ${how}, though the client is still sending`, async (t) => {
      const upstream = await startUpstream(leaving(LAST, leave));
      t.after(upstream.close);
      const ingress = await startIngress([routeTo(settingsFor(upstream.port, 'tcp'))]);
      t.after(ingress.close);
      for (let i = 0; i < TIMES; i++) {
        const client = await connectRaw(ingress.port);
        client.send(BODY);
        assert.equal(await client.until(/words/), LAST);
        client.socket.destroy();
      }
    });
  }

  it("passes on the client's last words, though the upstream is still sending", async (t) => {
    const heard: string[] = [];
    const upstream = await startUpstream((socket) => {
      let text = '';
      const more = setInterval(() => socket.write('x'.repeat(100_000)), 1);
      socket.on('data', (bytes) => {
        text += bytes.toString('latin1');
      });
      socket.on('end', () => {
        clearInterval(more);
        // The ingress's own look at a new upstream says nothing.
        if (text !== '') heard.push(text);
        socket.destroy();
      });
      socket.on('close', () => clearInterval(more));
    });
    t.after(upstream.close);
    const ingress = await startIngress([routeTo(settingsFor(upstream.port, 'tcp'))]);
    t.after(ingress.close);
    for (let i = 0; i < TIMES; i++) {
      const client = await connectRaw(ingress.port);
      await client.until(/x/);
      client.socket.pause();
      client.socket.end(LAST, () => setTimeout(() => client.socket.destroy(), 1));
    }
    await eventually(() => heard.length === TIMES);
    assert.deepEqual(new Set(heard), new Set([LAST]));
  });

  it('ends when the upstream has left, though the client goes on sending', async (t) => {
    const upstream = await startUpstream(leaving(LAST, ways[1]![1]));
    t.after(upstream.close);
    const settings = settingsFor(upstream.port, 'tcp', { readTimeoutMs: 300 });
    const ingress = await startIngress([routeTo(settings)], { limits: { clientIdleTimeoutMs: 300 } });
    t.after(ingress.close);
    const client = await connectRaw(ingress.port);
    client.socket.on('error', () => {});
    const more = setInterval(() => client.send('x'), 20);
    t.after(() => clearInterval(more));
    await new Promise((resolve) => client.socket.once('close', resolve));
  });
});

it('a write that fails after the peer has said all ends the socket, for nothing else would', {
  skip: unlessUsed('last-words'),
}, async (t) => {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    socket.end('all');
    setTimeout(() => socket.resetAndDestroy(), 20);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const socket = connect({
    port: (server.address() as { port: number }).port,
    host: '127.0.0.1',
    allowHalfOpen: true,
  });
  const words = hearLastWords(socket);
  assert.equal(hearLastWords(socket), words);
  socket.on('error', () => {});
  socket.resume();
  await once(socket, 'end');
  const more = setInterval(() => socket.write('x'), 5);
  t.after(() => clearInterval(more));
  await new Promise((resolve) => socket.once('close', resolve));
  assert.equal(words.error, undefined);
});
