// Replies compressed on their way, over real connections: what is, how it is told, what is not, and how it ends.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { Readable } from 'node:stream';
import { describe, it, type TestContext } from 'node:test';
import zlib from 'node:zlib';
import { codingOf, recodeStream } from '../../../proxy/exchange/recode.ts';
import type { Compress, Content, Location, RuleSet } from '../../../proxy/rules/model.ts';
import {
  type Answer,
  type Ask,
  type Client,
  join,
  type Pairing,
  pairings,
  type Script,
  type Served,
  serve,
} from '../../support/pairings.ts';
import { eventually, HOST } from '../../support/proxy.ts';
import { prefix } from '../rules/driver.ts';

const usual: Compress = {
  encodings: ['zstd', 'br', 'gzip'],
  types: ['text/plain', 'text/event-stream', 'application/grpc'],
  minBytes: 100,
  vary: true,
};
const TEXT = 'a line of text that comes again and again\n'.repeat(500);
const PLAIN = { 'content-type': 'text/plain' };

const folder = mkdtempSync(joinPath(tmpdir(), 'compressed-'));
writeFileSync(joinPath(folder, 'page.txt'), TEXT);

function rulesOf({ upstream }: Pairing, port: number, compress: Compress): RuleSet {
  const up: Content = {
    kind: 'proxy',
    upstream: 'up',
    protocol: upstream === 'h1' ? 'http' : 'h2c',
    host: 'up',
  };
  const locations: readonly Location[] = [
    prefix('/', { content: up }),
    prefix('/files/', {
      content: { kind: 'files' },
      policy: { root: { path: [`${folder}/`], alias: true } },
    }),
    prefix('/own', { content: { kind: 'respond', status: 200, contentType: 'text/plain', body: [TEXT] } }),
  ];
  return {
    policy: { connectTimeoutMs: 2_000, readTimeoutMs: 30_000, sendTimeoutMs: 30_000, compress },
    upstreams: [{ name: 'up', servers: [{ host: '127.0.0.1', port }] }],
    sites: [{ names: [{ kind: 'exact', name: HOST }], label: HOST, locations: [...locations] }],
  };
}

async function place(context: TestContext, pairing: Pairing, port: number, compress = usual) {
  const { ingress, client } = await join(context, pairing, port);
  ingress.listener.setRoutes([], rulesOf(pairing, port, compress));
  return { client: client(), ingress };
}

function decoded({ body, headers }: Answer): string {
  const bytes = Buffer.from(body, 'latin1');
  switch (headers['content-encoding']) {
    case 'gzip':
      return zlib.gunzipSync(bytes).toString();
    case 'br':
      return zlib.brotliDecompressSync(bytes).toString();
    case 'zstd':
      return zlib.zstdDecompressSync(bytes).toString();
    default:
      return body;
  }
}

const accept = (value: string): Ask => ({ headers: { 'accept-encoding': value } });
const inPieces: Script = (served) => {
  served.begin(200, { ...PLAIN, etag: '"one"', 'accept-ranges': 'bytes', 'x-app': 'yes' });
  for (let at = 0; at < TEXT.length; at += 5_000) served.write(TEXT.slice(at, at + 5_000));
  setTimeout(() => served.end(), 5);
};

