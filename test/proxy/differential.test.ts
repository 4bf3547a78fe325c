// What our parser accepts, Node's accepts with the same framing: no message has two readings between the two.

import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, METHODS, request as requestOf } from 'node:http';
import { Duplex } from 'node:stream';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { replyHeadText } from '../../proxy/exchange/headers.ts';
import { readBody } from '../../proxy/http1/body.ts';
import {
  beginBody,
  beginReplyBody,
  beginRequestBody,
  createBodyReader,
} from '../../proxy/http1/body-reader.ts';
import { createMessageHead, type MessageHead, nameAt, REFUSED, valueAt } from '../../proxy/http1/message.ts';
import { parseReplyHead } from '../../proxy/http1/reply-head.ts';
import { parseRequestHead } from '../../proxy/http1/request-head.ts';

/** `DIFFERENTIAL_RUNS=100000 node --test test/proxy/differential.test.ts` for the long run. */
const RUNS = Number(process.env.DIFFERENTIAL_RUNS ?? 3_000);
const limits = { maxHeaderBytes: 16_384, maxHeaderCount: 100 };
const SENTINEL = Buffer.from('GET /sentinel HTTP/1.1\r\nHost: s\r\n\r\n');

interface Reading {
  readonly start: string;
  readonly fields: readonly string[];
  readonly body: string;
  readonly trailers: number;
}

/**
 * The messages that ours reads from a connection, up to the first that it refuses or that ends the connection, and how
 * many bytes they took.
 */
function readOurs(bytes: Buffer) {
  const readings: Reading[] = [];
  const head = createMessageHead();
  let pos = 0;
  let goesOn = true;
  while (goesOn && pos < bytes.length) {
    const taken = parseRequestHead(head, bytes, pos, bytes.length, limits);
    // Node knows a fixed list of methods, and CONNECT is refused later.
    if (taken <= 0 || head.method === 'CONNECT' || !METHODS.includes(head.method)) break;
    const body = createBodyReader();
    beginRequestBody(body, head);
    const { text, next } = drain(body, bytes, pos + taken);
    if (next === REFUSED || !body.done) break;
    readings.push({
      start: `${head.method} ${head.target}`,
      fields: fieldsOf(head),
      body: text,
      trailers: body.trailers?.count ?? 0,
    });
    pos = next;
    // What follows a wish to upgrade waits for the reply, with Node as with ours.
    goesOn = !head.close && (head.minor === 1 || head.keepAlive) && !(head.upgrade && head.upgradeTo !== '');
  }
  return { readings, size: pos, goesOn };
}

function drain(body: ReturnType<typeof createBodyReader>, bytes: Buffer, start: number) {
  let text = '';
  let pos = start;
  while (pos < bytes.length && !body.done) {
    const next = readBody(body, bytes, pos, bytes.length, limits);
    if (next === REFUSED) return { text, next };
    text += bytes.toString('latin1', body.dataStart, body.dataEnd);
    pos = next;
  }
  return { text, next: pos };
}

function fieldsOf(head: MessageHead): string[] {
  return Array.from({ length: head.count }, (_, line) => [nameAt(head, line), valueAt(head, line)]).flat();
}

const sentinel: Reading = { start: 'GET /sentinel', fields: ['Host', 's'], body: '', trailers: 0 };

/** A connection's worth of bytes for Node's own code; what it writes is thrown away. */
function wire(bytes: Buffer): Duplex {
  const duplex = new Duplex({
    read() {},
    write(_chunk, _encoding, done) {
      done();
    },
  });
  duplex.push(bytes);
  return duplex;
}

const node = createServer({ keepAliveTimeout: 0 });
type Log = { readings: Reading[]; begun: number; whole: number; error: string | undefined };
const logs = new WeakMap<object, Log>();

