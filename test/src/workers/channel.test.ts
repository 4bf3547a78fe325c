// Whatever a hostile worker sends, the supervisor lives, and ends and replaces that worker.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { serialize } from 'node:v8';
import fc from 'fast-check';
import { defaultLimits } from '../../../proxy/limits.ts';
import type { Log } from '../../../src/lib/log.ts';
import {
  LONGEST_FROM_WORKER,
  MOST_QUESTIONS,
  readMessages,
  readOrders,
  writeMessage,
  writeOrder,
} from '../../../src/workers/channel.ts';
import { layouts, type Range } from '../../../src/workers/counters.ts';
import { FromWorkerSchema, type ToWorker, type WorkerSettings } from '../../../src/workers/messages.ts';
import { nothingServed } from '../../../src/workers/serving.ts';
import { createWorkers } from '../../../src/workers/workers.ts';

const settings: WorkerSettings = {
  host: '127.0.0.1',
  port: 0,
  plainHttp: undefined,
  alpn: ['http/1.1'],
  proxyProtocol: false,
  trustedProxies: [],
  trustedForwarders: [],
  limits: defaultLimits,
  upstreamCa: undefined,
  evidence: false,
  sharedChallenges: true,
  accessLog: undefined,
  requestIds: false,
  logLevel: 'silent',
  readableLog: false,
};

function framed(body: Uint8Array | string, length = Buffer.byteLength(body)): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(length);
  return Buffer.concat([head, Buffer.from(body)]);
}

/** A process in the place of the first worker that runs this as soon as it is there, with `pipe` to write to. */
function impostor(program: string): ChildProcess {
  const prelude = `
    const { Socket } = require('node:net');
    const pipe = new Socket({ fd: 3, readable: true, writable: true });
    pipe.on('error', () => {});
    const framed = (body, length = Buffer.byteLength(body)) => {
      const head = Buffer.alloc(4);
      head.writeUInt32BE(length);
      return Buffer.concat([head, Buffer.from(body)]);
    };
    // It does not end by itself.
    setInterval(() => {}, 1000);`;
  return spawn(process.execPath, ['-e', `${prelude}\n${program}`], {
    stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
  });
}

interface Line {
  readonly level: string;
  readonly msg: string;
  readonly why?: string;
}

function listening(): { log: Log; lines: Line[] } {
  const lines: Line[] = [];
  const note = (level: string) => (fields: object, msg: string) => void lines.push({ level, msg, ...fields });
  const [error, warn, info, other] = ['error', 'warn', 'info', 'debug'].map(note);
  return { lines, log: { error, warn, info, debug: other, trace: other } as unknown as Log };
}

/** Starts with the impostor as the first worker; what became of it, and of the start. */
async function meets(program: string, findChallenge = async () => undefined) {
  const { log, lines } = listening();
  const child = impostor(program);
  const ended = once(child, 'exit').then(([, signal]) => signal as NodeJS.Signals | null);
  const workers = createWorkers({ count: 1, settings, log, forkedAhead: child, findChallenge });
  const start = workers.start().then(
    () => 'started',
    () => 'refused',
  );
  try {
    return { signal: await ended, start: await start, lines };
  } finally {
    child.kill('SIGKILL');
    await workers.drain(0);
  }
}

/** A program that sends this telemetry. */
function telemetry(parts: object): string {
  const message = JSON.stringify({ telemetry: { events: [], counters: [], lost: 0, ...parts } });
  return `pipe.write(framed('${message}'));`;
}

const own = layouts.find(({ id }) => id === 'connections')!;

function counters(block: string, version: number, ...ranges: Range[]): string {
  return telemetry({ counters: [{ block, version, ranges }] });
}

