// Sites and locations: found at once among many, and the same as by looking at each.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { compile } from '../../../proxy/rules/compile.ts';
import type { Location, RuleSet } from '../../../proxy/rules/model.ts';
import { ask, prefix, siteOf, t } from './driver.ts';

const says = (text: string): Partial<Location> => ({
  rewrite: [{ do: 'return', status: 200, body: [text] }],
});

describe('of many prefixes', () => {
  const path = fc
    .array(fc.constantFrom('a', 'b', 'ab', '/'), { maxLength: 6 })
    .map((pieces) => `/${pieces.join('')}`.replaceAll(/\/+/g, '/'));

  test('the longest that fits is found, as by trying each', () => {
    fc.assert(
      fc.property(fc.uniqueArray(path, { maxLength: 12 }), path, (prefixes, asked) => {
        const rules = siteOf(prefixes.map((one) => prefix(one, says(one))));
        const expected = prefixes
          .filter((one) => asked.startsWith(one))
          .sort((a, b) => b.length - a.length)[0];
        assert.equal(ask(rules, asked).body, expected);
      }),
      { numRuns: 1_000 },
    );
  });

  test('by segments, the longest whose last segment is whole', () => {
    fc.assert(
      fc.property(fc.uniqueArray(path, { maxLength: 12 }), path, (prefixes, asked) => {
        const rules = siteOf(
          prefixes.map((one) => ({ match: { kind: 'segments', path: one }, ...says(one) })),
        );
        const isWhole = (one: string) =>
          asked === one || asked.startsWith(one.endsWith('/') ? one : `${one}/`);
        const expected = prefixes.filter(isWhole).sort((a, b) => b.length - a.length)[0];
        assert.equal(ask(rules, asked).body, expected);
      }),
      { numRuns: 1_000 },
    );
  });
});

describe('conditions', () => {
  const rules = siteOf([
    prefix('/', says('any')),
    prefix('/a', { ...says('shorter') }),
    prefix('/a/b', { when: { methods: ['POST'] }, ...says('post') }),
    prefix('/a/b', {
      when: { headers: [{ name: 'X-Beta', value: { kind: 'text', text: 'yes' } }] },
      ...says('beta'),
    }),
    prefix('/a/b', { when: { query: [{ name: 'v 1', value: { kind: 'present' } }] }, ...says('query') }),
    { match: { kind: 'exact', path: '/e' }, when: { methods: ['PUT'] }, ...says('put') },
  ]);

  test('choose among locations of one path, and where none holds the next shorter path is taken', () => {
    assert.equal(ask(rules, '/a/b', { method: 'POST' }).body, 'post');
    assert.equal(ask(rules, '/a/b', { headers: { 'x-beta': 'yes' } }).body, 'beta');
    assert.equal(ask(rules, '/a/b?v+1=', {}).body, 'query');
    assert.equal(ask(rules, '/a/b', { headers: { 'x-beta': 'no' } }).body, 'shorter');
    assert.equal(ask(rules, '/e', { method: 'PUT' }).body, 'put');
    assert.equal(ask(rules, '/e').body, 'any');
  });
});

describe('a host', () => {
  const site = (label: string, kind: 'exact' | 'one-label' | 'any-labels' | 'any-ending', name: string) => ({
    names: [{ kind, name }],
    label,
    locations: [prefix('/', { rewrite: [{ do: 'return' as const, status: 200, body: t('$server_name') }] })],
  });
  const rules: RuleSet = {
    sites: [
      site('exact', 'exact', 'a.b.test'),
      site('one', 'one-label', 'b.test'),
      site('any', 'any-labels', 'test'),
      site('ending', 'any-ending', 'www'),
    ],
  };
  const hosts: readonly [string, string | undefined][] = [
    ['a.b.test', 'exact'],
    ['A.B.Test.', 'exact'],
    ['a.b.test:8443', 'exact'],
    ['c.b.test', 'one'],
    ['d.c.b.test', 'any'],
    ['b.test', 'any'],
    ['test', undefined],
    ['www.example', 'ending'],
    ['', undefined],
    ['[::1]:443', undefined],
  ];
  for (const [host, expected] of hosts) {
    test(`${JSON.stringify(host)} is served by ${expected ?? 'nobody'}`, () => {
      assert.equal(ask(rules, '/', { host }).body, expected);
    });
  }
});

test('a rule set is plain data: it means the same after a journey as JSON', () => {
  const rules = siteOf([prefix('/x', says('x'))]);
  assert.equal(ask(compile(JSON.parse(JSON.stringify(rules)) as RuleSet), '/x/y').body, 'x');
});