node.on('request', async (message: IncomingMessage, response) => {
  const log = logs.get(message.socket);
  const place = log === undefined ? 0 : log.begun++;
  let body = '';
  try {
    message.setEncoding('latin1');
    for await (const chunk of message) body += chunk;
  } catch {
    // Aborted: not a whole message.
    return;
  }
  if (log === undefined) return;
  log.readings[place] = {
    start: `${message.method} ${message.url}`,
    fields: message.rawHeaders,
    body,
    trailers: message.rawTrailers.length / 2,
  };
  log.whole++;
  response.end();
});
node.on('clientError', (error: NodeJS.ErrnoException, socket) => {
  const log = logs.get(socket);
  if (log !== undefined) log.error = error.code;
  socket.destroy();
});

/** What Node's server reads, waiting for as many messages as ours has read. */
async function readNodes(bytes: Buffer, count: number): Promise<Log> {
  const duplex = wire(bytes);
  const log: Log = { readings: [], begun: 0, whole: 0, error: undefined };
  logs.set(duplex, log);
  node.emit('connection', duplex);
  for (let turn = 0; turn < 200 && log.whole < count && log.error === undefined; turn++) {
    await new Promise(setImmediate);
  }
  duplex.destroy();
  return log;
}

const crlf = fc.constantFrom(
  '\r\n',
  '\r\n',
  '\r\n',
  '\r\n',
  '\r\n',
  '\r\n',
  '\r\n',
  '\n',
  '\r',
  '\r\n ',
  '\r\r\n',
  '\n\r\n',
);
const method = fc.constantFrom('GET', 'POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS');
const target = fc.constantFrom('/', '/a?b=c', '*', 'http://h/', '//x', '/%00', '/a b', '/\x7f', '/#f', '/|');
const version = fc.constantFrom(
  'HTTP/1.1',
  'HTTP/1.1',
  'HTTP/1.1',
  'HTTP/1.1',
  'HTTP/1.0',
  'HTTP/2.0',
  'http/1.1',
  'HTTP/1.10',
);
const plainField = fc.constantFrom(
  'A: b',
  'X-Y:z',
  'Empty:',
  'Q: "a, b"',
  'O: \xe9\xff',
  'Tab:\tx\t',
  'Sp:  x  ',
  'under_score: 1',
);
const framingField = fc.constantFrom(
  'Content-Length: 5',
  'content-length:5',
  'Content-Length: 0',
  'Content-Length: 05',
  'Content-Length: +5',
  'Content-Length: 5, 5',
  'Content-Length: 5 ',
  'Content-Length : 5',
  'Content-Length: 0x5',
  'Content-Length: 5_0',
  'Content_Length: 5',
  'Transfer-Encoding: chunked',
  'transfer-encoding:CHUNKED',
  'Transfer-Encoding: chunked ',
  'Transfer-Encoding: chunked\t',
  'Transfer-Encoding: chunked \t',
  'Transfer-Encoding:\tchunked',
  'Transfer-Encoding: \x0bchunked',
  'Transfer-Encoding: chunked, chunked',
  'Transfer-Encoding: gzip, chunked',
  'Transfer-Encoding: identity',
  'Transfer-Encoding: chunked;q=1',
  'Transfer-Encoding : chunked',
  'Transfer_Encoding: chunked',
  'Connection: close',
  'Connection: keep-alive',
  'Connection: upgrade',
  'Upgrade: websocket',
  'Expect: 100-continue',
  'TE: trailers',
  'Trailer: T',
);
const chunk = fc.constantFrom(
  '5\r\nhello\r\n',
  'A\r\n0123456789\r\n',
  '1;a=b\r\nx\r\n',
  '1;a="q;\\"\r\n"\r\nx\r\n',
  '1;a="q"\r\nx\r\n',
  '1 ;a\r\nx\r\n',
  '1 \r\nx\r\n',
  '01\r\nx\r\n',
  '+1\r\nx\r\n',
  '0x1\r\nx\r\n',
  '1\nx\r\n',
  '1\r\nx\n',
  '1\r\nxx\r\n',
  '1;\r\nx\r\n',
  '1;;a\r\nx\r\n',
  '1;a=\r\nx\r\n',
  '10000000000000001\r\nx\r\n',
);
const lastChunk = fc.constantFrom(
  '0\r\n\r\n',
  '0\r\n\r\n',
  '0\r\n\r\n',
  '00\r\n\r\n',
  '0;a\r\n\r\n',
  '0\r\nT: 1\r\n\r\n',
  '0\r\nT: 1\r\nU: 2\r\n\r\n',
  '0\r\n\n',
  '0\n\r\n',
  '0\r\nT\r\n\r\n',
  '0\r\nContent-Length: 5\r\n\r\n',
  '',
);
const body = fc.oneof(
  fc.constantFrom('', '', 'hello', 'hello', 'hell', 'hello world'),
  fc.tuple(fc.array(chunk, { maxLength: 3 }), lastChunk).map(([chunks, last]) => chunks.join('') + last),
);
const fields = fc
  .tuple(fc.array(plainField, { maxLength: 3 }), fc.array(framingField, { maxLength: 2 }), fc.boolean())
  .map(([plain, framing, host]) => [
    ...(host ? ['Host: h'] : []),
    ...plain,
    ...framing,
    ...(host ? [] : ['Host: h']),
  ]);

