// HTTP/1.1 heads and framing: what is ambiguous is refused, what is clear is read exactly.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { replyHeadText } from '../../../proxy/exchange/headers.ts';
import { readBody } from '../../../proxy/http1/body.ts';
import {
  type BodyReader,
  beginBody,
  beginReplyBody,
  createBodyReader,
} from '../../../proxy/http1/body-reader.ts';
import { createMessageHead, INCOMPLETE, REFUSED } from '../../../proxy/http1/message.ts';
import { MOST_REPLY_LINES, parseReplyHead } from '../../../proxy/http1/reply-head.ts';
import { parseRequestHead } from '../../../proxy/http1/request-head.ts';

const limits = { maxHeaderBytes: 2_048, maxHeaderCount: 20 };

function readRequest(text: string) {
  const bytes = Buffer.from(text, 'latin1');
  const head = createMessageHead();
  return { taken: parseRequestHead(head, bytes, 0, bytes.length, limits), head, size: bytes.length };
}

function readReply(text: string) {
  const bytes = Buffer.from(text, 'latin1');
  const head = createMessageHead();
  return { taken: parseReplyHead(head, bytes, 0, bytes.length, limits), head, size: bytes.length };
}

const get = (...lines: string[]) => ['GET / HTTP/1.1', 'Host: a.example', ...lines, '', ''].join('\r\n');