const hostile: readonly (readonly [what: string, program: string, says: RegExp])[] = [
  ['a string', `pipe.write(framed('"hello"'))`, /no message/],
  ['a number', `pipe.write(framed('7'))`, /no message/],
  ['null', `pipe.write(framed('null'))`, /no message/],
  ['a list', `pipe.write(framed('[{"id":1,"done":true}]'))`, /no message/],
  ['an empty object', `pipe.write(framed('{}'))`, /no message/],
  ['a message with more in it', `pipe.write(framed('{"id":1,"done":true,"x":1}'))`, /no message/],
  ['an id of text', `pipe.write(framed('{"id":"1","done":true}'))`, /no message/],
  ['a question that is no name', `pipe.write(framed('{"findChallenge":{"length":1}}'))`, /no message/],
  ['an answer to nothing', `pipe.write(framed('{"id":77,"done":true}'))`, /not asked/],
  ['bytes that are not JSON', `pipe.write(framed('{"id":'))`, /not JSON/],
  ['no bytes', `pipe.write(framed(''))`, /of 0 bytes/],
  ['a length of 4 GiB', `pipe.write(framed('', 0xffffffff))`, /4294967295 bytes/],
  ['noise', `pipe.write(require('node:crypto').randomBytes(65536).fill(0xee, 0, 4))`, /bytes/],
  [
    "a message of Node's own channel",
    `pipe.write(Buffer.from('{"cmd":"NODE_HANDLE","type":"net.Socket"}\\n'))`,
    /bytes/,
  ],
  [
    'questions without end',
    `for (let i = 0; i < 500; i++) pipe.write(framed('{"findChallenge":"a.example"}'))`,
    /asks/,
  ],
  [
    'passwords without end',
    `for (let i = 1; i < 500; i++) pipe.write(framed('{"comparePassword":{"question":' + i + ',"hash":"$2y$","password":""}}'))`,
    /passwords without end/,
  ],
  [
    'a password that is longer than any',
    `pipe.write(framed('{"comparePassword":{"question":1,"hash":"x","password":"' + 'x'.repeat(513) + '"}}'))`,
    /no message/,
  ],
  [
    'telemetry without end',
    `for (let i = 0; i < 500; i++) pipe.write(framed('{"telemetry":{"events":[],"counters":[],"lost":0}}'))`,
    /telemetry without end/,
  ],
  [
    'questions for fresh quotes without end',
    `for (let i = 1; i < 9; i++) pipe.write(framed('{"attest":{"question":' + i + ',"hash":"' + 'ab'.repeat(32) + '"}}'))`,
    /quotes without end/,
  ],
  [
    'a question for a quote over what is no hash',
    `pipe.write(framed('{"attest":{"question":1,"hash":"' + 'ab'.repeat(33) + '"}}'))`,
    /no message/,
  ],
  ['an event of no known kind', telemetry({ events: [{ kind: 'rumour' }] }), /no message/],
  ['numbers below zero', counters('connections', own.version, [0, [-1]]), /no message/],
  ['numbers of a block that there is not', counters('secrets', 1, [0, [1]]), /a block that there is not/],
  ['numbers under another version', counters('connections', 9, [0, [1]]), /a version that there is not/],
  [
    'numbers beyond their block',
    counters('connections', own.version, [own.names.length - 1, [1, 2]]),
    /beyond the end/,
  ],
  [
    'a count that falls',
    counters('connections', own.version, [0, [7]]) + counters('connections', own.version, [0, [6]]),
    /fell: accepted/,
  ],
  ['nothing, and a closed channel', `pipe.end(); pipe.resume()`, /closed its channel/],
];

for (const [what, program, says] of hostile) {
  test(`a worker that sends ${what} is killed, and the log says why`, async () => {
    const never = () => new Promise<undefined>(() => {});
    const { signal, start, lines } = await meets(program, never);
    assert.equal(signal, 'SIGKILL');
    assert.equal(start, 'refused');
    const said = lines.filter(({ msg }) => msg === 'worker killed');
    assert.equal(said.length, 1, JSON.stringify(lines));
    assert.match(said[0]!.why ?? '', says);
    assert.equal(said[0]!.level, 'error');
  });
}

