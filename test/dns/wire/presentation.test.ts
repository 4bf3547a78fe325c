// Values in zone-file form survive the way there and back, and what is no such form is left alone.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  formatCaa,
  normalizeValue,
  parseCaa,
  quoteTxt,
  sameRecord,
  unquoteTxt,
  zoneFileLine,
} from '../../../dns/wire/presentation.ts';

test('any text comes back from its quoted form', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 700 }), (text) => {
      assert.equal(unquoteTxt(quoteTxt(text)), text);
    }),
  );
});

test('a text longer than 255 octets is cut into strings of at most that', () => {
  const quoted = quoteTxt('x'.repeat(600));
  assert.deepEqual(
    quoted.split(' ').map((part) => part.length - 2),
    [255, 255, 90],
  );
});

test('a text that is not wholly quoted is taken as it stands', () => {
  for (const text of ['plain', '"half', 'say "hi" now', '"a"b', '']) assert.equal(unquoteTxt(text), text);
});

test('quotes and backslashes in a text do not end it', () => {
  assert.equal(quoteTxt('a"b\\c'), '"a\\"b\\\\c"');
  assert.equal(unquoteTxt('"a\\"b\\\\c" "\\100"'), 'a"b\\cd');
});

test('a CAA value is read in zone-file form and in the generic form that some resolvers give', () => {
  const property = { flags: 0, tag: 'issue', value: 'letsencrypt.org' };
  const generic = Buffer.concat([Buffer.from([0, 5]), Buffer.from('issueletsencrypt.org')]);
  assert.deepEqual(parseCaa('0 ISSUE "letsencrypt.org"'), property);
  assert.deepEqual(parseCaa('0 issue letsencrypt.org'), property);
  assert.deepEqual(
    parseCaa(`\\# ${generic.length} ${generic.toString('hex').replace(/../g, '$& ')}`),
    property,
  );
  assert.equal(formatCaa(property), '0 issue "letsencrypt.org"');
});

test('what is not a CAA value is refused and never guessed at', () => {
  for (const text of ['', 'issue "x"', '256 issue "x"', '0 is-sue "x"', '\\# 5 00', '\\# 3 00 09 61']) {
    assert.equal(parseCaa(text), undefined, text);
  }
});

test('names and addresses compare by meaning, texts by every letter', () => {
  const record = (type: 'A' | 'AAAA' | 'CNAME' | 'TXT' | 'CAA', value: string) => ({
    name: 'a.example',
    type,
    value,
  });
  assert.ok(sameRecord(record('CNAME', 'GW.example.'), record('CNAME', 'gw.example')));
  assert.ok(sameRecord(record('AAAA', '2001:DB8:0::1'), record('AAAA', '2001:db8::1')));
  assert.ok(sameRecord(record('CAA', '0 ISSUE "x"'), record('CAA', '0 issue x')));
  assert.ok(!sameRecord(record('TXT', 'A'), record('TXT', 'a')));
  assert.ok(!sameRecord(record('CAA', '128 issue "x"'), record('CAA', '0 issue "x"')));
  assert.equal(normalizeValue('CAA', 'nonsense'), 'nonsense');
});

test('a zone-file line can be pasted as it is', () => {
  assert.equal(
    zoneFileLine({ name: 'a.example', type: 'CNAME', value: 'gw.example' }),
    'a.example. IN CNAME gw.example.',
  );
  assert.equal(
    zoneFileLine({ name: 'a.example', type: 'TXT', value: 'id:443' }),
    'a.example. IN TXT "id:443"',
  );
});
