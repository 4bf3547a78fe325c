// gRPC through the ingress, with grpc-js on both sides, and HTTP/2 upstreams that misbehave.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  createSecureServer,
  createServer,
  type Http2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { createServer as createTcpServer } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import * as grpc from '@grpc/grpc-js';
import { MOST_REFUSALS } from '../../../proxy/exchange/retry.ts';
import type { Http2Stream } from '../../../proxy/http2/connection.ts';
import { createDeadlines } from '../../../proxy/socket/deadlines.ts';
import { createUpstreams } from '../../../proxy/upstream/http1-pool.ts';
import { createHttp2Upstreams, type UpstreamSession } from '../../../proxy/upstream/http2-pool.ts';
import {
  flag,
  frame,
  frameType,
  headersFrame,
  requestFields,
  settingsFrame,
} from '../../support/http2-frames.ts';
import {
  ask,
  collect,
  HOST,
  type Http2Ingress,
  startHttp2Ingress,
  testCertificate,
  upstreamAt,
} from '../../support/http2-ingress.ts';

const identity = (bytes: Buffer) => bytes;
const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/test.Echo/${name}`,
  requestStream,
  responseStream,
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity,
});
const echo = {
  unary: method('Unary', false, false),
  collect: method('Collect', true, false),
  repeat: method('Repeat', false, true),
  chat: method('Chat', true, true),
  fail: method('Fail', false, false),
  hang: method('Hang', true, true),
};

const NO_STREAM_USER = { streamData() {}, streamTrailers() {}, streamEnded() {}, streamDrained() {} };

interface EchoServer {
  readonly port: number;
  /** One entry for each call of `hang` that was cancelled. */
  readonly cancelled: string[];
  readonly seen: grpc.Metadata[];
  kill(): void;
}

async function startEcho(t: { after(fn: () => void): void }): Promise<EchoServer> {
  const server = new grpc.Server({ 'grpc.max_receive_message_length': 16 * 1024 * 1024 });
  const cancelled: string[] = [];
  const seen: grpc.Metadata[] = [];
  server.addService(echo, {
    unary(call: grpc.ServerUnaryCall<Buffer, Buffer>, callback: grpc.sendUnaryData<Buffer>) {
      seen.push(call.metadata);
      const initial = new grpc.Metadata();
      for (const value of call.metadata.get('blob-bin')) initial.add('blob-bin', value);
      initial.set('greeting', 'hello');
      call.sendMetadata(initial);
      const trailing = new grpc.Metadata();
      trailing.set('farewell', 'bye');
      trailing.add('tail-bin', Buffer.from([0, 255, 1]));
      callback(null, call.request, trailing);
    },
    collect(call: grpc.ServerReadableStream<Buffer, Buffer>, callback: grpc.sendUnaryData<Buffer>) {
      const parts: Buffer[] = [];
      call.on('data', (part: Buffer) => parts.push(part));
      call.on('end', () => callback(null, Buffer.concat(parts)));
    },
    repeat(call: grpc.ServerWritableStream<Buffer, Buffer>) {
      for (let i = 0; i < 20; i++) call.write(Buffer.from(`${call.request} ${i}`));
      call.end();
    },
    chat(call: grpc.ServerDuplexStream<Buffer, Buffer>) {
      call.on('data', (part: Buffer) => call.write(part));
      call.on('end', () => call.end());
    },
    fail(_call: grpc.ServerUnaryCall<Buffer, Buffer>, callback: grpc.sendUnaryData<Buffer>) {
      callback({ code: grpc.status.FAILED_PRECONDITION, details: 'not ready: 50 % of é' });
    },
    hang(call: grpc.ServerDuplexStream<Buffer, Buffer>) {
      call.write(Buffer.from('begun'));
      call.on('cancelled', () => cancelled.push('cancelled'));
      call.on('error', () => {});
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  t.after(() => server.forceShutdown());
  return {
    port,
    cancelled,
    seen,
    kill: () => server.forceShutdown(),
  };
}

// biome-ignore lint/suspicious/noExplicitAny: grpc-js makes the client's methods from the definitions at run time
function clientOf(ingress: Http2Ingress, t: { after(fn: () => void): void }): any {
  const Client = grpc.makeGenericClientConstructor(echo, 'Echo');
  const client = new Client(
    `127.0.0.1:${ingress.port}`,
    grpc.credentials.createSsl(Buffer.from(testCertificate.cert)),
    {
      'grpc.ssl_target_name_override': HOST,
      'grpc.default_authority': HOST,
      'grpc.max_receive_message_length': 16 * 1024 * 1024,
      'grpc.enable_retries': 0,
    },
  );
  t.after(() => client.close());
  return client;
}

interface Outcome {
  readonly error: grpc.ServiceError | null;
  readonly value: Buffer | undefined;
  readonly initial: grpc.Metadata;
  readonly status: grpc.StatusObject;
}

function unary(
  // biome-ignore lint/suspicious/noExplicitAny: as clientOf
  client: any,
  name: string,
  message: Buffer,
  metadata = new grpc.Metadata(),
  options = {},
): Promise<Outcome> {
  return new Promise((resolve) => {
    let error: grpc.ServiceError | null = null;
    let value: Buffer | undefined;
    let initial = new grpc.Metadata();
    const call = client[name](
      message,
      metadata,
      options,
      (failure: grpc.ServiceError | null, reply: Buffer) => {
        error = failure;
        value = reply;
      },
    );
    call.on('metadata', (received: grpc.Metadata) => {
      initial = received;
    });
    call.on('status', (status: grpc.StatusObject) =>
      setImmediate(() => resolve({ error, value, initial, status })),
    );
  });
}

async function start(t: TestContext) {
  const upstream = await startEcho(t);
  const ingress = await startHttp2Ingress({ upstream: upstreamAt('grpc', upstream.port) });
  t.after(() => ingress.close());
  return { upstream, ingress, client: clientOf(ingress, t) };
}

describe('gRPC calls', () => {
  it('carry unary calls with metadata both ways, binary values untouched', async (t) => {
    const { client, upstream } = await start(t);
    const metadata = new grpc.Metadata();
    metadata.add('blob-bin', Buffer.from([0, 1, 2, 255]));
    metadata.add('blob-bin', Buffer.from('second'));
    metadata.set('under_score', 'kept');
    const { error, value, initial, status } = await unary(client, 'unary', Buffer.from('ping'), metadata);
    assert.equal(error, null);
    assert.deepEqual(value, Buffer.from('ping'));
    assert.deepEqual(initial.get('blob-bin'), [Buffer.from([0, 1, 2, 255]), Buffer.from('second')]);
    assert.deepEqual(initial.get('greeting'), ['hello']);
    assert.deepEqual(status.metadata.get('farewell'), ['bye']);
    assert.deepEqual(status.metadata.get('tail-bin'), [Buffer.from([0, 255, 1])]);
    const [seen] = upstream.seen;
    assert.deepEqual(seen!.get('under_score'), ['kept']);
    assert.deepEqual(seen!.get('x-forwarded-for'), ['203.0.113.7']);
  });

  it('carry client streams, server streams and conversations', async (t) => {
    const { client } = await start(t);
    const collected = await new Promise<Buffer>((resolve, reject) => {
      const call = client.collect((error: Error | null, value: Buffer) =>
        error ? reject(error) : resolve(value),
      );
      for (const part of ['a', 'b', 'c']) call.write(Buffer.from(part));
      call.end();
    });
    assert.equal(collected.toString(), 'abc');
    const repeated: string[] = [];
    for await (const part of client.repeat(Buffer.from('n'))) repeated.push(part.toString());
    assert.deepEqual(
      repeated,
      Array.from({ length: 20 }, (_, i) => `n ${i}`),
    );
    const call = client.chat();
    for (const word of ['one', 'two', 'three']) {
      call.write(Buffer.from(word));
      const [answer] = await once(call, 'data');
      assert.equal(answer.toString(), word);
    }
    call.end();
    await once(call, 'end');
  });

  it('pass on the status of a call that failed, trailers-only', async (t) => {
    const { client } = await start(t);
    const { error } = await unary(client, 'fail', Buffer.from('x'));
    assert.equal(error?.code, grpc.status.FAILED_PRECONDITION);
    assert.equal(error?.details, 'not ready: 50 % of é');
  });

  it('carry messages of 4 MiB and a hundred streams at once', async (t) => {
    const { client } = await start(t);
    const large = Buffer.alloc(4 * 1024 * 1024, 'x');
    const { value } = await unary(client, 'unary', large);
    assert.ok(value?.equals(large));
    const outcomes = await Promise.all(
      Array.from({ length: 100 }, (_, i) => unary(client, 'unary', Buffer.from(`call ${i}`))),
    );
    for (const [i, outcome] of outcomes.entries()) assert.equal(outcome.value?.toString(), `call ${i}`);
  });

  it('reach the upstream as cancelled when the client cancels', async (t) => {
    const { client, upstream } = await start(t);
    const call = client.hang();
    call.on('error', () => {});
    await once(call, 'data');
    call.cancel();
    const [error] = await once(call, 'error');
    assert.equal(error.code, grpc.status.CANCELLED);
    await until(() => upstream.cancelled.length === 1);
  });

  it('end at their deadline, on both sides', async (t) => {
    const { client, upstream } = await start(t);
    const call = client.hang(new grpc.Metadata(), { deadline: Date.now() + 400 });
    call.on('data', () => {});
    const [error] = await once(call, 'error');
    assert.equal(error.code, grpc.status.DEADLINE_EXCEEDED);
    await until(() => upstream.cancelled.length === 1);
  });

  it('end as UNAVAILABLE when the upstream is killed in the middle', async (t) => {
    const { client, upstream } = await start(t);
    const call = client.hang();
    await once(call, 'data');
    const failed = once(call, 'error');
    upstream.kill();
    const [error] = await failed;
    assert.equal(error.code, grpc.status.UNAVAILABLE);
  });

  it('end as UNAVAILABLE when no upstream answers', async (t) => {
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('grpc', await closedPort()) });
    t.after(() => ingress.close());
    const { error } = await unary(clientOf(ingress, t), 'unary', Buffer.from('x'));
    assert.equal(error?.code, grpc.status.UNAVAILABLE);
  });

  it('end as DEADLINE_EXCEEDED when the upstream stays silent too long', async (t) => {
    const silent = await startHttp2({ onStream: () => {} }, t);
    const ingress = await startHttp2Ingress({
      upstream: upstreamAt('grpc', silent.port, { readTimeoutMs: 150 }),
    });
    t.after(() => ingress.close());
    const { error } = await unary(clientOf(ingress, t), 'unary', Buffer.from('x'));
    assert.equal(error?.code, grpc.status.DEADLINE_EXCEEDED);
  });
});

interface Double {
  readonly port: number;
  readonly server: Http2Server;
  readonly sessions: ServerHttp2Session[];
}

async function startHttp2(
  {
    onStream,
    settings,
  }: { onStream: (stream: ServerHttp2Stream, headers: Record<string, unknown>) => void; settings?: object },
  t: { after(fn: () => void): void },
): Promise<Double> {
  const server = createServer({ settings: settings ?? {} });
  const sessions: ServerHttp2Session[] = [];
  server.on('session', (session) => sessions.push(session));
  server.on('sessionError', () => {});
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    onStream(stream as ServerHttp2Stream, headers);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, server, sessions };
}

describe('HTTP/2 upstreams', () => {
  it('may refuse a stream unprocessed, which is sent once more with its body', async (t) => {
    const bodies: string[] = [];
    const double = await startHttp2(
      {
        async onStream(stream) {
          let body = '';
          for await (const chunk of stream) body += chunk;
          bodies.push(body);
          if (bodies.length === 1) return stream.close(7);
          stream.respond({ ':status': 200 });
          stream.end('done');
        },
      },
      t,
    );
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', double.port) });
    t.after(() => ingress.close());
    const reply = await ask(ingress.session(), { ':method': 'POST' }, 'the body');
    assert.equal(reply.body.toString(), 'done');
    assert.deepEqual(bodies, ['the body', 'the body']);
  });

  it('are not asked without end: so many refusals are the answer', async (t) => {
    let asked = 0;
    const double = await startHttp2(
      {
        onStream(stream) {
          asked++;
          stream.close(7);
        },
      },
      t,
    );
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', double.port) });
    t.after(() => ingress.close());
    const reply = await ask(ingress.session());
    assert.equal(reply.headers[':status'], 502);
    assert.equal(asked, 1 + MOST_REFUSALS);
  });

  it('reset a stream with a code, and the client gets the same code', async (t) => {
    const double = await startHttp2({ onStream: (stream) => stream.close(11) }, t);
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', double.port) });
    t.after(() => ingress.close());
    assert.equal((await ask(ingress.session())).rstCode, 11);
  });

  it('that die in the middle of a reply never make it look complete', async (t) => {
    const double = await startHttp2(
      {
        onStream(stream) {
          stream.respond({ ':status': 200 });
          stream.write('half', () => stream.session?.destroy());
        },
      },
      t,
    );
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', double.port) });
    t.after(() => ingress.close());
    const reply = await ask(ingress.session());
    assert.notEqual(reply.rstCode, 0);
  });

  it('that announce GOAWAY finish what they have begun, and new requests go to a new connection', async (t) => {
    let first: ServerHttp2Stream | undefined;
    const double = await startHttp2(
      {
        onStream(stream) {
          if (first === undefined) {
            first = stream;
            stream.session?.goaway(0, stream.id as number);
          } else {
            stream.respond({ ':status': 200 });
            stream.end('second');
          }
        },
      },
      t,
    );
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', double.port) });
    t.after(() => ingress.close());
    const session = ingress.session();
    const slow = ask(session);
    await until(() => first !== undefined);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal((await ask(session)).body.toString(), 'second');
    first!.respond({ ':status': 200 });
    first!.end('first');
    assert.equal((await slow).body.toString(), 'first');
    assert.equal(double.sessions.length, 2);
  });

  it('never get more streams at once than they allow', async (t) => {
    let open = 0;
    let most = 0;
    const double = await startHttp2(
      {
        settings: { maxConcurrentStreams: 3 },
        onStream(stream) {
          open++;
          most = Math.max(most, open);
          stream.on('close', () => open--);
          setTimeout(() => {
            stream.respond({ ':status': 200 });
            stream.end('ok');
          }, 20);
        },
      },
      t,
    );
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', double.port) });
    t.after(() => ingress.close());
    const session = ingress.session();
    const replies = await Promise.all(Array.from({ length: 20 }, () => ask(session)));
    for (const reply of replies) assert.equal(reply.body.toString(), 'ok');
    assert.ok(double.sessions.length >= 7, 'enough connections for all');
    assert.ok(most <= 3 * double.sessions.length);
  });

  it('carry trailers both ways and interim replies', async (t) => {
    let trailers: unknown;
    const double = await startHttp2(
      {
        onStream(stream) {
          stream.additionalHeaders({ ':status': 103, link: '</a.css>; rel=preload' });
          stream.on('trailers', (received) => {
            trailers = received['x-checksum'];
          });
          stream.on('data', () => {});
          stream.on('end', () => {
            stream.respond({ ':status': 200 }, { waitForTrailers: true });
            stream.on('wantTrailers', () => stream.sendTrailers({ 'x-after': ['1', '2'] }));
            stream.end('body');
          });
        },
      },
      t,
    );
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', double.port) });
    t.after(() => ingress.close());
    const session = ingress.session();
    const stream = session.request(
      { ':authority': HOST, ':method': 'POST', trailer: 'x-checksum' },
      { waitForTrailers: true },
    );
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-checksum': 'abc' }));
    const reply = await collect(stream, () => void stream.end('up'));
    assert.equal(reply.body.toString(), 'body');
    assert.equal(trailers, 'abc');
    assert.equal(reply.trailers['x-after'], '1, 2');
    assert.deepEqual(
      reply.interim.map((headers) => headers[':status']),
      [103],
    );
  });

  it('never see forbidden trailers, and such trailers do no harm', async (t) => {
    let trailers: string[] | undefined;
    const double = await startHttp2(
      {
        onStream(stream) {
          stream.on('trailers', (_headers, _flags, raw) => {
            trailers = raw;
          });
          stream.on('data', () => {});
          stream.on('end', () => {
            stream.respond({ ':status': 200 });
            stream.end('ok');
          });
        },
      },
      t,
    );
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', double.port) });
    t.after(() => ingress.close());
    const client = await ingress.frames();
    const forbidden = ['http2-settings', 'te', 'content-type', 'authorization', 'x-forwarded-for'];
    client.send(
      headersFrame(1, requestFields('POST', [['trailer', 'x-sum']]), flag.endHeaders),
      frame(frameType.data, 0, 1, Buffer.from('body')),
      headersFrame(1, [...forbidden.map((name) => [name, 'trailers'] as const), ['x-sum', '1']]),
    );
    await client.next((f) => f.type === frameType.headers || f.type === frameType.rstStream);
    if (trailers !== undefined) {
      assert.ok(trailers.includes('x-sum'));
      for (const name of ['http2-settings', 'authorization', 'x-forwarded-for']) {
        assert.ok(!trailers.includes(name), name);
      }
    }
    assert.equal((await ask(ingress.session())).body.toString(), 'ok');
  });

  it('that fall silent are found out by PING, and their calls fail', async (t) => {
    const server = createTcpServer((socket) => {
      socket.on('error', () => {});
      // It greets, and answers nothing ever after.
      socket.once('data', () => socket.write(settingsFrame()));
    }).listen(0, '127.0.0.1');
    t.after(() => server.close());
    await once(server, 'listening');
    const deadlines = createDeadlines(undefined, 20);
    const upstreams = createHttp2Upstreams({
      deadlines,
      upstreams: createUpstreams({ deadlines }),
      quietMs: -1,
      pingTimeoutMs: 60,
      fieldLimits: { bytes: 16_384, count: 128 },
    });
    t.after(() => upstreams.destroyAll());
    const settings = upstreamAt('h2c', (server.address() as AddressInfo).port);
    const session = await new Promise<UpstreamSession>((taken, failed) => {
      upstreams.acquire(settings, taken, failed);
    });
    const closed = Promise.withResolvers<Http2Stream>();
    const stream = session.openStream({ ...NO_STREAM_USER, streamClosed: closed.resolve });
    stream.beginHead();
    for (const [name, value] of requestFields()) stream.addField(name, value);
    stream.endHead('last');
    assert.equal((await closed.promise).end, 'lost');
    assert.equal(session.lost, true);
  });

  it('that accept a connection and say nothing are a gateway timeout', async (t) => {
    const server = createTcpServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1');
    t.after(() => server.close());
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const ingress = await startHttp2Ingress({ upstream: upstreamAt('h2c', port, { connectTimeoutMs: 100 }) });
    t.after(() => ingress.close());
    assert.equal((await ask(ingress.session())).headers[':status'], 504);
  });

  it('are reached over TLS when they are grpcs, verified and only by h2', async (t) => {
    const secure = createSecureServer(testCertificate);
    secure.on('stream', (stream) => {
      (stream as ServerHttp2Stream).respond({ ':status': 200 });
      stream.end('secret');
    });
    const plain = createTlsServer({ ...testCertificate, ALPNProtocols: ['http/1.1'] });
    for (const server of [secure, plain]) {
      server.on('tlsClientError', () => {});
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      t.after(() => server.close());
    }
    const ask1 = async (upstreamCa: string | undefined, port: number) => {
      const ingress = await startHttp2Ingress({ upstream: upstreamAt('grpcs', port), upstreamCa });
      t.after(() => ingress.close());
      return ask(ingress.session());
    };
    const { port } = secure.address() as AddressInfo;
    assert.equal((await ask1(testCertificate.cert, port)).body.toString(), 'secret');
    const untrusted = await ask1(undefined, port);
    assert.equal(untrusted.headers[':status'], 502);
    assert.equal(JSON.parse(untrusted.body.toString()).error, 'upstream-untrusted');
    const { port: plainPort } = plain.address() as AddressInfo;
    assert.equal((await ask1(testCertificate.cert, plainPort)).headers[':status'], 502);
  });

  it('that do not speak HTTP/2 at all are a bad gateway', async (t) => {
    const server = createTcpServer((socket) => socket.end('SSH-2.0-OpenSSH\r\n')).listen(0, '127.0.0.1');
    t.after(() => server.close());
    await once(server, 'listening');
    const ingress = await startHttp2Ingress({
      upstream: upstreamAt('h2c', (server.address() as AddressInfo).port),
    });
    t.after(() => ingress.close());
    assert.equal((await ask(ingress.session())).headers[':status'], 502);
  });

  it('share the load, and one that is down is passed over', async (t) => {
    const double = await startHttp2(
      {
        onStream(stream) {
          stream.respond({ ':status': 200 });
          stream.end('ok');
        },
      },
      t,
    );
    const ingress = await startHttp2Ingress({
      upstream: upstreamAt('h2c', [await closedPort(), double.port]),
    });
    t.after(() => ingress.close());
    const session = ingress.session();
    for (let i = 0; i < 5; i++) assert.equal((await ask(session)).body.toString(), 'ok');
  });
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10));
}

async function closedPort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
