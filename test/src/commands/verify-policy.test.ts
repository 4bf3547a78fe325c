// Policy files: what they say, each mistake with its place, and a schema that agrees with the program.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { parse } from 'yaml';
import { readPolicy } from '../../../src/commands/verify-policy.ts';
import { describeMistake } from '../../../src/config/mistake.ts';

const read = (path: string) => readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8');
const schema = new Ajv2020().compile(JSON.parse(read('docs/policy.schema.json')));

const register = 'ab'.repeat(48);
const sound = `
app:
  id: "${'a1'.repeat(20)}"
  compose: "${'C0'.repeat(32)}"
systems:
  - mrtd: "${register}"
    rtmr1: "${register}"
    rtmr2: "${register}"
    image: "${'ee'.repeat(32)}"
tcb:
  states: [UpToDate, SWHardeningNeeded]
  advisories: INTEL-SA-00837
key_providers:
  - name: kms
    id: "BEEF"
  - name: none
caa:
  account: https://ca.example/acct/1
  methods: dns-01
ct:
  sources: 1
  known: ["04D2"]
`;

test('a policy says what is expected, in lower case where case means nothing', () => {
  const { expected, mistakes } = readPolicy(sound, 'policy.yaml');
  assert.deepEqual(mistakes, []);
  assert.deepEqual(expected, {
    appId: 'a1'.repeat(20),
    composeHash: 'c0'.repeat(32),
    tcb: ['UpToDate', 'SWHardeningNeeded'],
    advisories: ['INTEL-SA-00837'],
    systems: [{ mrtd: register, rtmrs: { 1: register, 2: register }, image: 'ee'.repeat(32) }],
    keyProviders: [
      { name: 'kms', id: 'beef' },
      { name: 'none', id: undefined },
    ],
    caa: { account: 'https://ca.example/acct/1', methods: ['dns-01'] },
    ct: { sources: 1, known: ['04D2'] },
  });
});

const wrong: readonly [text: string, said: RegExp][] = [
  ['', /^p: is empty: wants what you expect/],
  ['- a', /^p:1:1: the policy is a list: wants a mapping/],
  ['apps:\n  id: x', /^p:1:1: "apps" is not a key of the policy: wants app, .* \(was app meant\?\)/],
  ['app:\n  id: 12', /^p:2:7: "id" is a number: wants text/],
  ['app:\n  id: "xy"', /^p:2:7: "id" is "xy": wants 20 bytes in hex/],
  ['app:\n  compose: ""', /^p:2:12: compose: .*: cannot be read: /],
  ['systems: []', /^p:1:10: "systems" is an empty list/],
  ['systems:\n  - mrtd: ab', /^p:2:11: "mrtd" is "ab": wants 48 bytes in hex/],
  ['systems:\n  - rtmr3: ab', /^p:2:5: "rtmr3" is not a key of a system/],
  ['tcb:\n  states: Revoked', /^p:2:11: "Revoked" is no state that can be allowed/],
  ['tcb:\n  states: []', /^p:2:11: "states" is an empty list/],
  ['key_providers:\n  - id: ab', /^p:2:5: a key provider without a name/],
  ['key_providers:\n  - name: kms\n    id: xyz', /^p:3:9: "id" is "xyz": wants hex/],
  ['caa:\n  account: nobody', /^p:2:12: "account" is "nobody": wants the URL/],
  ['ct:\n  sources: 0', /^p:2:12: "sources" is not a whole number from 1 to 16/],
  ['ct:\n  known: [xyz]', /^p:2:10: "xyz" is not hex/],
];

describe('the schema in docs/ and the program agree', () => {
  test('on what is sound', () => {
    assert.ok(schema(parse(sound)), JSON.stringify(schema.errors));
    assert.ok(schema({}));
  });

  for (const [text, said] of wrong) {
    test(`that this is a mistake, which is told with its place: ${JSON.stringify(text)}`, () => {
      const { mistakes } = readPolicy(text, 'p');
      assert.match(mistakes.map(describeMistake).join('\n'), said);
      assert.equal(schema(parse(text)), false);
    });
  }
});

test('a file that is no YAML is told so, with where to see what it should be', () => {
  const { mistakes } = readPolicy('app: [', 'p');
  assert.equal(mistakes.length, 1);
  assert.match(describeMistake(mistakes[0]!), /^p:1:\d+: is not sound YAML: /);
});