for (const pairing of pairings)
  describe(`compressed, ${pairing.name}`, () => {
    const upFor = async (context: TestContext, script: Script, compress?: Compress): Promise<Client> => {
      const up = await serve(context, pairing.upstream, script);
      return (await place(context, pairing, up.port, compress)).client;
    };

    it('by what the client likes best, whole replies and streams, one after another', async (context) => {
      const client = await upFor(context, (served) => {
        if (served.path === '/pieces') inPieces(served);
        else served.reply(200, TEXT, { ...PLAIN, etag: 'W/"two"', vary: 'Origin' });
      });
      for (const path of ['/pieces', '/whole'])
        for (const [value, encoding] of [
          ['gzip, deflate, br, zstd', 'zstd'],
          ['gzip, br', 'br'],
          ['gzip', 'gzip'],
          ['*', 'zstd'],
          ['zstd;q=0.1, br;q=0, gzip;q=0.9', 'gzip'],
        ] as const) {
          const answer = await client.ask({ ...accept(value), path });
          assert.equal(answer.headers['content-encoding'], encoding, `${path} ${value}`);
          assert.equal(decoded(answer), TEXT);
          assert.equal(answer.cut, false);
          assert.ok(answer.body.length < 2_000, String(answer.body.length));
          assert.equal(answer.headers['accept-ranges'], undefined);
          assert.equal(answer.headers.etag, path === '/pieces' ? 'W/"one"' : 'W/"two"');
          assert.equal(
            answer.headers.vary,
            path === '/pieces' ? 'Accept-Encoding' : 'Origin, Accept-Encoding',
          );
          const length = answer.headers['content-length'];
          if (length !== undefined) assert.equal(Number(length), answer.body.length);
        }
    });

    it('only what may be', async (context) => {
      let next: Parameters<Served['reply']> = [200];
      const client = await upFor(context, (served) => served.reply(...next));
      const asked = async (fields: Record<string, string>, ask: Ask = {}, status = 200, text = TEXT) => {
        next = [status, text, { ...PLAIN, ...fields }];
        const headers = { 'accept-encoding': 'gzip', ...ask.headers };
        return client.ask({ ...ask, headers });
      };
      const passes = async (...args: Parameters<typeof asked>) => {
        const answer = await asked(...args);
        const sent = args[0]['content-encoding'];
        assert.equal(answer.headers['content-encoding'], sent, JSON.stringify(args.slice(0, 3)));
        return answer;
      };
      assert.equal(decoded(await asked({})), TEXT);
      assert.equal((await passes({ 'content-type': 'text/event-stream' })).body, TEXT);
      await passes({ 'content-type': 'application/grpc' });
      await passes({ 'content-type': 'image/png' });
      await passes({ 'content-encoding': 'br' });
      await passes({ 'cache-control': 'public, no-transform' });
      await passes({ 'content-range': 'bytes 0-9/20' }, {}, 206);
      await passes({ 'content-digest': 'sha-256=:AAAA:' });
      await passes({}, { method: 'HEAD' });
      await passes({}, {}, 200, 'short');
      await passes({}, { headers: { 'accept-encoding': 'gzip;q=0' } });
      await passes({}, { headers: { 'accept-encoding': 'identity, gzip;q=0.5' } });
      assert.equal(
        (await passes({}, { headers: { 'accept-encoding': '' } })).headers.vary,
        'Accept-Encoding',
      );
      assert.equal(decoded(await asked({}, { method: 'POST', body: 'x' }, 404)), TEXT, 'after all this');
    });

    it('is cut where the upstream breaks off', async (context) => {
      const client = await upFor(context, (served) => {
        served.begin(200, PLAIN);
        served.write(TEXT);
        setTimeout(() => served.cut(), 20);
      });
      const answer = await client.ask(accept('br'));
      assert.equal(answer.cut, true);
    });

    it('where we answer ourselves, and files but not parts of them', async (context) => {
      const client = await upFor(context, inPieces);
      for (const path of ['/own', '/files/page.txt']) {
        const answer = await client.ask({ ...accept('zstd'), path });
        assert.equal(answer.headers['content-encoding'], 'zstd', path);
        assert.equal(decoded(answer), TEXT);
        assert.equal(answer.headers.vary, 'Accept-Encoding');
      }
      const plain = await client.ask({ path: '/files/page.txt' });
      assert.equal(plain.body, TEXT);
      assert.equal(plain.headers.vary, 'Accept-Encoding');
      assert.equal(plain.headers['accept-ranges'], 'bytes');
      const headers = { 'accept-encoding': 'zstd', range: 'bytes=0-5' };
      const part = await client.ask({ path: '/files/page.txt', headers });
      assert.deepEqual(
        [part.status, part.body, part.headers['content-encoding']],
        [206, TEXT.slice(0, 6), undefined],
      );
      const same = { 'accept-encoding': 'zstd', 'if-none-match': String(plain.headers.etag) };
      assert.equal((await client.ask({ path: '/files/page.txt', headers: same })).status, 304);
    });

    it('as nginx has it for clients behind proxies', async (context) => {
      const compress: Compress = {
        ...usual,
        encodings: ['gzip'],
        viaProxies: ['no-cache', 'auth', 'expired'],
      };
      let fields: Record<string, string> = {};
      const client = await upFor(
        context,
        (served) => served.reply(200, TEXT, { ...PLAIN, ...fields }),
        compress,
      );
      const encodingOf = async (given: Record<string, string>, more: Record<string, string> = {}) => {
        fields = given;
        const headers = { 'accept-encoding': 'gzip', via: '1.1 cdn', ...more };
        return (await client.ask({ headers })).headers['content-encoding'];
      };
      assert.equal(await encodingOf({ 'cache-control': 'no-cache' }), 'gzip');
      assert.equal(await encodingOf({ 'cache-control': 'max-age=60' }), undefined);
      assert.equal(await encodingOf({ 'cache-control': 'max-age=60' }, { authorization: 'Basic x' }), 'gzip');
      assert.equal(await encodingOf({ expires: 'Thu, 01 Jan 1970 00:00:01 GMT' }), 'gzip');
      assert.equal(await encodingOf({ expires: 'Thu, 01 Jan 2099 00:00:01 GMT' }), undefined);
    });
  });

