// A history that was cut, changed, reordered or shortened is found out, and the rest of it is read all the same.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { canonicalJson } from '../../evidence/canonical-json.ts';
import { historyLine, readHistory } from '../../evidence/history.ts';
import {
  type Statement,
  statementDigest,
  statementReportData,
  statementSchema,
} from '../../evidence/statement.ts';
import { chainOf, sampleStatement } from '../support/statements.ts';

const faultsOf = (text: string) => readHistory(text).faults.map(({ code, line }) => `${line} ${code}`);

const chain = chainOf(4);
const lines = chain.map(historyLine);
const whole = lines.join('');

test('a whole history is read without a fault, oldest first, each entry with the digest that the next one names', () => {
  const { entries, faults } = readHistory(whole);
  assert.deepEqual(faults, []);
  assert.deepEqual(
    entries.map(({ statement }) => statement),
    chain,
  );
  for (const [index, { digest }] of entries.entries()) {
    const text = lines[index]!.trimEnd();
    assert.equal(digest, createHash('sha256').update(text).digest('hex'));
    if (index > 0) assert.equal(entries[index]!.statement.previous, entries[index - 1]!.digest);
  }
  assert.deepEqual(readHistory(''), { entries: [], faults: [] });
});

test('cut at any byte it has one fault, at its last line, and what stands before is read', () => {
  for (let length = 0; length < whole.length; length += 37) {
    const text = whole.slice(0, length);
    const ended = text.split('\n').length - 1;
    const { entries, faults } = readHistory(text);
    assert.equal(entries.length, ended);
    const isWhole = text === '' || text.endsWith('\n');
    assert.deepEqual(
      faults.map(({ code, line }) => [code, line]),
      isWhole ? [] : [['cut', ended + 1]],
    );
  }
});

test('a line that is missing, repeated, swapped or in front is a link that does not hold', () => {
  const [a, b, c, d] = lines as [string, string, string, string];
  assert.deepEqual(faultsOf(b + c + d), ['1 not-linked']);
  assert.deepEqual(faultsOf(a + c + d), ['2 not-linked']);
  assert.deepEqual(faultsOf(a + b + b + c + d), ['3 not-linked']);
  assert.deepEqual(faultsOf(a + c + b + d), ['2 not-linked', '3 not-linked', '4 not-linked']);
});

test('a statement that was changed breaks the link of the next one', () => {
  const forged = historyLine({ ...chain[1]!, revision: 'another' });
  assert.deepEqual(faultsOf([lines[0], forged, lines[2], lines[3]].join('')), ['3 not-linked']);
});

test('damage in the middle is said with its line, and does not hide what follows', () => {
  const damaged = [lines[0], '\0\0\0\0\n', lines[2], '\n', lines[3]].join('');
  assert.deepEqual(faultsOf(damaged), ['2 not-a-statement', '3 not-linked', '4 not-a-statement']);
  assert.equal(readHistory(damaged).entries.length, 3);
});

test('the same statement written otherwise is not canonical', () => {
  const first = chain[0]!;
  const reversed = JSON.stringify(Object.fromEntries(Object.entries(first).reverse()));
  const spaced = canonicalJson(first).replace('{', '{ ');
  const twice = canonicalJson(first).replace('{', '{"revision":"x",');
  const returned = `${canonicalJson(first)}\r`;
  for (const line of [reversed, spaced, twice, returned])
    assert.deepEqual(faultsOf(`${line}\n`), ['1 not-canonical']);
  const inherited = canonicalJson(first).replace('"caa":{', '"caa":{"__proto__":[],');
  assert.equal(faultsOf(`${inherited}\n`).length, 1);
});

test('what is no statement of this version is none', () => {
  const wrong: object[] = [
    { ...chain[0], type: 'dstack-ingress/statement/v2' },
    { ...chain[0], previous: 'ABC' },
    { ...chain[0], previous: undefined },
    { ...chain[0], more: 1 },
    { ...chain[0], time: 'yesterday' },
    { ...chain[0], account: { uri: 'file:///etc/passwd', thumbprint: '' } },
    [],
  ];
  for (const value of wrong) assert.ok(!statementSchema.safeParse(value).success, JSON.stringify(value));
});

test('the report data of a statement is a whole SHA-512 under a name of its own, whatever the order of its fields', () => {
  const statement = sampleStatement({ previous: null });
  const reordered = Object.fromEntries(Object.entries(statement).reverse()) as Statement;
  const expected = createHash('sha512')
    .update(`dstack-ingress/statement/v1\n${canonicalJson(statement)}`)
    .digest();
  assert.deepEqual(statementReportData(statement), expected);
  assert.deepEqual(statementReportData(reordered), expected);
  assert.equal(statementDigest(reordered), statementDigest(statement));
});

test('a line with half a surrogate pair, which has no canonical form, is a fault and not an error', () => {
  const line = JSON.stringify(sampleStatement()).replace('6d0c7a3e', '\\ud800');
  assert.deepEqual(
    readHistory(`${line}\n`).faults.map(({ code }) => code),
    ['not-canonical'],
  );
});
