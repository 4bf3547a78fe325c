// Canonical JSON: what RFC 8785 says, and what it refuses.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { canonicalJson } from '../../evidence/canonical-json.ts';

test('what JSON cannot say is refused, and not left out', () => {
  class Point {
    x = 1;
  }
  const wrong: unknown[] = [
    undefined,
    { a: undefined },
    [undefined],
    // biome-ignore lint/suspicious/noSparseArray: a hole is what is tested
    [1, , 2],
    Number.NaN,
    Number.POSITIVE_INFINITY,
    1n,
    () => 1,
    Symbol('s'),
    new Date(0),
    new Map(),
    new Point(),
    Buffer.from('a'),
    '\ud800',
    'a\udc00',
    { '\ud800': 1 },
  ];
  for (const value of wrong) assert.throws(() => canonicalJson(value), { code: 'not-json' });
});

test('a document that is deeper than any of ours is refused before the stack is', () => {
  const deep = JSON.parse(`${'['.repeat(200_000)}${']'.repeat(200_000)}`) as unknown;
  assert.throws(() => canonicalJson(deep), { code: 'too-deep' });
  assert.equal(canonicalJson([[[[[]]]]]), '[[[[[]]]]]');
});

test('numbers, literals and strings are as in RFC 8785 §3.2.2', () => {
  const value = JSON.parse(
    `{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001,-0],` +
      String.raw`"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}`,
  ) as unknown;
  const expected =
    '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27,0],' +
    String.raw`"string":"€$\u000f\nA'B\"\\\\\"/"}`;
  assert.equal(canonicalJson(value), expected);
});

test('names stand in the order of UTF-16, as in RFC 8785 §3.2.3, also those that look like numbers', () => {
  const value = JSON.parse(
    String.raw`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh",` +
      String.raw`"1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control",` +
      String.raw`"\u00f6":"Latin Small Letter O With Diaeresis","10":"Ten","9":"Nine"}`,
  ) as object;
  const order = [...canonicalJson(value).matchAll(/:"([^"]+)"/g)].map(([, text]) => text);
  assert.deepEqual(order, [
    'Carriage Return',
    'One',
    'Ten',
    'Nine',
    'Control',
    'Latin Small Letter O With Diaeresis',
    'Euro Sign',
    'Emoji: Grinning Face',
    'Hebrew Letter Dalet With Dagesh',
  ]);
});

test('a name that objects have by themselves is a name like any other', () => {
  const text = '{"__proto__":{"a":1},"constructor":2}';
  assert.equal(canonicalJson(JSON.parse(text)), text);
});

test('canonical JSON is its own canonical form', () => {
  const text = canonicalJson({ b: [{ d: 1, c: 'é' }], a: '\u2028' });
  assert.equal(canonicalJson(JSON.parse(text)), text);
});