describe('a request that can be read in two ways is refused', () => {
  const attacks: [string, string, string][] = [
    [
      'Content-Length and Transfer-Encoding',
      get('Content-Length: 3', 'Transfer-Encoding: chunked'),
      'bad-request',
    ],
    [
      'Transfer-Encoding and Content-Length',
      get('Transfer-Encoding: chunked', 'Content-Length: 3'),
      'bad-request',
    ],
    ['two equal Content-Lengths', get('Content-Length: 3', 'Content-Length: 3'), 'bad-request'],
    ['a list of Content-Lengths', get('Content-Length: 3, 3'), 'bad-request'],
    ['a signed Content-Length', get('Content-Length: +1'), 'bad-request'],
    ['a hexadecimal Content-Length', get('Content-Length: 0x10'), 'bad-request'],
    ['an empty Content-Length', get('Content-Length:'), 'bad-request'],
    ['a Content-Length with superfluous zeros', get('Content-Length: 007'), 'bad-request'],
    ['a Content-Length beyond all numbers', get('Content-Length: 9999999999999999999'), 'bad-request'],
    ['another transfer coding', get('Transfer-Encoding: gzip, chunked'), 'not-implemented'],
    ['chunked that is not last', get('Transfer-Encoding: chunked, gzip'), 'bad-request'],
    ['chunked twice', get('Transfer-Encoding: chunked, chunked'), 'bad-request'],
    [
      'two Transfer-Encoding lines',
      get('Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'),
      'bad-request',
    ],
    ['identity', get('Transfer-Encoding: identity'), 'bad-request'],
    ['a quoted coding', get('Transfer-Encoding: "chunked"'), 'bad-request'],
    ['a vertical tab before chunked', get('Transfer-Encoding: \x0bchunked'), 'bad-request'],
    ['a tab before chunked', get('Transfer-Encoding: \tchunked'), 'bad-request'],
    ['a tab after chunked', get('Transfer-Encoding: chunked \t '), 'bad-request'],
    ['an empty Transfer-Encoding', get('Transfer-Encoding:'), 'bad-request'],
    ['a folded line', get('Transfer-Encoding:', ' chunked'), 'bad-request'],
    ['a fold before the first field', 'GET / HTTP/1.1\r\n Host: a.example\r\n\r\n', 'bad-request'],
    ['a bare CR in a value', get('A: b\rContent-Length: 3'), 'bad-request'],
    ['a bare LF as the end of a line', get('A: b\nContent-Length: 3'), 'bad-request'],
    ['a NUL in a value', get('A: b\0c'), 'bad-request'],
    ['a DEL in a value', get('A: b\x7fc'), 'bad-request'],
    ['a space before the colon', get('Content-Length : 3'), 'bad-request'],
    ['a tab in a name', get('A\tB: 3'), 'bad-request'],
    ['an empty name', get(': 3'), 'bad-request'],
    ['a line without colon', get('abc'), 'bad-request'],
    ['a name beyond ASCII', get('\xe9: 3'), 'bad-request'],
    [
      'Transfer-Encoding in HTTP/1.0',
      'POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n',
      'bad-request',
    ],
    ['no Host', 'GET / HTTP/1.1\r\n\r\n', 'bad-request'],
    ['two Hosts in HTTP/1.0', 'GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n', 'bad-request'],
    ['two Hosts', get('Host: b.example'), 'bad-request'],
    ['two equal Hosts', get('Host: a.example'), 'bad-request'],
    ['HTTP/0.9', 'GET /\r\n', 'bad-request'],
    ['HTTP/2.0 as text', 'GET / HTTP/2.0\r\nHost: a.example\r\n\r\n', 'version-refused'],
    ['HTTP/1.2', 'GET / HTTP/1.2\r\nHost: a.example\r\n\r\n', 'version-refused'],
    ['a lower-case version', 'GET / http/1.1\r\nHost: a.example\r\n\r\n', 'bad-request'],
    ['two spaces after the method', 'GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n', 'bad-request'],
    ['two spaces before the version', 'GET /  HTTP/1.1\r\nHost: a.example\r\n\r\n', 'bad-request'],
    ['a space after the version', 'GET / HTTP/1.1 \r\nHost: a.example\r\n\r\n', 'bad-request'],
    ['a space before the method', ' GET / HTTP/1.1\r\nHost: a.example\r\n\r\n', 'bad-request'],
    ['a tab in the request line', 'GET\t/ HTTP/1.1\r\nHost: a.example\r\n\r\n', 'bad-request'],
    ['a fragment in the target', 'GET /a#b HTTP/1.1\r\nHost: a.example\r\n\r\n', 'bad-request'],
    ['a target beyond ASCII', 'GET /\xe9 HTTP/1.1\r\nHost: a.example\r\n\r\n', 'bad-request'],
    ['two empty lines before it', '\r\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n', 'bad-request'],
    ['a TLS record', '\x16\x03\x01\x02\x00\x01\x00', 'bad-request'],
    [
      'Connection naming Content-Length',
      get('Content-Length: 3', 'Connection: content-length'),
      'bad-request',
    ],
    ['Connection naming Host', get('Connection: Host'), 'bad-request'],
    ['an unknown expectation', get('Expect: 200-maybe'), 'expectation-failed'],
    [
      'more lines than allowed',
      get(...Array.from({ length: 20 }, (_, i) => `A${i}: b`)),
      'headers-too-large',
    ],
    ['a field larger than allowed', get(`A: ${'b'.repeat(2_100)}`), 'headers-too-large'],
    ['a target longer than allowed', `GET /${'b'.repeat(2_100)} HTTP/1.1\r\n`, 'target-too-long'],
    ['a field without end', `GET / HTTP/1.1\r\nA: ${'b'.repeat(2_100)}`, 'headers-too-large'],
  ];
  for (const [attack, text, code] of attacks) {
    it(`${attack}: ${code}`, () => {
      const { taken, head } = readRequest(text);
      assert.equal(taken, REFUSED);
      assert.equal(head.refusal.code, code);
    });
  }
});

