// What handlers of our own are told and may answer, over both protocols: large, slow, failing, and left in the middle.

import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2';
import { Readable } from 'node:stream';
import { describe, it, type TestContext } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { createAccessLog } from '../../../proxy/exchange/access-log.ts';
import type { ListenerLimits } from '../../../proxy/limits.ts';
import type { LocalHandler, LocalReply, LocalRequest } from '../../../src/lib/local-handler.ts';
import {
  appCertificate,
  eventually,
  HOST,
  type Ingress,
  routeTo,
  settingsFor,
  startIngress,
} from '../../support/proxy.ts';

const MIB = 1024 * 1024;
const protocols = ['h1', 'h2'] as const;
type Protocol = (typeof protocols)[number];

type Handle = (request: LocalRequest) => LocalReply | Promise<LocalReply>;

interface World {
  readonly ingress: Ingress;
  /** Lines of the access log. */
  readonly lines: () => Record<string, unknown>[];
}

async function start(
  t: TestContext,
  handle: Handle,
  limits: Partial<ListenerLimits> = {},
  bodyLimit?: number,
): Promise<World> {
  const handler: LocalHandler = { handle };
  let text = '';
  const accessLog = createAccessLog((lines) => {
    text += lines;
  });
  const route = routeTo(settingsFor(1));
  const [path] = route.paths;
  const ingress = await startIngress(
    [{ ...route, paths: [{ ...path!, ...(bodyLimit && { rules: { maxBodyBytes: bodyLimit } }) }] }],
    {
      limits,
      accessLog,
      localPaths: [{ path: '/local', answeredBy: 'handler' }],
      localHandlers: { handler },
    },
  );
  t.after(ingress.close);
  return {
    ingress,
    lines() {
      accessLog.flush();
      return text
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line));
    },
  };
}

async function secure(t: TestContext, { ingress }: World, protocol: Protocol): Promise<TLSSocket> {
  const socket = connectTls({
    host: '127.0.0.1',
    port: ingress.port,
    servername: HOST,
    ca: appCertificate.chain,
    ALPNProtocols: [protocol === 'h1' ? 'http/1.1' : 'h2'],
  });
  socket.on('error', () => {});
  t.after(() => socket.destroy());
  await once(socket, 'secureConnect');
  return socket;
}

interface Received {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: Buffer;
  /** Whether the client can take it for all there is. */
  readonly whole: boolean;
}

interface Asked {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly version?: string;
}

async function ask(t: TestContext, world: World, protocol: Protocol, asked: Asked = {}): Promise<Received> {
  const socket = await secure(t, world, protocol);
  return protocol === 'h1' ? askHttp1(socket, asked) : collect(requestHttp2(sessionOn(socket), asked), asked);
}

function sessionOn(socket: TLSSocket): ClientHttp2Session {
  const session = connectHttp2(`https://${HOST}`, { createConnection: () => socket });
  session.on('error', () => {});
  return session;
}

function requestHttp2(session: ClientHttp2Session, { method = 'GET', headers = {}, body }: Asked) {
  return session.request(
    { ':method': method, ':path': '/local/x?q=1', ':authority': HOST, ...headers },
    { endStream: body === undefined },
  );
}

async function collect(stream: ClientHttp2Stream, { body }: Asked = {}): Promise<Received> {
  const chunks: Buffer[] = [];
  let headers: Record<string, unknown> = {};
  let ended = false;
  stream.on('response', (fields) => {
    headers = fields;
  });
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  stream.on('end', () => {
    ended = true;
  });
  stream.on('error', () => {});
  if (body !== undefined) stream.end(body);
  await new Promise<void>((resolve) => stream.once('close', resolve));
  return {
    status: Number(headers[':status'] ?? 0),
    headers,
    body: Buffer.concat(chunks),
    whole: ended && stream.rstCode === 0,
  };
}

function http1Text({ method = 'GET', headers = {}, body, version = '1.1' }: Asked): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  if (body !== undefined) lines.push(`Content-Length: ${body.length}\r\n`);
  return `${method} /local/x?q=1 HTTP/${version}\r\nHost: ${HOST}\r\n${lines.join('')}\r\n${body ?? ''}`;
}

