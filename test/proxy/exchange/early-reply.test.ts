// A reply that comes in the middle of an upload reaches the client, who may go on sending for a while; and no longer.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { after, describe, it } from 'node:test';
import type { Http2Stream, StreamUser } from '../../../proxy/http2/connection.ts';
import { LingeringStream } from '../../../proxy/http2/lingering.ts';
import { createDeadlines } from '../../../proxy/socket/deadlines.ts';
import { Lingering } from '../../../proxy/socket/lingering.ts';
import {
  errorCode,
  flag,
  frame,
  frameType,
  headersFrame,
  requestFields,
} from '../../support/http2-frames.ts';
import { startHttp2Ingress, upstreamAt } from '../../support/http2-ingress.ts';
import { unlessUsed } from '../../support/insides.ts';
import { join, pairings, type Script, serve } from '../../support/pairings.ts';
import { HOST, request, routeTo, settingsFor, startIngress } from '../../support/proxy.ts';

const TIMES = 4;
const MIB = 1024 * 1024;
const folder = await mkdtemp(joinPath(tmpdir(), 'early-reply-'));
const file = joinPath(folder, 'body');
await writeFile(file, Buffer.alloc(10 * MIB, 'x'));
after(() => rm(folder, { recursive: true }));

/** Everything that it printed, and its exit code: `body status code`. */
async function curl(port: number, version: '--http1.1' | '--http2'): Promise<string> {
  const child = spawn('curl', [
    '-sSk',
    version,
    ...['--resolve', `${HOST}:${port}:127.0.0.1`],
    ...['-H', 'Expect:', '-w', ' %{http_code}', '--data-binary', `@${file}`],
    `https://${HOST}:${port}/`,
  ]);
  let text = '';
  child.stdout.on('data', (bytes: Buffer) => {
    text += bytes;
  });
  child.stderr.on('data', (bytes: Buffer) => {
    text += bytes;
  });
  const [code] = await once(child, 'close');
  return `${text} ${code}`;
}

const refusing: Script = (served) => served.reply(401, 'who are you?');
/** The application wants no more of it, and says so at once (RFC 9113 §8.1). */
const refusingAtOnce: Script = (served) => {
  served.reply(401, 'who are you?');
  setImmediate(() => served.stop());
};

for (const pairing of pairings) {
  describe(`${pairing.name}: an upload of 10 MiB that is answered before it has begun`, () => {
    for (const [how, script] of [
      ['', refusing],
      [', and stopped', refusingAtOnce],
    ] as const) {
      const skip = script === refusingAtOnce && unlessUsed('last-words');
      it(`shows curl the answer${how}`, { skip }, async (t) => {
        const serving = await serve(t, pairing.upstream, script);
        const { ingress } = await join(t, pairing, serving.port);
        const version = pairing.client === 'h2' ? '--http2' : '--http1.1';
        for (let i = 0; i < TIMES; i++) {
          assert.equal(await curl(ingress.port, version), 'who are you? 401 0');
        }
      });

      it(`shows a client of Node's the answer${how}`, { skip }, async (t) => {
        const serving = await serve(t, pairing.upstream, script);
        const { client } = await join(t, pairing, serving.port);
        for (let i = 0; i < TIMES; i++) {
          const one = client();
          const answer = await one.ask({ method: 'POST', body: 'x'.repeat(10 * MIB) });
          assert.deepEqual([answer.status, answer.body, answer.cut], [401, 'who are you?', false]);
          one.close();
        }
      });
    }

    it('shows it if it is ours', async (t) => {
      const serving = await serve(t, pairing.upstream, refusing);
      const { ingress } = await join(t, pairing, serving.port, {
        options: { limits: { maxBodyBytes: MIB } },
      });
      const version = pairing.client === 'h2' ? '--http2' : '--http1.1';
      for (let i = 0; i < 3; i++) assert.match(await curl(ingress.port, version), /body-too-large.* 413 0$/s);
    });
  });
}

describe('a client that was answered and goes on sending', () => {
  it('over HTTP/2 sees its stream refused without an error when it falls silent, and not before', async (t) => {
    const serving = await serve(t, 'h1', refusing);
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('http', serving.port) });
    t.after(() => ingress.close());
    const client = await ingress.frames();
    client.send(headersFrame(1, requestFields('POST'), flag.endHeaders));
    const piece = () => client.send(frame(frameType.data, 0, 1, Buffer.from('more')));
    await client.next(({ type, flags }) => type === frameType.data && (flags & flag.endStream) !== 0);
    for (let i = 0; i < 30; i++) {
      piece();
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const isReset = ({ type }: { type: number }) => type === frameType.rstStream;
    assert.deepEqual(client.received.filter(isReset), []);
    assert.equal(errorCode(await client.next(isReset)), 0);
    // The connection carries the next one.
    client.send(headersFrame(3, requestFields()));
    await client.next(({ type, streamId }) => type === frameType.headers && streamId === 3);
  });

  it('over HTTP/2 may end its request, and that is the end of the stream', async (t) => {
    const serving = await serve(t, 'h1', refusing);
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('http', serving.port) });
    t.after(() => ingress.close());
    const client = await ingress.frames();
    client.send(headersFrame(1, requestFields('POST'), flag.endHeaders));
    await client.next(({ type, flags }) => type === frameType.data && (flags & flag.endStream) !== 0);
    client.send(frame(frameType.data, flag.endStream, 1, Buffer.from('all')));
    client.send(frame(frameType.ping, 0, 0, Buffer.alloc(8)));
    await client.next(({ type, flags }) => type === frameType.ping && flags === flag.ack);
    assert.deepEqual(
      client.received.filter(({ type }) => type === frameType.rstStream),
      [],
    );
  });

  it('over HTTP/1.1 is not cut off while it does', async (t) => {
    const serving = await serve(t, 'h1', refusing);
    const ingress = await startIngress([routeTo(settingsFor(serving.port))]);
    t.after(ingress.close);
    const client = await ingress.connect();
    client.send(request('POST /', 'Content-Length: 1000000'));
    assert.equal((await client.reply()).status, 401);
    let gone = false;
    client.socket.on('close', () => {
      gone = true;
    });
    for (let i = 0; i < 30; i++) {
      client.send('more');
      await new Promise((resolve) => setTimeout(resolve, 100));
      assert.equal(gone, false);
    }
    assert.equal((await client.rest()).clean, true);
  });

  it('is heard for half a minute in all, and no further than 64 MiB', () => {
    let time = 0;
    const lingering = new Lingering(createDeadlines(() => time));
    for (; time < 60_000; time += 1_000) assert.ok(lingering.at <= 30_000);
    assert.equal(lingering.tires(64 * MIB), false);
    assert.equal(lingering.tires(1), true);
  });

  it('over HTTP/2 is given up when it has sent that much, and its stream is reset', () => {
    const ends: string[] = [];
    const before = { streamClosed: () => void ends.push('closed') } as unknown as StreamUser;
    const stream = new LingeringStream(before, createDeadlines(), () => ends.push('given up'));
    const bytes = Buffer.alloc(0);
    for (let sent = 0; sent < 64; sent++) stream.streamData(bytes, 0, MIB);
    assert.deepEqual(ends, []);
    stream.streamData(bytes, 0, 1);
    stream.streamClosed({} as Http2Stream);
    assert.deepEqual(ends, ['given up', 'closed']);
  });
});