describe('a clear request is read exactly', () => {
  it('gives method, target, host and framing, and takes nothing of what follows', () => {
    const text = get('Content-Length: 3', 'X-A:  b c \t').replace('GET /', 'POST /p?q=1');
    const { taken, head } = readRequest(`${text}abc`);
    assert.equal(taken, text.length);
    assert.deepEqual(
      [head.method, head.target, head.host, head.contentLength, head.chunked, head.minor],
      ['POST', '/p?q=1', 'a.example', 3, false, 1],
    );
  });

  it('reads the same wherever the bytes are cut', () => {
    const text = get('Transfer-Encoding: Chunked', 'Connection: close, X-A', 'X-A: 1');
    const bytes = Buffer.from(text);
    for (let cut = 0; cut < bytes.length; cut++) {
      assert.equal(parseRequestHead(createMessageHead(), bytes, 0, cut, limits), INCOMPLETE, `cut at ${cut}`);
    }
    const { head } = readRequest(text);
    assert.deepEqual([head.chunked, head.close, head.nominated], [true, true, ['x-a']]);
  });

  it('ignores one empty line before the request line', () => {
    const { taken, head, size } = readRequest(`\r\n${get()}`);
    assert.equal(taken, size);
    assert.equal(head.method, 'GET');
  });

  it('reads as many lines as are allowed', () => {
    const { taken, size } = readRequest(get(...Array.from({ length: 19 }, (_, i) => `A${i}: b`)));
    assert.equal(taken, size);
  });

  it('finds no trace of the message before in a head that is used again', () => {
    const head = createMessageHead();
    const first = Buffer.from(
      get('Transfer-Encoding: chunked', 'Connection: close, x-a', 'Upgrade: h2c', 'Expect: 100-continue'),
    );
    parseRequestHead(head, first, 0, first.length, limits);
    const second = Buffer.from(get());
    parseRequestHead(head, second, 0, second.length, limits);
    const { chunked, close, nominated, upgradeTo, expectsContinue, count } = head;
    assert.deepEqual(
      { chunked, close, nominated, upgradeTo, expectsContinue, count },
      {
        chunked: false,
        close: false,
        nominated: [],
        upgradeTo: '',
        expectsContinue: false,
        count: 1,
      },
    );
  });
});