test('a worker that sends gigabytes does not fill the supervisor', async () => {
  const before = process.memoryUsage().rss;
  let most = 0;
  const watch = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss);
  }, 5);
  // The head of one message, and then bytes without end.
  const { signal } = await meets(`
    pipe.write(framed('', 0x7fffffff));
    const block = Buffer.alloc(1 << 20);
    (function more() { while (pipe.write(block)); pipe.once('drain', more); })();`);
  clearInterval(watch);
  assert.equal(signal, 'SIGKILL');
  assert.ok(most - before < 64 * 1024 * 1024, `${most - before} bytes more`);
});

test('a worker that turns hostile while it serves is replaced by one that serves', async () => {
  const { log, lines } = listening();
  // It answers every order, and then says what is no message.
  const child = impostor(`
    let seen = 0;
    pipe.on('data', () => {
      if (++seen > 1) return;
      pipe.write(framed('{"id":1,"done":true,"address":{"address":"127.0.0.1","port":1}}'));
      setTimeout(() => pipe.write(framed('"taken over"')), 100);
    });`);
  const pid = child.pid!;
  const workers = createWorkers({ count: 1, settings, log, forkedAhead: child });
  try {
    await workers.start();
    for (let tries = 0; tries < 600; tries++) {
      const [now] = workers.pids();
      if (now !== undefined && now !== pid) break;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    // The successor takes orders.
    await workers.setRoutes([]);
    assert.ok(!workers.pids().includes(pid));
    assert.equal(lines.filter(({ why }) => /no message/.test(why ?? '')).length, 1);
    assert.equal(lines.filter(({ msg }) => msg === 'worker died, replacing it').length, 1);
  } finally {
    await workers.drain(0);
  }
});

test('a worker that acknowledges a generation that it was not given is replaced by one that serves', async () => {
  const { log, lines } = listening();
  const child = impostor(`
    let seen = 0;
    pipe.on('data', () => {
      seen++;
      if (seen === 1) pipe.write(framed('{"id":1,"done":true,"address":{"address":"127.0.0.1","port":1}}'));
      if (seen === 2) pipe.write(framed('{"id":2,"done":true,"generation":99}'));
    });`);
  const workers = createWorkers({ count: 1, settings, log, forkedAhead: child });
  try {
    await workers.start();
    await workers.setRoutes([]);
    await workers.setRoutes([]);
    assert.match(lines.find(({ msg }) => msg === 'worker killed')?.why ?? '', /generation 99 of routes/);
    assert.ok(!workers.pids().includes(child.pid!));
  } finally {
    await workers.drain(0);
  }
});

test('whatever bytes come, in whatever pieces, the reader neither throws nor takes more than a message', async () => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.json().map((text) => framed(text)),
    fc.anything().map((value) => framed(serialize(cloneable(value)))),
    fc.nat(0xffffffff).map((length) => framed('', length)),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(piece, { maxLength: 12 }),
      fc.integer({ min: 1, max: 97 }),
      async (pieces, step) => {
        const channel = new PassThrough();
        const violations: string[] = [];
        readMessages(
          channel,
          (json) => {
            assert.notEqual(json, undefined);
            // Whatever it is, judging it does not throw.
            FromWorkerSchema.safeParse(json);
            assert.equal(violations.length, 0, 'nothing is read after a violation');
          },
          (why) => violations.push(why),
        );
        const bytes = Buffer.concat(pieces);
        for (let at = 0; at < bytes.length && !channel.destroyed; at += step)
          channel.write(bytes.subarray(at, at + step));
        await new Promise((resolve) => setImmediate(resolve));
        assert.ok(violations.length <= 1);
      },
    ),
    { numRuns: 400 },
  );
});

test('only what the schema describes is a message', () => {
  fc.assert(
    fc.property(fc.anything(), (value) => {
      const { success, data } = FromWorkerSchema.safeParse(value);
      if (!success) return;
      assert.ok(
        'findChallenge' in data ||
          'comparePassword' in data ||
          'telemetry' in data ||
          'recorded' in data ||
          'limits' in data ||
          'attest' in data ||
          data.id > 0,
      );
    }),
    { numRuns: 1_000 },
  );
});