/** Lines with mostly sound ends. */
const lines = (start: fc.Arbitrary<string>) =>
  fc
    .tuple(start, fields, fc.array(fc.tuple(fc.nat(8), crlf), { maxLength: 1 }), body)
    .map(([first, rest, ends, content]) => {
      const all = [first, ...rest, ''];
      return all.map((line, i) => line + (ends.find(([at]) => at === i)?.[1] ?? '\r\n')).join('') + content;
    });

/** One byte put in, taken out or changed, now and then. */
const mutated = (text: fc.Arbitrary<string>) =>
  fc
    .tuple(
      text,
      fc.option(
        fc.tuple(
          fc.nat(400),
          fc.constantFrom('insert', 'remove', 'replace'),
          fc.constantFrom(
            '\0',
            '\t',
            '\n',
            '\r',
            ' ',
            ',',
            ':',
            ';',
            '0',
            '1',
            'a',
            '\x0b',
            '\x7f',
            '\x80',
            '"',
            '\r\n',
          ),
        ),
        { freq: 3 },
      ),
    )
    .map(([whole, change]) => {
      if (change === null) return whole;
      const [where, how, what] = change;
      const at = where % (whole.length + 1);
      const end = how === 'insert' ? at : at + 1;
      return whole.slice(0, at) + (how === 'remove' ? '' : what) + whole.slice(end);
    });

const requestLine = fc.tuple(method, target, version).map((parts) => parts.join(' '));
const statusLine = fc.constantFrom(
  'HTTP/1.1 200 OK',
  'HTTP/1.1 200 OK',
  'HTTP/1.1 200',
  'HTTP/1.0 200 OK',
  'HTTP/1.1 204 No',
  'HTTP/1.1 304 Not',
  'HTTP/1.1 404 \xe9',
  'HTTP/1.1 2000 OK',
  'HTTP/1.1  200 OK',
  'HTTP/2 200',
);