describe('a malformed reply is refused', () => {
  for (const [fault, text] of [
    ['no status line', 'hello\r\n\r\n'],
    ['HTTP/2', 'HTTP/2.0 200 OK\r\n\r\n'],
    ['a status of two digits', 'HTTP/1.1 20 OK\r\n\r\n'],
    ['a status of four digits', 'HTTP/1.1 2000 OK\r\n\r\n'],
    ['status 099', 'HTTP/1.1 099 OK\r\n\r\n'],
    ['a bare LF', 'HTTP/1.1 200 OK\nA: b\r\n\r\n'],
    ['both lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['two Content-Lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n'],
    ['a folded line', 'HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n'],
    ['another coding', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n'],
    ['a tab after chunked', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\t\r\n\r\n'],
    ['chunked in HTTP/1.0', 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'],
  ] as const) {
    it(fault, () => {
      const { taken, head } = readReply(text);
      assert.equal(taken, REFUSED);
      assert.equal(head.refusal.code, 'upstream-malformed');
    });
  }

  it('but any status of three digits is none of those', () => {
    for (const status of [100, 599, 600, 999]) {
      const { head } = readReply(`HTTP/1.1 ${status} X\r\n\r\n`);
      assert.equal(head.status, status);
    }
  });

  it('nor are more lines than a request may have', () => {
    const fields = Array.from({ length: 130 }, (_, i) => `A${i}: b\r\n`).join('');
    const text = `HTTP/1.1 200 OK\r\n${fields}\r\n`;
    const { taken, head } = readReply(text);
    assert.deepEqual([taken, head.count], [text.length, 130]);
    const bytes = Buffer.from(`HTTP/1.1 200 OK\r\n${'A: b\r\n'.repeat(MOST_REPLY_LINES + 1)}\r\n`);
    const roomy = { maxHeaderBytes: 100_000, maxHeaderCount: 20 };
    assert.equal(parseReplyHead(createMessageHead(), bytes, 0, bytes.length, roomy), REFUSED);
  });

  it('but a missing reason is none of those', () => {
    for (const text of ['HTTP/1.1 204 \r\n\r\n', 'HTTP/1.1 204\r\n\r\n']) {
      const { taken, head } = readReply(text);
      assert.deepEqual([taken, head.status], [text.length, 204]);
    }
  });
});

/** Reads a body from pieces; what passes is what a relay would pass on. */
function readPieces(body: BodyReader, pieces: readonly string[]) {
  let data = '';
  let passed = '';
  let rest = '';
  for (const piece of pieces) {
    const bytes = Buffer.from(piece, 'latin1');
    let pos = 0;
    while (pos < bytes.length && !body.done) {
      const next = readBody(body, bytes, pos, bytes.length, limits);
      if (next === REFUSED) return { refused: body.refusal.reason, data, passed, rest };
      data += piece.slice(body.dataStart, body.dataEnd);
      passed += piece.slice(pos, body.cutStart) + piece.slice(Math.max(pos, body.cutEnd), next);
      pos = next;
    }
    rest += piece.slice(pos);
  }
  return { refused: undefined, data, passed, rest };
}

describe('the length of a reply', () => {
  const lengthOf = (...values: string[]) => {
    const fields = values.map((value) => `Content-Length: ${value}\r\n`).join('');
    const { taken, head } = readReply(`HTTP/1.1 200 OK\r\n${fields}A: b\r\n\r\n`);
    if (taken === REFUSED) return 'refused';
    return [head.contentLength, replyHeadText(head, 'as-it-came', '')] as const;
  };

  it('as it should be passes as it came', () => {
    assert.deepEqual(lengthOf('5'), [5, 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\n']);
  });

  for (const values of [['0005'], ['5', '5'], ['5, 5'], ['5,5', ' 05'], ['5 ,\t5']]) {
    it(`is passed on as one number: ${JSON.stringify(values)}`, () => {
      assert.deepEqual(lengthOf(...values), [5, 'HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\n']);
    });
  }

  for (const values of [
    ['5', '6'],
    ['5, 6'],
    ['+5'],
    ['-5'],
    ['0x5'],
    ['5 5'],
    ['5,'],
    [''],
    ['5;5'],
    ['1'.repeat(16)],
    ['5', 'x'],
  ]) {
    it(`is refused if it is not clear: ${JSON.stringify(values)}`, () => {
      assert.equal(lengthOf(...values), 'refused');
    });
  }
});

function chunkedReply(...pieces: string[]) {
  const { head } = readReply('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
  const body = createBodyReader();
  beginReplyBody(body, head, 'GET');
  return { ...readPieces(body, pieces), body };
}

describe('the chunks of a reply', () => {
  const canonical = '3\r\nabc\r\n0\r\n\r\n';
  for (const text of [
    '3 \r\nabc\r\n0\r\n\r\n',
    '3   \t\r\nabc\r\n0  \r\n\r\n',
    '3 ;a=b\r\nabc\r\n0\r\n\r\n',
    '3; a = b ; c\r\nabc\r\n0 ; d\r\n\r\n',
    '3;\r\nabc\r\n0;\r\n\r\n',
    '3;;a="b\r\nabc\r\n0\r\n\r\n',
  ]) {
    it(`lose what is not wanted, wherever it is cut: ${JSON.stringify(text)}`, () => {
      for (let cut = 0; cut < text.length; cut++) {
        const { refused, data, passed, body } = chunkedReply(text.slice(0, cut), text.slice(cut));
        assert.deepEqual([refused, data, passed, body.done], [undefined, 'abc', canonical, true]);
      }
    });
  }

  for (const text of [
    ' 3\r\nabc\r\n0\r\n\r\n',
    '3 3\r\nabc\r\n0\r\n\r\n',
    '3 \nabc\r\n0\r\n\r\n',
    '3;a\nb\r\nabc\r\n0\r\n\r\n',
    '3;a\rb\r\nabc\r\n0\r\n\r\n',
    '3;a\0\r\nabc\r\n0\r\n\r\n',
    `3 ${' '.repeat(20_000)}\r\n`,
  ]) {
    it(`are refused if they can be read in two ways: ${JSON.stringify(text.slice(0, 30))}`, () => {
      assert.notEqual(chunkedReply(text).refused, undefined);
      assert.notEqual(chunkedReply(...text).refused, undefined, 'byte by byte');
    });
  }
});

function chunked(...pieces: string[]) {
  const body = createBodyReader();
  beginBody(body, 'chunked');
  return { ...readPieces(body, pieces), body };
}

describe('chunked framing that can be read in two ways is refused', () => {
  for (const [attack, text] of [
    ['a size that is no number', 'g\r\nabc\r\n0\r\n\r\n'],
    ['an empty size', '\r\nabc\r\n0\r\n\r\n'],
    ['a signed size', '+3\r\nabc\r\n0\r\n\r\n'],
    ['a size with 0x', '0x3\r\nabc\r\n0\r\n\r\n'],
    ['a space before the size', ' 3\r\nabc\r\n0\r\n\r\n'],
    ['a space after the size', '3 \r\nabc\r\n0\r\n\r\n'],
    ['a size that overflows', 'fffffffffffffffff\r\nabc'],
    ['a size line that ends in LF', '3\nabc\r\n0\r\n\r\n'],
    ['a size line that ends in CR', '3\rabc\r\n0\r\n\r\n'],
    ['a chunk that ends in LF', '3\r\nabc\n0\r\n\r\n'],
    ['a chunk longer than its size', '3\r\nabcd\r\n0\r\n\r\n'],
    ['an LF in an extension', '3;a\nb\r\nabc\r\n0\r\n\r\n'],
    ['a CR in an extension', '3;a\rb\r\nabc\r\n0\r\n\r\n'],
    ['an LF in a quoted extension', '3;a="\n"\r\nabc\r\n0\r\n\r\n'],
    ['an empty extension', '3;\r\nabc\r\n0\r\n\r\n'],
    ['two semicolons', '3;;a\r\nabc\r\n0\r\n\r\n'],
    ['endless extensions', `3;${'a'.repeat(20_000)}\r\n`],
    ['a trailer without colon', '0\r\nabc\r\n\r\n'],
    ['a trailer that ends in LF', '0\r\nA: b\n\r\n\r\n'],
    ['a Content-Length among the trailers', '0\r\nContent-Length: 3\r\n\r\n'],
    ['a Transfer-Encoding among the trailers', '0\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['an end that is LF', '0\r\n\n'],
    ['an end without LF', '0\r\n\rx'],
    ['a trailer section larger than allowed', `0\r\nA: ${'b'.repeat(3_000)}\r\n\r\n`],
  ] as const) {
    it(attack, () => {
      assert.notEqual(chunked(text).refused, undefined);
      assert.notEqual(chunked(...text).refused, undefined, 'byte by byte');
    });
  }
});

describe('a body is read exactly', () => {
  const text = '3;x="a;b\\"\\r";y=z\r\nabc\r\nA\r\n0123456789\r\n000\r\nT-A: b\r\nT-B: c\r\n\r\nGET ';

  it('chunked, with extensions and trailers, wherever it is cut', () => {
    for (let cut = 0; cut < text.length; cut++) {
      const { refused, data, passed, rest, body } = chunked(text.slice(0, cut), text.slice(cut));
      assert.equal(refused, undefined, `cut at ${cut}`);
      assert.deepEqual(
        [data, passed, rest],
        ['abc0123456789', '3\r\nabc\r\nA\r\n0123456789\r\n000\r\n', 'GET '],
      );
      assert.equal(body.trailers?.count, 2);
      assert.equal(body.received, 13);
    }
  });

  it('chunked without trailers passes untouched', () => {
    const plain = '3\r\nabc\r\n0\r\n\r\n';
    for (const pieces of [[plain], [...plain]]) {
      const { passed, data, body } = chunked(...pieces);
      assert.deepEqual([passed, data, body.done, body.trailers], [plain, 'abc', true, undefined]);
    }
  });

  it('of a given length, and not one byte more', () => {
    const body = createBodyReader();
    beginBody(body, 'length', 5);
    const { data, rest } = readPieces(body, ['ab', 'cdeGET']);
    assert.deepEqual([data, rest, body.done], ['abcde', 'GET', true]);
  });

  it('is absent from replies to HEAD, 204 and 304, whatever their fields say', () => {
    for (const [status, method] of [
      ['200', 'HEAD'],
      ['204', 'GET'],
      ['304', 'GET'],
    ] as const) {
      const { head } = readReply(`HTTP/1.1 ${status} X\r\nContent-Length: 5\r\n\r\n`);
      const body = createBodyReader();
      beginReplyBody(body, head, method);
      assert.deepEqual([body.kind, body.done], ['none', true]);
    }
  });

  it('of a reply without a length lasts until the close', () => {
    const { head } = readReply('HTTP/1.1 200 OK\r\n\r\n');
    const body = createBodyReader();
    beginReplyBody(body, head, 'GET');
    const { data } = readPieces(body, ['ab', 'c']);
    assert.deepEqual([data, body.done], ['abc', false]);
  });
});
