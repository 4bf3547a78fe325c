// Domain names: what is one, what is not and why, and what a wildcard covers.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { baseOf, covers, DomainError, isWildcard, parseDomain } from '../../../src/lib/domain.ts';

test('names come out in lower case, in ASCII, without the trailing dot', () => {
  assert.equal(parseDomain(' App.Example.COM. '), 'app.example.com');
  assert.equal(parseDomain('bücher.example'), 'xn--bcher-kva.example');
  assert.equal(parseDomain('*.Example.com'), '*.example.com');
  assert.equal(parseDomain('localhost'), 'localhost');
});

for (const [text, why] of [
  ['', /it is empty/],
  ['*.', /whole first label/],
  ['https://example.com', /without scheme/],
  ['example.com:443', /without scheme/],
  ['example.com/path', /without scheme/],
  ['a.*.example.com', /whole first label/],
  ['*a.example.com', /whole first label/],
  ['-a.example.com', /not a valid label/],
  ['a_b.example.com', /not a valid label/],
  ['a..example.com', /not a/],
  [`${'a'.repeat(64)}.example.com`, /not a/],
  ['10.0.0.1', /IP address/],
  ['com', /only one label/],
  [`${'a.'.repeat(126)}example.com`, /longer than 253/],
  ['evil.com\\.example.com', /not a domain name/],
  ['%65vil.com', /not a domain name/],
  ['a b.example.com', /without scheme/],
  ['\u0000.example.com', /not a domain name/],
] as const) {
  test(`${JSON.stringify(text.slice(0, 40))} is refused with the reason`, () => {
    assert.throws(
      () => parseDomain(text),
      (error: DomainError) => error instanceof DomainError && why.test(error.message),
    );
  });
}

test('a wildcard covers one label, no more and no less', () => {
  assert.ok(covers('*.example.com', 'a.example.com'));
  assert.ok(!covers('*.example.com', 'example.com'));
  assert.ok(!covers('*.example.com', 'a.b.example.com'));
  assert.ok(!covers('*.example.com', '.example.com'));
  assert.ok(!covers('*.example.com', 'aexample.com'));
  assert.ok(covers('example.com', 'example.com'));
  assert.equal(baseOf(parseDomain('*.example.com')), 'example.com');
  assert.ok(isWildcard(parseDomain('*.example.com')) && !isWildcard(parseDomain('example.com')));
});