describe('no message has two readings', () => {
  it(`requests: what ours accepts, Node reads the same way (${RUNS} messages)`, async () => {
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(mutated(lines(requestLine)), async (text) => {
        const bytes = Buffer.from(text, 'latin1');
        const { readings, size, goesOn } = readOurs(bytes);
        if (readings.length === 0) return;
        accepted++;
        // With the sentinel behind them it shows as well if Node took more bytes, or fewer.
        const expected = goesOn ? [...readings, sentinel] : readings;
        const sent = Buffer.concat([bytes.subarray(0, size), goesOn ? SENTINEL : Buffer.alloc(0)]);
        const nodes = await readNodes(sent, expected.length);
        assert.deepEqual([nodes.readings, nodes.error], [expected, undefined]);
      }),
      { numRuns: RUNS },
    );
    assert.ok(accepted > RUNS / 20, `only ${accepted} of ${RUNS} messages were worth comparing`);
  });

  it(`replies: what ours accepts, Node reads the same way (${RUNS} messages)`, async () => {
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(mutated(lines(statusLine)), fc.constantFrom('GET', 'HEAD'), async (text, asked) => {
        const bytes = Buffer.from(text, 'latin1');
        const head = createMessageHead();
        const taken = parseReplyHead(head, bytes, 0, bytes.length, limits);
        if (taken <= 0 || head.status < 200) return;
        const reader = createBodyReader();
        beginReplyBody(reader, head, asked);
        const { text: content, next } = drain(reader, bytes, taken);
        if (next === REFUSED || (!reader.done && reader.kind !== 'until-close')) return;
        accepted++;
        const { status } = head;
        if (!isPutRight(head, bytes, taken, next)) {
          const nodes = await readReplyWithNode(bytes.subarray(0, next), asked);
          assert.deepEqual(nodes, { status, fields: fieldsOf(head), body: content });
        }
        // Whatever was put right: what leaves has no second reading.
        const written = writtenOf(head, bytes, taken, next, asked);
        const nodes = await readReplyWithNode(written, asked);
        assert.deepEqual(nodes, { status, fields: fieldsOf(reread(written)), body: content });
      }),
      { numRuns: RUNS },
    );
    assert.ok(accepted > RUNS / 20, `only ${accepted} of ${RUNS} messages were worth comparing`);
  });
});

/** Whether it is one of the replies that are accepted only to be written in another form. */
function isPutRight(head: MessageHead, bytes: Buffer, start: number, end: number): boolean {
  if (head.lengthRewritten) return true;
  if (!head.chunked) return false;
  const strict = createBodyReader();
  beginBody(strict, 'chunked');
  return drain(strict, bytes.subarray(0, end), start).next === REFUSED;
}

/** As a relay writes it: the head, and of the body what is not cut out; trailers are left out. */
function writtenOf(head: MessageHead, bytes: Buffer, start: number, end: number, asked: string): Buffer {
  const pieces: Buffer[] = [Buffer.from(replyHeadText(head, 'as-it-came', ''), 'latin1')];
  const reader = createBodyReader();
  beginReplyBody(reader, head, asked);
  for (let pos = start; pos < end && !reader.done; ) {
    const next = readBody(reader, bytes, pos, end, limits);
    pieces.push(bytes.subarray(pos, Math.max(pos, reader.cutStart)));
    pieces.push(bytes.subarray(Math.max(pos, reader.cutEnd), next));
    if (reader.done && reader.trailers !== undefined) pieces.push(Buffer.from('\r\n'));
    pos = next;
  }
  return Buffer.concat(pieces);
}

function reread(written: Buffer): MessageHead {
  const head = createMessageHead();
  assert.ok(parseReplyHead(head, written, 0, written.length, limits) > 0);
  assert.equal(head.lengthRewritten, false);
  return head;
}

function readReplyWithNode(bytes: Buffer, asked: string): Promise<unknown> {
  return new Promise((resolve) => {
    const duplex = wire(bytes);
    duplex.push(null);
    const message = requestOf(
      { method: asked, createConnection: (() => duplex) as never },
      (reply: IncomingMessage) => {
        let text = '';
        reply.setEncoding('latin1');
        reply.on('data', (piece) => {
          text += piece;
        });
        reply.on('end', () =>
          resolve({ status: reply.statusCode ?? 0, fields: reply.rawHeaders, body: text }),
        );
        reply.on('error', (error) => resolve(error));
      },
    );
    message.on('error', (error) => resolve(error));
    message.end();
  });
}