test('messages of honest workers and supervisors arrive whole, in whatever pieces they come', async () => {
  const order: ToWorker = {
    id: 3,
    type: 'start',
    settings,
    serving: {
      certificates: [{ names: ['app.example.com'], chain: 'C', key: 'K' }],
      routes: { list: [] },
      challenges: new Map([['app.example.com', { cert: 'c', key: 'k' }]]),
      httpChallenges: new Map([['token', 'text']]),
      evidence: { current: undefined },
      ticketKeys: new Uint8Array([1, 2, 3]),
    },
    generations: { ...nothingServed, routes: 3 },
  };
  const down = new PassThrough();
  const orders: ToWorker[] = [];
  const pieces = new PassThrough({ readableHighWaterMark: 1 });
  readOrders(pieces, (each) => orders.push(each));
  writeOrder(down, order, () => {});
  writeOrder(down, order, () => {});
  for (let bytes = down.read() as Buffer | null; bytes !== null; bytes = down.read() as Buffer | null)
    for (const byte of bytes) pieces.write(Buffer.of(byte));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(orders.length, 2);
  assert.deepEqual({ ...orders[0], serving: undefined }, { ...order, serving: undefined });
  const [first] = orders;
  assert.ok(first?.type === 'start');
  assert.deepEqual([...first.serving.ticketKeys], [1, 2, 3]);
  assert.deepEqual(first.serving.challenges, order.serving.challenges);

  const up = new PassThrough();
  const heard: unknown[] = [];
  readMessages(up, (json) => heard.push(json), assert.fail);
  const refusal = { id: 4, done: false as const, message: 'x'.repeat(2_000), code: 'EADDRINUSE' };
  writeMessage(up, refusal);
  writeMessage(up, { findChallenge: 'app.example.com' });
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(heard, [refusal, { findChallenge: 'app.example.com' }]);
  for (const each of heard) assert.ok(FromWorkerSchema.safeParse(each).success);
});

test('the longest message that an honest worker sends fits', () => {
  const longest = {
    id: Number.MAX_SAFE_INTEGER,
    done: false,
    message: '\u0000'.repeat(2_000),
    code: 'x'.repeat(100),
  };
  assert.ok(FromWorkerSchema.safeParse(longest).success);
  assert.ok(Buffer.byteLength(JSON.stringify(longest)) <= LONGEST_FROM_WORKER);
  assert.ok(MOST_QUESTIONS > 0);
});

/** What V8 can serialize of a value: functions and symbols it cannot. */
function cloneable(value: unknown): unknown {
  try {
    return structuredClone(value);
  } catch {
    return String(typeof value);
  }
}

test('rules of a thousand sites come whole and in order, and a worker does other things between their parts', async () => {
  const site = (index: number) => ({
    label: `site-${index}`,
    names: [{ kind: 'exact' as const, name: `site-${index}.example.com` }],
    locations: Array.from({ length: 11 }, (_, location) => ({
      match: { kind: 'prefix' as const, path: `/${'x'.repeat(100)}/${location}` },
      content: { kind: 'files' as const },
    })),
  });
  const orderOf = (id: number, sites: number): ToWorker => ({
    id,
    type: 'serve',
    snapshot: {
      kind: 'routes',
      generation: id,
      value: { list: [], rules: { sites: Array.from({ length: sites }, (_, index) => site(index)) } },
    },
  });
  const sent = [
    orderOf(1, 1_000),
    orderOf(2, 0),
    orderOf(3, 26),
    { id: 4, type: 'drain', timeoutMs: 1 } as const,
  ];
  const channel = new PassThrough();
  const read: ToWorker[] = [];
  let turns = 0;
  const all = new Promise<void>((resolve) => {
    readOrders(channel, (order) => {
      if (order.id === 1) assert.ok(turns >= 30, `${turns} turns for the first`);
      read.push(order);
      if (read.length === sent.length) resolve();
    });
  });
  const turn = () => {
    turns++;
    if (read.length < sent.length) setImmediate(turn);
  };
  setImmediate(turn);
  for (const order of sent) writeOrder(channel, order, () => {});
  await all;
  assert.deepEqual(read, sent);
});
