// The verify proxy command from outside: real programs through it, keys that change beneath it, hosts that stop proving.

import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import {
  Client,
  credentials,
  Server as GrpcServer,
  Metadata,
  ServerCredentials,
  type ServerDuplexStream,
} from '@grpc/grpc-js';
import { WebSocket, WebSocketServer } from 'ws';
import { chat, type EchoMessage, echoService, say } from '../../../src/demo/echo.ts';
import { bundledProgram } from '../../support/bundle.ts';
import {
  createEvidenceWorld,
  type EvidenceHost,
  HOST,
  type Lie,
  startEvidenceHost,
  type World,
} from '../../support/evidence-host.ts';

const program = bundledProgram();
const run = promisify(execFile);

let world: World;
let folder: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'verify-proxy-'));
  world = await createEvidenceWorld();
  await writeFile(join(folder, 'ca.pem'), world.ca.pem);
  await writeFile(join(folder, 'quote-root.pem'), world.processor.rootPem);
  await writeFile(join(folder, 'collateral.json'), JSON.stringify(world.processor.collateral));
});

after(() => rm(folder, { recursive: true }));

// The app of the host: what it was asked, WebSocket and gRPC.

interface AppHost extends EvidenceHost {
  /** Bytes of what came on the connections that did not ask for evidence, once it was decrypted. */
  readonly received: () => number;
}

function tellRequest(request: IncomingMessage, response: ServerResponse): void {
  const parts: Buffer[] = [];
  request.on('data', (part: Buffer) => parts.push(part));
  request.on('end', () => {
    const { method, url, headers, trailers } = request;
    const body = Buffer.concat(parts);
    response.writeHead(200, [
      ...['set-cookie', 'a=1', 'set-cookie', 'b=2', 'connection', 'x-hop', 'x-hop', 'no'],
      ...['trailer', 'x-sum'],
    ]);
    response.write(JSON.stringify({ method, url, headers, trailers, size: body.length }));
    response.addTrailers({ 'x-sum': String(body.length) });
    response.end();
  });
}

async function startAppHost(lie: Lie = {}): Promise<AppHost> {
  const tls = { ALPNProtocols: ['h2', 'http/1.1'] };
  const host = await startEvidenceHost(world, { app: tellRequest, ...lie, tls });
  const grpc = new GrpcServer();
  grpc.addService(echoService, {
    say: (call: { request: EchoMessage }, reply: (e: null, m: EchoMessage, t: Metadata) => void) => {
      const trailer = new Metadata();
      trailer.set('x-end', 'yes');
      reply(null, { text: `hello ${call.request.text}` }, trailer);
    },
    chat: (call: ServerDuplexStream<EchoMessage, EchoMessage>) => {
      call.on('data', (message: EchoMessage) => call.write(message));
      call.on('end', () => call.end());
    },
  });
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure());
  const sockets = new WebSocketServer({ server: host.server });
  sockets.on('connection', (socket) => {
    socket.on('error', () => {}).on('message', (data, binary) => socket.send(data, { binary }));
  });
  const seen: TLSSocket[] = [];
  const ofEvidence = new WeakSet<object>();
  host.server.on('request', (request) => {
    if (request.url?.startsWith('/evidences/')) ofEvidence.add(request.socket);
  });
  const asHttp1 = host.server.listeners('secureConnection') as ((socket: TLSSocket) => void)[];
  host.server.removeAllListeners('secureConnection').on('secureConnection', (socket: TLSSocket) => {
    seen.push(socket);
    if (socket.alpnProtocol === 'h2') injector.injectConnection(socket);
    else for (const listener of asHttp1) listener.call(host.server, socket);
  });
  return {
    ...host,
    received: () =>
      seen.filter((one) => !ofEvidence.has(one)).reduce((sum, { bytesRead }) => sum + bytesRead, 0),
    async close() {
      for (const socket of seen) socket.destroy();
      grpc.forceShutdown();
      await host.close();
    },
  };
}

