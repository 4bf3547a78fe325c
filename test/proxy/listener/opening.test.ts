// First bytes: what waits, what is HTTP, what may be spliced, whatever pieces they come in.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createLineGuard, createOpeningReader, judgeGreeting } from '../../../proxy/listener/opening.ts';

const bytesOf = (text: string) => Buffer.from(text, 'latin1');

function openingOf(text: string) {
  return createOpeningReader().read(bytesOf(text));
}

/** All ways to cut it once, and byte by byte. */
function* cuttings(text: string): Generator<string[]> {
  for (let at = 1; at < text.length; at++) yield [text.slice(0, at), text.slice(at)];
  yield [...text];
}

const HTTP = [
  'GET / HTTP/1.1\r\n',
  'get / HTTP/1.1\r\n',
  `${'M'.repeat(25)} / HTTP/1.1\r\n`,
  `${'m'.repeat(5_000)} / HTTP/1.1\r\n`,
  "!#$%&'*+-.^_`|~09aZ / HTTP/1.1\r\n",
  '\r\nGET / HTTP/1.1\r\n',
  '\nGET / HTTP/1.1\r\n',
  '\n\r\n\nGET / HTTP/1.1\r\n',
  ' \t\v\f\rGET / HTTP/1.1\r\n',
  'GET\t/\tHTTP/1.1\r\n',
  'FOO\v/\fHTTP/1.1\n',
  'FOO\r/ HTTP/1.1\n',
  'FOO\x1c/\xa0HTTP/1.1\n',
  'GET /\r\n',
  'GET key\r\n',
  'GET \0\r\n',
  'POST key\r\n',
  'OPTIONS * HTTP/1.1\r\n',
  'CONNECT host:443 HTTP/1.1\r\n',
  'CONNECT host:443\r\n',
  'FOO http://host/ HTTP/1.1\r\n',
  'FOO host HTTP/1.1\r\n',
  'FOO host http/1.1\r\n',
  'FOO host HTTP/1.1 \r\n',
  'GET / RTSP/1.0\r\n',
  'FOO bar RTSP/1.0\r\n',
  'SOURCE mount ICE/1.0\r\n',
  'PROXY TCP4 192.0.2.6 192.0.2.7 1 2\r\n',
  '\r\n\r\n\0\r\nQUIT\n',
  'PRI * HTTP/2.0\n',
  'PRI * HTTP/1.1\r\n',
  'PRI  * HTTP/2.0\r\n',
  'PRI /\r\n',
];

const OTHER = [
  '\0',
  '\x16\x03\x01',
  '\x80',
  '{"id":1}\n',
  '<stream',
  '"x" / HTTP/1.1\r\n',
  'GE\0T / HTTP/1.1\r\n',
  'GET:/ HTTP/1.1\r\n',
  'AMQP\0\0\x09\x01',
  '0\x0c\x02\x01\x01',
  '0\x1e\x02\x01\x01',
  'CONNECT {"verbose":false}\r\n',
  '86 <13>1 2024-01-01 host app - - - text',
  'metric.path:1|c\n',
  'PING\r\n',
  'GET\r\n',
  'GET \r\n',
  '*1\r\n$4\r\nPING\r\n',
  'CONNECT\naccept-version:1.2\n\n\0',
  'EHLO host\r\n',
  'get key\r\n',
  'set key 0 0 5\r\n',
  'NICK name\r\n',
  'a1 LOGIN user secret\r\n',
  'SSH-2.0-OpenSSH_9.6p1 Ubuntu-3ubuntu13\r\n',
  'REGISTER sip:host SIP/2.0\r\n',
  'metric.path 42 1700000000\n',
  '\n\x08\x96\x01',
  'FOO bar\0',
];

const WAITING = [
  '',
  'G',
  'GET',
  'GET ',
  '\r',
  '\r\n',
  '\r\n\r\n',
  ' ',
  'HELO',
  'EHLO host',
  'FOO http:/',
  'PRI * HTTP/2.',
  '*1\r',
  'A'.repeat(100),
];