/** With an error or without. */
function closeOf(socket: TLSSocket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

/** Read to the end of the connection, so that every framing shows how it ends. */
async function askHttp1(socket: TLSSocket, asked: Asked): Promise<Received> {
  const headers = asked.version === '1.0' ? asked.headers : { Connection: 'close', ...asked.headers };
  const chunks: Buffer[] = [];
  let ended = false;
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('end', () => {
    ended = true;
  });
  socket.write(http1Text({ ...asked, ...(headers && { headers }) }), 'latin1');
  await closeOf(socket);
  return readHttp1(Buffer.concat(chunks), ended, asked.method === 'HEAD');
}

function readHttp1(bytes: Buffer, ended: boolean, bare: boolean): Received {
  let text = bytes.toString('latin1');
  while (text.startsWith('HTTP/1.1 1')) text = text.slice(text.indexOf('\r\n\r\n') + 4);
  const split = text.indexOf('\r\n\r\n');
  const [line, ...fields] = text.slice(0, split).split('\r\n');
  const headers = Object.fromEntries(
    fields.map((field) => [
      field.split(':', 1)[0]!.toLowerCase(),
      field.slice(field.indexOf(':') + 1).trim(),
    ]),
  );
  const rest = Buffer.from(text.slice(split + 4), 'latin1');
  const status = Number(/^HTTP\/1\.1 (\d+)/.exec(line!)?.[1] ?? 0);
  if (headers['transfer-encoding'] === 'chunked' && !bare) {
    const { body, whole } = unchunked(rest);
    return { status, headers, body, whole };
  }
  const length = headers['content-length'];
  const whole = bare || status === 304 || (length === undefined ? ended : rest.length === Number(length));
  return { status, headers, body: rest, whole };
}

function unchunked(bytes: Buffer): { body: Buffer; whole: boolean } {
  const pieces: Buffer[] = [];
  for (let pos = 0; ; ) {
    const lineEnd = bytes.indexOf('\r\n', pos);
    if (lineEnd === -1) return { body: Buffer.concat(pieces), whole: false };
    const size = Number.parseInt(bytes.toString('latin1', pos, lineEnd), 16);
    if (size === 0) return { body: Buffer.concat(pieces), whole: bytes.length === lineEnd + 4 };
    pieces.push(bytes.subarray(lineEnd + 2, lineEnd + 2 + size));
    pos = lineEnd + 2 + size + 2;
  }
}

const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Pieces of different sizes, each of its own bytes. */
function pieces(count: number, size: number): Buffer[] {
  return Array.from({ length: count }, (_, i) => Buffer.alloc(size + i, i & 0xff));
}

async function* each(list: readonly Buffer[]): AsyncGenerator<Buffer> {
  for (const piece of list) {
    await turn();
    yield piece;
  }
}

const reply = (body: LocalReply['body'], more: Partial<LocalReply> = {}): LocalReply => ({
  status: 200,
  headers: { 'content-type': 'text/plain' },
  body,
  ...more,
});

for (const protocol of protocols) {
  describe(`a reply of our own over ${protocol}`, () => {
    const large = pieces(200, 40_000);
    const whole = Buffer.concat(large);

    it('can be a stream, large and of unknown length, and arrives whole', async (t) => {
      const world = await start(t, () => reply(each(large)));
      const received = await ask(t, world, protocol);
      assert.equal(received.whole, true);
      assert.equal(received.headers['content-length'], undefined);
      assert.equal(digest(received.body), digest(whole));
      await eventually(() => world.lines().length === 1);
      const [line] = world.lines();
      assert.deepEqual([line!.status, line!.sent], [200, whole.length]);
    });

    it('can be a Readable whose length is known, and says so', async (t) => {
      const world = await start(t, async () => reply(Readable.from(large), { length: whole.length }));
      const received = await ask(t, world, protocol);
      assert.equal(received.whole, true);
      assert.equal(received.headers['content-length'], String(whole.length));
      assert.equal(digest(received.body), digest(whole));
    });

    it('that is empty ends at once', async (t) => {
      const world = await start(t, () => reply(each([])));
      const received = await ask(t, world, protocol);
      assert.deepEqual([received.status, received.whole, received.body.length], [200, true, 0]);
    });

    for (const [what, asked, status] of [
      ['HEAD', { method: 'HEAD' }, 200],
      ['a 304', {}, 304],
      ['a 204', {}, 204],
    ] as const) {
      it(`has no body for ${what}, and the stream is destroyed without being read`, async (t) => {
        let read = 0;
        const source = new Readable({
          read() {
            read++;
            this.push('x');
          },
        });
        const world = await start(t, () => reply(source, { status, length: 5 }));
        const received = await ask(t, world, protocol, asked);
        assert.deepEqual([received.status, received.body.length, received.whole], [status, 0, true]);
        assert.equal(received.headers['content-length'], status === 200 ? '5' : undefined);
        assert.deepEqual([read, source.destroyed], [0, true]);
      });
    }

    it('is read no faster than the client takes it', async (t) => {
      let given = 0;
      const endless = new Readable({
        highWaterMark: 64 * 1024,
        read() {
          given += 64 * 1024;
          this.push(Buffer.alloc(64 * 1024));
        },
      });
      const world = await start(t, () => reply(endless));
      const socket = await secure(t, world, protocol);
      if (protocol === 'h1') {
        socket.pause();
        socket.write(http1Text({}));
      } else
        requestHttp2(sessionOn(socket), {})
          .pause()
          .on('error', () => {});
      // Until the window, or the buffers of the system, are full.
      let before = -1;
      for (let same = 0; same < 20; ) {
        await new Promise((resolve) => setTimeout(resolve, 10));
        same = given > 0 && given === before ? same + 1 : 0;
        before = given;
      }
      assert.ok(given < 64 * MIB, `${given}`);
      socket.destroy();
      await eventually(() => endless.destroyed);
    });

    it('whose stream fails in the middle does not look whole', async (t) => {
      for (const length of [undefined, 1_000]) {
        const world = await start(t, () => {
          async function* broken() {
            yield Buffer.from('the beginning');
            await turn();
            throw new Error('no more of it');
          }
          return reply(broken(), length === undefined ? {} : { length });
        });
        const received = await ask(t, world, protocol);
        assert.deepEqual([received.status, received.whole], [200, false], `${length}`);
        await eventually(() => world.lines().length === 1);
        assert.equal(world.lines()[0]!.fault, 'failed');
      }
    });

    it('whose stream does not keep to its length does not look whole', async (t) => {
      for (const length of [3, 30]) {
        const world = await start(t, () => reply(each([Buffer.from('ten bytes.')]), { length }));
        const received = await ask(t, world, protocol);
        assert.equal(received.whole, false, `${length}`);
      }
    });

    it('is destroyed when nobody waits for it any more, and its handler is told', async (t) => {
      const source = new Readable({ read() {} });
      source.push('the beginning');
      let signal: AbortSignal | undefined;
      const world = await start(t, (request) => {
        signal = request.signal;
        return reply(source);
      });
      const socket = await secure(t, world, protocol);
      if (protocol === 'h1') {
        socket.write(http1Text({}));
        await once(socket, 'data');
        socket.destroy();
      } else {
        const stream = requestHttp2(sessionOn(socket), {});
        stream.on('error', () => {});
        await once(stream, 'data');
        stream.close(8);
      }
      await eventually(() => source.destroyed && signal!.aborted);
    });

    it('is told that the client has gone while it is still being made', async (t) => {
      const gone = Promise.withResolvers<void>();
      const asked = Promise.withResolvers<void>();
      const world = await start(t, async ({ signal }) => {
        signal.addEventListener('abort', () => gone.resolve());
        asked.resolve();
        await gone.promise;
        throw signal.reason;
      });
      const socket = await secure(t, world, protocol);
      if (protocol === 'h1') socket.write(http1Text({}));
      else requestHttp2(sessionOn(socket), {}).on('error', () => {});
      await asked.promise;
      socket.destroy();
      await gone.promise;
    });

    it('that was given whole does not tell its handler that the client has gone', async (t) => {
      let signal: AbortSignal | undefined;
      const world = await start(t, (request) => {
        signal = request.signal;
        return reply(each([Buffer.from('x')]));
      });
      assert.equal((await ask(t, world, protocol)).whole, true);
      await eventually(() => world.lines().length === 1);
      assert.equal(signal!.aborted, false);
    });

    it('ends with the connection of a client that takes nothing of it', async (t) => {
      const endless = new Readable({
        read() {
          this.push(Buffer.alloc(64 * 1024));
        },
      });
      const world = await start(t, () => reply(endless), { clientIdleTimeoutMs: 100 });
      const socket = await secure(t, world, protocol);
      if (protocol === 'h1') {
        socket.pause();
        socket.write(http1Text({}));
      } else
        requestHttp2(sessionOn(socket), {})
          .pause()
          .on('error', () => {});
      await eventually(() => endless.destroyed);
    });
  });

  describe(`a handler of our own, over ${protocol}`, () => {
    it('is told the certificate, the name, the version and the keying material of the connection', async (t) => {
      const context = Buffer.from('context');
      const world = await start(t, ({ connection }) => {
        const { certificate, serverName, clientAddress, secureVersion } = connection;
        const exported = connection.exportKeyingMaterial(32, 'EXPORTER-test', context);
        const material = Buffer.from(exported).toString('hex');
        const told = { certificate, serverName, clientAddress, secureVersion, material };
        return reply(Buffer.from(JSON.stringify(told)));
      });
      const socket = await secure(t, world, protocol);
      const material = socket.exportKeyingMaterial(32, 'EXPORTER-test', context).toString('hex');
      const received =
        protocol === 'h1' ? await askHttp1(socket, {}) : await collect(requestHttp2(sessionOn(socket), {}));
      const leaf = new X509Certificate(appCertificate.chain);
      assert.deepEqual(JSON.parse(received.body.toString()), {
        certificate: { pem: leaf.toString(), fingerprint: digest(leaf.raw) },
        serverName: HOST,
        clientAddress: '127.0.0.1',
        secureVersion: 'TLSv1.3',
        material,
      });
    });

    const readAll: Handle = async (request) => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of request.readBody()) chunks.push(chunk);
      return reply(Buffer.from(digest(Buffer.concat(chunks))));
    };

    it('that asks for the body is given all of it, and the connection goes on', async (t) => {
      const body = 'abc'.repeat(500_000);
      const world = await start(t, readAll);
      const received = await ask(t, world, protocol, { method: 'POST', body });
      assert.equal(received.body.toString(), digest(Buffer.from(body)));
    });

    it('may ask for it late, after it has begun to arrive', async (t) => {
      const late: Handle = async (request) => {
        for (let i = 0; i < 20; i++) await turn();
        return readAll(request);
      };
      const body = 'abc'.repeat(500_000);
      const received = await ask(t, await start(t, late), protocol, { method: 'POST', body });
      assert.equal(received.body.toString(), digest(Buffer.from(body)));
    });

    it('is not sent more of it than it takes', async (t) => {
      const world = await start(t, async (request) => {
        let taken = 0;
        for await (const chunk of request.readBody()) {
          taken += chunk.length;
          if (taken > 1000) break;
        }
        return reply(Buffer.from('enough'));
      });
      const received = await ask(t, world, protocol, { method: 'POST', body: 'x'.repeat(3 * MIB) });
      assert.deepEqual([received.status, received.body.toString()], [200, 'enough']);
    });

    it('is told that there is no body', async (t) => {
      const received = await ask(t, await start(t, readAll), protocol);
      assert.equal(received.body.toString(), digest(Buffer.alloc(0)));
    });

    it('asks for it, and a client that waits to be asked is told to go on', async (t) => {
      const world = await start(t, readAll);
      const socket = await secure(t, world, protocol);
      if (protocol === 'h1') {
        const text = http1Text({ method: 'POST', body: 'hello', headers: { Expect: '100-continue' } });
        socket.write(text.slice(0, -5));
        const [interim] = await once(socket, 'data');
        assert.match(String(interim), /^HTTP\/1\.1 100 /);
        socket.write('hello');
        assert.match(String((await once(socket, 'data'))[0]), new RegExp(`${digest(Buffer.from('hello'))}$`));
        return;
      }
      const stream = requestHttp2(sessionOn(socket), {
        method: 'POST',
        body: '',
        headers: { expect: '100-continue' },
      });
      await once(stream, 'continue');
      const received = await collect(stream, { body: 'hello' });
      assert.equal(received.body.toString(), digest(Buffer.from('hello')));
    });

    it('never sees more than the limit: the client is told 413', async (t) => {
      let failure: unknown;
      const world = await start(
        t,
        async (request) => {
          try {
            return await readAll(request);
          } catch (error) {
            failure = error;
            throw error;
          }
        },
        { maxBodyBytes: 1_000 },
      );
      if (protocol === 'h1') {
        const client = await world.ingress.connect();
        client.send(`POST /local/x HTTP/1.1\r\nHost: ${HOST}\r\nTransfer-Encoding: chunked\r\n\r\n`);
        client.send(`800\r\n${'x'.repeat(2048)}\r\n`);
        assert.equal((await client.reply()).status, 413);
      } else
        assert.equal((await ask(t, world, protocol, { method: 'POST', body: 'x'.repeat(2048) })).status, 413);
      await eventually(() => failure !== undefined);
    });

    it('that reads a body which breaks off is told so', async (t) => {
      const begun = Promise.withResolvers<void>();
      const failed = Promise.withResolvers<unknown>();
      const world = await start(t, async (request) => {
        begun.resolve();
        try {
          return await readAll(request);
        } catch (error) {
          failed.resolve(error);
          throw error;
        }
      });
      const socket = await secure(t, world, protocol);
      if (protocol === 'h1') {
        socket.write(`POST /local/x HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: 10\r\n\r\nhello`);
        await begun.promise;
        socket.destroy();
      } else {
        const headers = { 'content-length': '10' };
        const stream = requestHttp2(sessionOn(socket), { method: 'POST', body: '', headers });
        stream.on('error', () => {});
        stream.write('hello');
        await begun.promise;
        stream.close(8);
      }
      assert.match(String(await failed.promise), /the client has gone/);
    });

    it('that does not ask for the body answers all the same, whether or not all of it has come', async (t) => {
      const world = await start(t, () => reply(each([Buffer.from('answered')])));
      const received = await ask(t, world, protocol, { method: 'POST', body: 'x'.repeat(200_000) });
      assert.deepEqual([received.body.toString(), received.whole], ['answered', true]);
    });
  });
}