describe('a stream that is compressed', () => {
  const pairing = pairings[0]!;

  it('shows the client each piece before the next one is sent', async (context) => {
    const seen: PromiseWithResolvers<void>[] = Array.from({ length: 3 }, () => Promise.withResolvers());
    const up = await serve(context, 'h1', async (served) => {
      served.begin(200, PLAIN);
      for (const [i, { promise }] of seen.entries()) {
        served.write(`piece ${i};`);
        await promise;
      }
      served.end();
    });
    for (const encoding of ['gzip', 'br', 'zstd'] as const) {
      for (let i = 0; i < 3; i++) seen[i] = Promise.withResolvers();
      const { ingress } = await place(context, pairing, up.port, { ...usual, encodings: [encoding] });
      const client = await ingress.connect();
      client.send(`GET / HTTP/1.1\r\nHost: ${HOST}\r\nAccept-Encoding: ${encoding}\r\n\r\n`);
      const decoder = {
        gzip: zlib.createGunzip,
        br: zlib.createBrotliDecompress,
        zstd: zlib.createZstdDecompress,
      };
      const unpacked = decoder[encoding]();
      let text = '';
      unpacked.on('data', (bytes: Buffer) => {
        text += bytes;
      });
      unpacked.on('error', () => {});
      let raw = Buffer.alloc(0);
      let at = -1;
      client.socket.on('data', (bytes: Buffer) => {
        raw = Buffer.concat([raw, bytes]);
        if (at === -1) at = raw.indexOf('\r\n\r\n') + 4;
        for (;;) {
          const line = raw.indexOf('\r\n', at);
          const size = line < 0 ? Number.NaN : Number.parseInt(raw.toString('latin1', at, line), 16);
          if (!(size > 0) || raw.length < line + 2 + size + 2) return;
          unpacked.write(raw.subarray(line + 2, line + 2 + size));
          at = line + 2 + size + 2;
        }
      });
      for (let i = 0; i < 3; i++) {
        await eventually(() => text.includes(`piece ${i};`));
        assert.ok(!text.includes(`piece ${i + 1};`));
        seen[i]!.resolve();
      }
      client.socket.destroy();
    }
  });

  it('ends its upstream when the client leaves', async (context) => {
    const asked = Promise.withResolvers<Served>();
    const up = await serve(context, 'h1', (served) => {
      served.begin(200, PLAIN);
      served.write(TEXT);
      asked.resolve(served);
    });
    const { ingress } = await place(context, pairing, up.port);
    const client = await ingress.connect();
    client.send(`GET / HTTP/1.1\r\nHost: ${HOST}\r\nAccept-Encoding: gzip\r\n\r\n`);
    await once(client.socket, 'data');
    client.socket.destroy();
    await (await asked.promise).gone;
  });

  it('is read no faster than the client takes it', async (context) => {
    let taken = 0;
    const noise = randomBytes(256 * 1024);
    const server = createServer((_, response) => {
      response.writeHead(200, PLAIN);
      const more = () => {
        while (taken < 512 * 1024 * 1024 && response.write(noise)) taken += noise.length;
        taken += noise.length;
        response.once('drain', more);
      };
      more();
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    context.after(() => {
      server.closeAllConnections();
      server.close();
    });
    const { ingress } = await place(context, pairing, (server.address() as AddressInfo).port);
    const client = await ingress.connect();
    client.send(`GET / HTTP/1.1\r\nHost: ${HOST}\r\nAccept-Encoding: gzip\r\n\r\n`);
    await once(client.socket, 'data');
    client.socket.pause();
    for (let before = -1; before !== taken; ) {
      before = taken;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    assert.ok(taken < 64 * 1024 * 1024, String(taken));
    client.socket.destroy();
  });

  it('is one of so many at once, and leaves its place however it ends', async () => {
    const compression = { encoding: 'zstd', level: undefined, vary: true, minBytes: 0 } as const;
    const sources: Readable[] = [];
    const coders: Readable[] = [];
    for (let coding = codingOf(compression); coding !== undefined; coding = codingOf(compression)) {
      const source = new Readable({ read() {} });
      sources.push(source);
      coders.push(recodeStream(source, coding));
    }
    assert.ok(sources.length > 100 && sources.length <= 512);
    for (const [i, coder] of coders.entries())
      if (i % 2 === 0) coder.on('error', () => {}).destroy();
      else {
        coder.resume();
        sources[i]!.push(null);
      }
    await Promise.all(coders.map((coder) => coder.closed || once(coder, 'close')));
    assert.notEqual(codingOf(compression), undefined);
    for (const source of sources) assert.equal(source.destroyed, true);
  });
});
