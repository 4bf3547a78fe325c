// Paths: decoded once, merged and resolved before any rule sees them, and escaped again so that they mean the same.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { decodePath, escapeArgument, escapePath } from '../../../proxy/rules/uri.ts';

describe('a path', () => {
  const decoded: readonly [path: string, uri: string | undefined][] = [
    ['/', '/'],
    ['/a//b', '/a/b'],
    ['/a/./b', '/a/b'],
    ['/a/../b', '/b'],
    ['/a/..', '/'],
    ['/a/.', '/a/'],
    ['/a%2Fb', '/a/b'],
    ['/a/%2e%2E/x', '/x'],
    ['/%2e%2e/x', undefined],
    ['/..', undefined],
    ['/a/b/../../..', undefined],
    ['/a/.%2e%2f..%2fb', undefined],
    ['/%00', undefined],
    ['/%', undefined],
    ['/%4', undefined],
    ['/%zz', undefined],
    ['/%252e%252e/x', '/%2e%2e/x'],
    ['/%3f%23%25', '/?#%'],
    ['/..;/x', '/..;/x'],
    ['/a/...', '/a/...'],
    ['/.a/..b', '/.a/..b'],
    ['/%E4%BD%A0', '/\xe4\xbd\xa0'],
  ];
  for (const [path, uri] of decoded) {
    test(`${path} is ${uri === undefined ? 'refused' : JSON.stringify(uri)} to rules`, () => {
      assert.equal(decodePath(path, true)?.uri, uri);
    });
  }

  test('keeps its double slashes where they are not to be merged', () => {
    assert.equal(decodePath('/a//b/%2F/c', false)?.uri, '/a//b///c');
    assert.equal(decodePath('//..', false)?.uri, '/');
  });

  const piece = fc.constantFrom(
    '/',
    '.',
    '..',
    'a',
    '%2f',
    '%2F',
    '%2e',
    '%2E',
    '%41',
    '%25',
    '%3f',
    '%00',
    '%',
    ';',
    '//',
    '+',
    '%0a',
    '\xff',
  );
  const path = fc.array(piece, { maxLength: 24 }).map((pieces) => `/${pieces.join('')}`);

  test('never has a dot segment or an empty one once decoded, and never leaves the root', () => {
    fc.assert(
      fc.property(path, (text) => {
        const uri = decodePath(text, true)?.uri;
        if (uri === undefined) return;
        assert.ok(uri.startsWith('/'), uri);
        const segments = uri.split('/');
        assert.ok(!segments.includes('.') && !segments.includes('..'), uri);
        assert.ok(!segments.slice(1, -1).includes(''), uri);
      }),
      { numRuns: 5_000 },
    );
  });

  test('means the same once it is escaped again', () => {
    fc.assert(
      fc.property(path, (text) => {
        const uri = decodePath(text, true)?.uri;
        if (uri !== undefined) assert.equal(decodePath(escapePath(uri), true)?.uri, uri);
      }),
      { numRuns: 5_000 },
    );
  });
});

test('what is escaped for a query cannot begin another argument, or end it', () => {
  assert.equal(escapeArgument('a b&c=d#e%f+g;h?i/j\n'), 'a%20b%26c=d%23e%25f%2Bg%3Bh%3Fi/j%0A');
});

test('an escaped path keeps what may stand in a path, and no more', () => {
  assert.equal(
    escapePath('/a b"#%<>?\\^`{|}\x7f\xe4[]~;:@+&='),
    '/a%20b%22%23%25%3C%3E%3F%5C%5E%60%7B%7C%7D%7F%E4[]~;:@+&=',
  );
});