/** One address behind which now one host is, now another. */
async function startSwitch(first: number) {
  let to = first;
  const open = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(to, '127.0.0.1');
    for (const socket of [near, far]) {
      open.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => near.destroy() && far.destroy());
    }
    near.pipe(far).pipe(near);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `https://${HOST}:${(server.address() as AddressInfo).port}`,
    turn(port: number) {
      to = port;
    },
    stop() {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

const trust = ['--ca', 'ca.pem', '--root', 'quote-root.pem', '--collateral', 'collateral.json'];

interface Proxy {
  readonly url: string;
  readonly port: number;
  readonly child: ChildProcess;
  readonly said: (what: RegExp) => Promise<void>;
  readonly stderr: () => string;
}

function start(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [program, 'verify', 'proxy', ...args], {
    cwd: folder,
    env: { PATH: process.env.PATH ?? '' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

async function startProxy(url: string, ...more: string[]): Promise<Proxy> {
  const child = start(['--listen', '127.0.0.1:0', url, ...trust, ...more]);
  let err = '';
  child.stderr!.setEncoding('utf8').on('data', (part: string) => {
    err += part;
  });
  const said = async (what: RegExp) => {
    while (!what.test(err)) {
      assert.equal(child.exitCode, null, err);
      await Promise.race([once(child.stderr!, 'data'), once(child, 'exit')]);
    }
  };
  await said(/leads to/);
  const port = Number(/http:\/\/127\.0\.0\.1:(\d+) leads/.exec(err)?.[1]);
  return { url: `http://127.0.0.1:${port}`, port, child, said, stderr: () => err };
}

async function ended(child: ChildProcess) {
  const [out, err, [code]] = await Promise.all([
    text(child.stdout!),
    text(child.stderr!),
    once(child, 'close'),
  ]);
  return { out, err, code: code as number };
}

async function curl(...args: string[]): Promise<{ status: number; body: string }> {
  const { stdout } = await run('curl', ['-sS', '--max-time', '60', '-w', '\n%{http_code}', ...args]);
  const at = stdout.lastIndexOf('\n');
  return { status: Number(stdout.slice(at + 1)), body: stdout.slice(0, at) };
}

async function openWebSocket(proxy: Proxy): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${proxy.port}/socket`);
  socket.on('error', () => {});
  await once(socket, 'open');
  return socket;
}

async function sayOver(client: Client, words: string): Promise<{ reply: string; end: unknown }> {
  let end: unknown;
  const reply = await new Promise<string>((resolve, reject) => {
    const call = client.makeUnaryRequest<EchoMessage, EchoMessage>(
      say.path,
      say.requestSerialize,
      say.responseDeserialize,
      { text: words },
      { deadline: Date.now() + 60_000 },
      (error, message) => (error === null ? resolve(message!.text) : reject(error)),
    );
    call.on('status', ({ metadata }) => {
      end = metadata.get('x-end')[0];
    });
  });
  return { reply, end };
}

describe('through the proxy', { timeout: 120_000 }, () => {
  let host: AppHost;
  let proxy: Proxy;

  before(async () => {
    host = await startAppHost();
    proxy = await startProxy(host.url);
  });

  after(async () => {
    proxy.child.kill('SIGKILL');
    await host.close();
  });

  test('curl reaches the host under its own name, with bodies, trailers and fields as they are', async () => {
    const big = join(folder, 'big');
    await writeFile(big, Buffer.alloc(3_000_000, 'x'));
    const { status, body } = await curl(
      '-D-',
      '-T',
      big,
      '-H',
      'Expect:',
      '-H',
      'X-Own: 1',
      `${proxy.url}/put?a=b`,
    );
    assert.equal(status, 200);
    const told = JSON.parse(/\{.*\}/.exec(body)![0]);
    assert.deepEqual([told.method, told.url, told.size], ['PUT', '/put?a=b', 3_000_000]);
    assert.equal(told.headers.host, new URL(host.url).host);
    assert.equal(told.headers['x-own'], '1');
    assert.match(body, /set-cookie: a=1\r\nset-cookie: b=2\r\n/i);
    assert.doesNotMatch(body, /x-hop: no/i);
    assert.match(body, /x-sum: 3000000\r\n$/i);
    const framed = ['-H', 'Transfer-Encoding: chunked', '-H', 'Expect: 100-continue'];
    const chunked = await curl('-X', 'GET', '-T', big, ...framed, `${proxy.url}/get`);
    assert.equal(JSON.parse(chunked.body).size, 3_000_000, 'a body is framed whatever the method');
    assert.equal(JSON.parse((await curl('-X', 'POST', `${proxy.url}/none`)).body).size, 0);
  });

  test('a request for another host than this is refused', async () => {
    const { status } = await curl('--request-target', 'http://other.example/', proxy.url);
    assert.equal(status, 400);
  });

  test('trailers of a request arrive', async () => {
    const socket = connect(proxy.port, '127.0.0.1');
    socket.write(
      'POST /t HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTrailer: x-t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx-t: 7\r\n\r\n',
    );
    assert.match(await text(socket), /"trailers":\{"x-t":"7"\},"size":2\}/);
  });

  test('a WebSocket echoes in both directions', async () => {
    const socket = await openWebSocket(proxy);
    const long = 'w'.repeat(2_000_000);
    socket.send(long);
    const [data] = await once(socket, 'message');
    assert.equal(String(data), long);
    socket.close(4000, 'bye');
    const [code] = await once(socket, 'close');
    assert.equal(code, 4000);
  });

  test('gRPC calls pass, unary with trailers and streams both ways', async () => {
    const client = new Client(`127.0.0.1:${proxy.port}`, credentials.createInsecure());
    assert.deepEqual(await sayOver(client, 'you'), { reply: 'hello you', end: 'yes' });
    const call = client.makeBidiStreamRequest<EchoMessage, EchoMessage>(
      chat.path,
      chat.requestSerialize,
      chat.responseDeserialize,
    );
    for (const words of ['one', 'two']) {
      call.write({ text: words });
      const [message] = (await once(call, 'data')) as [EchoMessage];
      assert.equal(message.text, words);
    }
    call.end();
    const [status] = await once(call, 'status');
    assert.equal(status.code, 0);
    client.close();
  });

  test('Ctrl-C ends it, with 0', async () => {
    const other = await startProxy(host.url);
    const socket = await openWebSocket(other);
    other.child.kill('SIGINT');
    await once(socket, 'close');
    if (other.child.exitCode === null) await once(other.child, 'exit');
    assert.equal(other.child.exitCode, 0);
  });
});

test('a key that changes with good evidence is proven before it is used, one without gets not one byte', {
  timeout: 120_000,
}, async () => {
  const first = await startAppHost();
  const renewed = await world.ca.issue([HOST]);
  const second = await startAppHost({ published: renewed, served: [renewed] });
  const wire = await startSwitch(first.port);
  const proxy = await startProxy(wire.url);
  const client = new Client(`127.0.0.1:${proxy.port}`, credentials.createInsecure());
  try {
    const socket = await openWebSocket(proxy);
    assert.equal((await curl(`${proxy.url}/before`)).status, 200);
    assert.equal((await sayOver(client, 'a')).reply, 'hello a');

    wire.turn(second.port);
    const cut = once(socket, 'close');
    assert.equal((await curl(`${proxy.url}/renewed`)).status, 200);
    assert.ok(second.asked.includes('/renewed') && !first.asked.includes('/renewed'));
    await proxy.said(
      /shows another key: nothing passes until it is proven\n.* is proven again: requests pass\n/,
    );
    await cut;
    assert.equal((await sayOver(client, 'b')).reply, 'hello b');

    // The same host, whose evidence is about another key than the one that it shows now.
    const later = await openWebSocket(proxy);
    const laterCut = once(later, 'close');
    const before = second.received();
    second.show(await world.ca.issue([HOST]));
    const { status, body } = await curl('-d', 'secret', `${proxy.url}/secret`);
    assert.equal(status, 502);
    const refusal = JSON.parse(body);
    assert.match(refusal.error, /is not proven, nothing was sent to it: bundle\.leaf/);
    assert.ok(
      refusal.checks.some(
        (check: { id: string; reason: string }) => check.id === 'bundle.leaf' && check.reason !== '',
      ),
    );
    await laterCut;
    await proxy.said(/is not proven, and nothing passes: bundle\.leaf/);
    await assert.rejects(sayOver(client, 'secret'), { code: 14, details: /is not proven/ });
    await assert.rejects(once(new WebSocket(`ws://127.0.0.1:${proxy.port}/`), 'open'), /502/);
    assert.equal(second.received(), before, 'not one byte came to it');
    assert.ok(!second.asked.includes('/secret'));
  } finally {
    client.close();
    proxy.child.kill('SIGKILL');
    wire.stop();
    await Promise.all([first.close(), second.close()]);
  }
});

test('a host that stops proving with the same key is cut off at the next verification, and let in again when it proves', {
  timeout: 120_000,
}, async () => {
  const honest = await startAppHost();
  // The same key, and no evidence: what is withheld fails nothing, and proves nothing.
  const silent = await startAppHost({ files: { 'quote.json': () => ({ status: 503 }) } });
  const wire = await startSwitch(honest.port);
  const proxy = await startProxy(wire.url, '--every', '0.02');
  try {
    const cut = once(await openWebSocket(proxy), 'close');
    wire.turn(silent.port);
    await proxy.said(/is not proven, and nothing passes: .*bundle\.fetch \(not run\)/);
    await cut;
    const before = [honest.received(), silent.received()];
    const { status, body } = await curl(`${proxy.url}/secret`);
    assert.equal(status, 502);
    assert.ok(JSON.parse(body).checks.some(({ id }: { id: string }) => id === 'bundle.fetch'));
    assert.deepEqual([honest.received(), silent.received()], before, 'not one byte came to it');
    wire.turn(honest.port);
    await proxy.said(/is proven again: requests pass/);
    assert.equal((await curl(`${proxy.url}/again`)).status, 200);
    assert.ok(honest.asked.includes('/again') && !silent.asked.includes('/secret'));
  } finally {
    proxy.child.kill('SIGKILL');
    wire.stop();
    await Promise.all([honest.close(), silent.close()]);
  }
});

test('what is not proven at the start is not served: the report, and 1 or 3', {
  timeout: 120_000,
}, async () => {
  const honest = await startAppHost();
  const silent = await startAppHost({ files: { 'quote.json': () => ({ status: 503 }) } });
  const liar = await startAppHost({ published: await world.ca.issue([HOST]) });
  const listen = ['--listen', '127.0.0.1:0', ...trust];
  try {
    for (const [args, code, said] of [
      [[liar.url], 1, /not proven, nothing is served: .*bundle\.leaf/],
      [[honest.url, '--app-id', 'b2'.repeat(20)], 1, /nothing is served: app\.id/],
      [[honest.url, '--strict'], 1, /nothing is served: /],
      [[silent.url], 3, /nothing is served: .*bundle\.fetch/],
    ] as const) {
      const result = await ended(start([...listen, ...args]));
      assert.equal(result.code, code, result.err);
      assert.match(result.err, said);
      assert.match(result.out, code === 3 ? /^UNKNOWN {2}https:/ : /^(FAIL|UNKNOWN) {2}https:/);
    }
  } finally {
    await Promise.all([honest.close(), silent.close(), liar.close()]);
  }
});

test('it listens on nothing but the loopback, and tells every mistake at once', async () => {
  for (const [args, said] of [
    [['--listen', '0.0.0.0:80', 'https://a.example'], /0\.0\.0\.0:80" is not on the loopback/],
    [['--listen', '[::]:80', 'https://a.example'], /is not on the loopback/],
    [['--listen', 'localhost:80', 'https://a.example'], /is not on the loopback/],
    [
      ['--listen', '127.0.0.1', 'https://a.example', '--every', 'x'],
      /is no address and port[\s\S]*--every "x"/,
    ],
    [['http://a.example'], /lacks where to listen[\s\S]*is not an https/],
    [['--listen', '127.0.0.1:0'], /lacks https:\/\/HOST/],
    [['--listen', '127.0.0.1:0', 'https://a.example', '--watch'], /unknown flag: --watch/],
  ] as const) {
    const { code, out, err } = await ended(start(args));
    assert.deepEqual([code, out], [2, ''], String(args));
    assert.match(err, said);
  }
});