describe('over HTTP/1.1', () => {
  it('a stream of unknown length is chunked, and the next request on the connection is answered', async (t) => {
    const world = await start(t, () => reply(each([Buffer.from('one'), Buffer.from('two')])));
    const client = await world.ingress.connect();
    for (let i = 0; i < 3; i++) {
      client.send(`GET /local/x HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`);
      assert.match(
        await client.until(/0\r\n\r\n$/),
        /Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n$/,
      );
    }
  });

  it('requests that were sent ahead are answered in turn, each by its own stream', async (t) => {
    const world = await start(t, ({ query }) => reply(each([Buffer.from(query)]), { length: query.length }));
    const client = await world.ingress.connect();
    client.send([1, 2, 3].map((n) => `GET /local/x?n=${n} HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`).join(''));
    assert.deepEqual(
      [(await client.reply()).body, (await client.reply()).body, (await client.reply()).body],
      ['n=1', 'n=2', 'n=3'],
    );
  });

  it('a client of HTTP/1.0 is given the end of the connection for the end of the body', async (t) => {
    const world = await start(t, () => reply(each([Buffer.from('one'), Buffer.from('two')])));
    const received = await ask(t, world, 'h1', { version: '1.0', headers: { Connection: 'keep-alive' } });
    assert.deepEqual(
      [
        received.headers['transfer-encoding'],
        received.headers['content-length'],
        received.headers.connection,
      ],
      [undefined, undefined, 'close'],
    );
    assert.deepEqual([received.body.toString(), received.whole], ['onetwo', true]);
  });

  it('a body that failed does not end as a whole one does', async (t) => {
    const world = await start(t, () => {
      async function* broken() {
        yield Buffer.from('one');
        throw new Error('no more of it');
      }
      return reply(broken());
    });
    const socket = await secure(t, world, 'h1');
    socket.resume();
    socket.write(http1Text({ version: '1.0' }));
    await closeOf(socket);
    assert.equal(socket.readableEnded, false);
  });
});

describe('a route', () => {
  it('has a limit of its own for bodies, which is judged before the upstream is asked', async (t) => {
    const world = await start(t, () => reply(Buffer.from('local')), { maxBodyBytes: 10 }, 20);
    const status = async (path: string, size: number) => {
      const client = await world.ingress.connect();
      const text = `POST ${path} HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: ${size}\r\n\r\n${'x'.repeat(size)}`;
      return (await client.request(text)).status;
    };
    assert.equal(await status('/', 21), 413);
    // Nobody listens there: it was forwarded.
    assert.equal(await status('/', 20), 502);
    assert.equal(await status('/local/x', 11), 413);
    assert.equal(await status('/local/x', 10), 200);
  });
});
