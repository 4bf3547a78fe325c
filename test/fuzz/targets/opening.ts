// What a client begins with that named no protocol (proxy/listener/opening.ts): one verdict however it is cut, and no request among raw bytes.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  createLineGuard,
  createOpeningReader,
  judgeGreeting,
  type Opening,
} from '../../../proxy/listener/opening.ts';
import { cuts, fuzzTarget, mutated, piecesOf } from '../target.ts';

const FIELDS = 'Host: app.example.com\r\nX-Forwarded-For: 192.0.2.66\r\n\r\n';
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const SETTINGS = Buffer.from([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100]);

/** First lines of HTTP and of what is not HTTP. */
export const openings = [
  Buffer.from(`GET / HTTP/1.1\r\n${FIELDS}`),
  Buffer.from(`GET /\r\n${FIELDS}`),
  Buffer.from(`POST http://app.example.com/ HTTP/1.0\r\n${FIELDS}`),
  Buffer.from(`OPTIONS * HTTP/1.1\r\n${FIELDS}`),
  Buffer.from(`CONNECT app.example.com:443 HTTP/1.1\r\n${FIELDS}`),
  Buffer.from(`DESCRIBE rtsp://app.example.com/ RTSP/1.0\r\n${FIELDS}`),
  Buffer.from(`{"id":1} / HTTP/1.1\r\n${FIELDS}`),
  Buffer.concat([PREFACE, SETTINGS]),
  Buffer.from('\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c', 'latin1'),
  Buffer.from('EHLO mail.example.com\r\n'),
  Buffer.from('CONNECT {"verbose":false}\r\nPING\r\n'),
  Buffer.from('SSH-2.0-OpenSSH_9.9\r\n'),
  Buffer.from('get key\r\n'),
  Buffer.from([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]),
];
/** What the rules look for. */
export const openingTokens = [
  ' ',
  '\t',
  '\r',
  '\n',
  '\r\n',
  '/',
  '*',
  '://',
  'GET',
  'HTTP/1.1',
  'HTTP/',
  '\xa0',
]
  .map((token) => Buffer.from(token, 'latin1'))
  .concat(PREFACE, SETTINGS, Buffer.from('HTTP/1.1 408 Request Timeout\r\n'));

interface Verdict {
  /** Undefined: too few bytes to say. */
  readonly opening: Opening | undefined;
  readonly atEnd: Opening | undefined;
}

function judge(pieces: readonly Buffer[]): Verdict {
  const reader = createOpeningReader();
  for (const piece of pieces) {
    const opening = reader.read(piece);
    if (opening !== undefined) return { opening, atEnd: undefined };
  }
  return { opening: undefined, atEnd: reader.end() };
}

function guarded(pieces: readonly Buffer[]): boolean {
  const guard = createLineGuard();
  return pieces.every((piece) => guard.passes(piece));
}

/** A line of at least two words that ends with a version, the first that is not blank: a request to the least strict server. */
export const REQUEST_LINE =
  /^[\t\n\v\f\r\x1c-\x20\x85\xa0]*[^\n]+[\t\v\f\r\x1c-\x20\x85\xa0]HTTP\/\d(?:\.\d)?\r?\n/;

function checkOpening(bytes: Buffer, pieces: readonly Buffer[]): void {
  const verdict = judge([bytes]);
  assert.deepEqual(judge(pieces), verdict);
  const text = bytes.toString('latin1');
  assert.equal(verdict.opening === 'http2', text.startsWith('PRI * HTTP/2.0\r\n'));
  const passes = guarded([bytes]);
  assert.equal(guarded(pieces), passes);
  if (REQUEST_LINE.test(text)) {
    assert.ok(verdict.opening !== undefined, 'a line that has ended is judged');
    assert.ok(verdict.opening !== 'other' || !passes, 'a request passes as raw bytes');
  }
}

/** Once there is an answer it stays, whatever follows. */
function checkGreeting(bytes: Buffer): void {
  const whole = judgeGreeting(bytes);
  for (let end = 0; end < Math.min(bytes.length, 16); end++) {
    const early = judgeGreeting(bytes.subarray(0, end));
    if (early !== undefined) assert.equal(early, whole);
  }
  if (bytes.toString('latin1').startsWith('HTTP/')) assert.equal(whole, 'http');
  if (bytes.length >= 9) assert.notEqual(whole, undefined);
}

interface Input {
  readonly bytes: Buffer;
  readonly positions: readonly number[];
}

const whole = (bytes: Buffer): Input => ({ bytes, positions: [] });

export const opening = fuzzTarget<Input>({
  name: 'first bytes of a client',
  input: fc.record({ bytes: mutated(openings, openingTokens), positions: cuts }),
  check({ bytes, positions }) {
    checkOpening(bytes, piecesOf(bytes, positions));
    checkGreeting(bytes);
  },
  growing: {
    'empty lines': (size) => whole(Buffer.alloc(size, '\r\n')),
    'a method without end': (size) => whole(Buffer.alloc(size, 'A')),
    'words in a line without end': (size) => whole(Buffer.alloc(size, 'EHLO a ')),
    'a target without end': (size) => whole(Buffer.concat([Buffer.from('EHLO '), Buffer.alloc(size, ':/')])),
    'byte by byte': (size) => ({
      bytes: Buffer.alloc(size >> 4, 'EHLO a '),
      positions: Array.from({ length: size >> 4 }, (_, at) => at),
    }),
  },
});
