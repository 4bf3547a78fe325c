// Heads of HTTP/1.1 requests and replies (proxy/http1/request-head.ts, reply-head.ts): the same verdict however they are cut, and no byte too many.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parseHost } from '../../../proxy/http1/authority.ts';
import {
  createMessageHead,
  INCOMPLETE,
  type MessageHead,
  nameAt,
  REFUSED,
  valueAt,
} from '../../../proxy/http1/message.ts';
import { parseReplyHead } from '../../../proxy/http1/reply-head.ts';
import { parseRequestHead } from '../../../proxy/http1/request-head.ts';
import { cuts, fuzzTarget, mutated, piecesOf } from '../target.ts';

const limits = { maxHeaderBytes: 16_384, maxHeaderCount: 100 };
const text = (value: string) => Buffer.from(value, 'latin1');
const tokens = [
  '\r\n',
  '\n',
  '\r',
  '\0',
  ' ',
  '\t',
  ':',
  ',',
  ';',
  '\r\n\r\n',
  'Host: b\r\n',
  'chunked',
  'close',
].map(text);

const requests = [
  'GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n',
  'POST /a?b=c HTTP/1.1\r\nHost: a:443\r\nContent-Length: 5\r\nConnection: x-a, close\r\nX-A: 1\r\n\r\nhello',
  'PUT http://app.example.com/x HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\nTrailer: t\r\n\r\n0\r\n\r\n',
  'OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\nHost: [::1]:8443\r\n\r\n',
  'GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n\r\n',
].map(text);

const replies = [
  'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello',
  'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n',
  'HTTP/1.0 404 Not Found\r\nConnection: close\r\n\r\n',
  'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
  'HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5\r\n\r\n',
].map(text);

type Parse = typeof parseRequestHead;

interface Outcome {
  readonly taken: number;
  readonly refusal: string;
  readonly said: unknown;
}

function outcomeOf(parse: Parse, bytes: Buffer): Outcome {
  const head = createMessageHead();
  const taken = parse(head, bytes, 0, bytes.length, limits);
  assert.ok(taken >= REFUSED && taken <= bytes.length, `took ${taken} of ${bytes.length}`);
  if (taken <= 0) return { taken, refusal: taken === REFUSED ? head.refusal.code : '', said: undefined };
  return { taken, refusal: '', said: saidBy(head, bytes) };
}

function saidBy(head: MessageHead, bytes: Buffer) {
  const fields = Array.from({ length: head.count }, (_, line) => {
    const [name, value] = [nameAt(head, line), valueAt(head, line)];
    assert.match(name, /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/);
    assert.doesNotMatch(value, /[\0\r\n]/);
    return [name, value];
  });
  assert.ok(fields.length <= limits.maxHeaderCount);
  assert.ok(head.contentLength >= -1 && Number.isSafeInteger(head.contentLength));
  assert.ok(!(head.chunked && head.contentLength >= 0), 'two lengths');
  assert.ok(bytes.toString('latin1').includes(head.text.slice(head.fieldsStart)), 'a text that was not sent');
  if (head.host !== '') parseHost(head.host);
  const { method, target, status, minor, contentLength, chunked, close, keepAlive, upgradeTo, nominated } =
    head;
  return {
    fields,
    method,
    target,
    status,
    minor,
    contentLength,
    chunked,
    close,
    keepAlive,
    upgradeTo,
    nominated,
  };
}

/** Read again with each piece, as a connection does: what was said of the whole must be said at the end. */
function checkHead(parse: Parse, bytes: Buffer, positions: readonly number[]): void {
  const whole = outcomeOf(parse, bytes);
  let seen: Buffer = Buffer.alloc(0);
  for (const piece of piecesOf(bytes, positions)) {
    seen = Buffer.concat([seen, piece]);
    const outcome = outcomeOf(parse, seen);
    if (outcome.taken === INCOMPLETE) continue;
    // A refusal may come before the end of what is refused, and for what was wrong first.
    if (outcome.taken === REFUSED) assert.equal(whole.taken, REFUSED);
    else assert.deepEqual(outcome, whole);
    return;
  }
  assert.ok(whole.taken === INCOMPLETE);
}

const growing = (start: string) => ({
  'one long field': (size: number) => ({ bytes: text(`${start}X: ${'a'.repeat(size)}`), positions: [] }),
  'many fields': (size: number) => ({ bytes: text(start + 'a: b\r\n'.repeat(size / 6)), positions: [] }),
  'blanks in a value': (size: number) => ({
    bytes: text(`${start}X: ${' \t'.repeat(size / 2)}`),
    positions: [],
  }),
  'a list that nominates': (size: number) => ({
    bytes: text(`${start}Connection: ${'a,'.repeat(size / 2)}\r\n\r\n`),
    positions: [],
  }),
});

export const http1Request = fuzzTarget({
  name: 'head of an HTTP/1.1 request',
  input: fc.record({ bytes: mutated(requests, tokens), positions: cuts }),
  check: ({ bytes, positions }) => checkHead(parseRequestHead, bytes, positions),
  growing: growing('GET / HTTP/1.1\r\nHost: a\r\n'),
});

export const http1Reply = fuzzTarget({
  name: 'head of an HTTP/1.1 reply',
  input: fc.record({ bytes: mutated(replies, tokens), positions: cuts }),
  check: ({ bytes, positions }) => checkHead(parseReplyHead, bytes, positions),
  growing: growing('HTTP/1.1 200 OK\r\n'),
});