describe('first bytes', () => {
  for (const [verdict, texts] of [
    ['http1', HTTP],
    ['other', OTHER],
    ['http2', ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n']],
    [undefined, WAITING],
  ] as const) {
    for (const text of texts) {
      it(`${JSON.stringify(text.slice(0, 40))} ${verdict === undefined ? 'waits' : `is ${verdict}`}, in any pieces`, () => {
        assert.equal(openingOf(text), verdict);
        for (const pieces of cuttings(text.slice(0, 200))) {
          if (text.length > 200) break;
          const reader = createOpeningReader();
          let answer: string | undefined;
          for (const piece of pieces) answer ??= reader.read(bytesOf(piece));
          assert.equal(answer, verdict, JSON.stringify(pieces));
        }
      });
    }
  }

  it('that stop unfinished are what their line is as it stands', () => {
    for (const [text, verdict] of [
      ['', 'other'],
      ['ruok', 'other'],
      ['GET', 'other'],
      ['EHLO host', 'other'],
      ['PRI * HTTP/2', 'http1'],
    ] as const) {
      const reader = createOpeningReader();
      assert.equal(reader.read(bytesOf(text)), undefined);
      assert.equal(reader.end(), verdict, text);
    }
  });

  it('however made up, are HTTP wherever a token, blanks, a target and a version stand in one line', () => {
    const blanks = ['\r\n', '\n', ' ', '\t', '\v', '\f', '\r'];
    const tokens = ['GET', 'g', 'PRI', 'X-Y', '*', '0', 'PROXY', "'", 'A'.repeat(99)];
    const separators = [' ', '\t', '  ', '\v', '\f', '\r', ' \t '];
    const targets = ['/', '*', 'a', 'http://a/', 'a:1', '//', '/\0', '%', '?', '.', '~'];
    const versions = ['HTTP/1.1', 'HTTP/1.0', 'HTTP/9', 'http/1.1', 'RTSP/1.0', 'ICE/1.0', 'HTTP/1.1 '];
    let count = 0;
    const random = seeded(15);
    const pick = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)]!;
    while (count++ < 20_000) {
      const front = Array.from({ length: Math.floor(random() * 3) }, () => pick(blanks)).join('');
      const line = `${front}${pick(tokens)}${pick(separators)}${pick(targets)}${pick(separators)}${pick(versions)}\r\n`;
      assert.notEqual(openingOf(line), 'other', JSON.stringify(line));
      assert.notEqual(openingOf(line), undefined, JSON.stringify(line));
    }
  });

  it('cost no more for each byte when they come one by one', () => {
    const reader = createOpeningReader();
    const piece = Buffer.from('a');
    for (let i = 0; i < 1_000_000; i++) assert.equal(reader.read(piece), undefined);
  });
});

describe('a line that is spliced before its end', () => {
  const passes = (...pieces: string[]) => {
    const guard = createLineGuard();
    return pieces.map((piece) => guard.passes(bytesOf(piece)));
  };

  for (const line of [
    '\0GET / HTTP/1.1',
    '\x01 / HTTP/1.0  \t\r',
    '"x" / HTTP/1.1',
    '\r\n\n \0 / HTTP/1.1',
    `\0${'x'.repeat(10_000)} / HTTP/1.1${' '.repeat(10_000)}`,
    '\xa0\0\xa0HTTP/1.1',
  ]) {
    it(`${JSON.stringify(line.slice(0, 30))} never gets it, if its last word is a version`, () => {
      assert.equal(passes(`${line}\n`)[0], false);
      assert.deepEqual(passes(line, '\nX-Real-IP: 6.6.6.6\r\n\r\n'), [true, false]);
      assert.equal(passes(...line, '\n').at(-1), false);
      assert.deepEqual(passes(`${line}\n`, 'more'), [false, false]);
    });
  }

  it('gets it otherwise, and the lines after it are not looked at', () => {
    for (const line of [
      '\0\n',
      '{"request":"GET / HTTP/1.1","status":200}\n',
      '<13>"GET / HTTP/1.1" 200\n',
    ]) {
      assert.deepEqual(passes(line, '\0GET / HTTP/1.1\n'), [true, true]);
    }
  });
});

describe('an upstream that speaks first', () => {
  for (const [text, greeting] of [
    ['HTTP/1.1 408 Request Timeout\r\n', 'http'],
    ['\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64', 'http'],
    ['220 mail.example ESMTP\r\n', 'other'],
    ['SSH-2.0-OpenSSH_9.6\r\n', 'other'],
    ['HELLO\r\n', 'other'],
    ['\x4a\0\0\0\x0a8.0.36\0', 'other'],
    ['\0\0\0\x01', 'other'],
    ['HTT', undefined],
    ['\0\0\x12\x04', undefined],
  ] as const) {
    it(`with ${JSON.stringify(text)} ${greeting === undefined ? 'is waited for' : `is ${greeting}`}`, () => {
      assert.equal(judgeGreeting(bytesOf(text)), greeting);
    });
  }
});

function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    return (state >>> 0) / 2 ** 32;
  };
}
