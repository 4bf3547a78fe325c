// What verify reads of strangers (evidence/verify): sums, statement, history, answer to the nonce, and a policy; a verdict or a mistake, whatever it is.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type History, historyLine, readHistory } from '../../../evidence/history.ts';
import { statementDigest } from '../../../evidence/statement.ts';
import { checkIds, judge, type Seen } from '../../../evidence/verify/index.ts';
import { readPolicy } from '../../../src/commands/verify-policy.ts';
import { chainOf } from '../../support/statements.ts';
import { fuzzTarget, mutated } from '../target.ts';

const statements = chainOf(3);
const history = Buffer.from(statements.map(historyLine).join(''));
const quote = '04000200810000'.padEnd(1400, '0');
const fields = { quote, event_log: '[]', report_data: '00'.repeat(64), vm_config: '{}' };
const attestation = Buffer.from(JSON.stringify({ statement: statements.at(-1), ...fields }));
const answer = Buffer.from(
  JSON.stringify({
    version: 1,
    nonce: '0a'.repeat(32),
    spki: '0b'.repeat(32),
    exporter: '0c'.repeat(32),
    path: [{ side: 'left', hash: '0d'.repeat(32) }],
    root: '0e'.repeat(32),
    signature: 'ab',
    ...fields,
  }),
);
const sums = Buffer.from(`${'0'.repeat(64)}  acme-account.json\n${'1'.repeat(64)} *cert-a.example.pem\n`);
const account = Buffer.from('{"body":{},"uri":"https://ca.example/acct/1"}');
const quoteFile = Buffer.from(JSON.stringify(fields));
const tokens = ['{', '}', '[', '"', '\n', '\\u0000', '\\ud800', 'null', '1e999', '"__proto__":'].map((text) =>
  Buffer.from(text),
);

const names = ['sums', 'quote', 'account', 'attestation', 'history', 'answer'] as const;
const honest = { sums, quote: quoteFile, account, attestation, history, answer };
type Bodies = Readonly<Record<(typeof names)[number], Buffer>>;

function seenOf(bodies: Bodies): Seen {
  const got = (body: Buffer) => ({ state: 'got' as const, body });
  return {
    host: 'a.example',
    port: 443,
    at: '2026-03-01T00:00:00.000Z',
    connections: [],
    bundle: {
      connection: 0,
      sums: got(bodies.sums),
      quote: got(bodies.quote),
      files: new Map([['acme-account.json', got(bodies.account)]]),
    },
    statement: got(bodies.attestation),
    history: got(bodies.history),
    attest: { answer: got(bodies.answer), nonce: '0a'.repeat(32), exporter: '', connection: 0 },
    collateral: undefined,
    dns: { resolvers: [], authority: [] },
    ct: [],
    proofs: [],
  };
}

export const verifyDocuments = fuzzTarget<Bodies>({
  name: 'what verify reads of a host',
  input: fc.record(
    Object.fromEntries(names.map((name) => [name, mutated([honest[name]], tokens)])) as Record<
      keyof Bodies,
      fc.Arbitrary<Buffer>
    >,
  ),
  async check(bodies) {
    const { verdict, checks } = await judge(seenOf(bodies), {}, new Date('2026-03-01T00:00:00Z'));
    assert.notEqual(verdict, 'pass');
    assert.deepEqual(
      checks.map(({ id }) => id),
      checkIds,
    );
    for (const { reason } of checks) assert.notEqual(reason, '');
  },
  growing: {
    'a history of lines': (size) => ({ ...honest, history: Buffer.alloc(size, '\n') }),
    'an answer of brackets': (size) => ({ ...honest, answer: Buffer.alloc(size, '[') }),
    'sums of one name': (size) => ({ ...honest, sums: Buffer.alloc(size, 'a') }),
  },
});

/** Only what is linked from the first statement to the last is without fault. */
export const statementHistory = fuzzTarget<Buffer>({
  name: 'history of statements',
  input: mutated([history, ...statements.map((one) => Buffer.from(historyLine(one)))], tokens),
  check(bytes) {
    const text = bytes.toString('utf8');
    const { entries, faults }: History = readHistory(text);
    if (faults.length > 0) return;
    let previous: string | null = null;
    for (const { statement, digest } of entries) {
      assert.equal(statement.previous, previous);
      assert.equal(digest, statementDigest(statement));
      previous = digest;
    }
    assert.equal(entries.map(({ statement }) => historyLine(statement)).join(''), text);
  },
  growing: { 'a line': (size) => Buffer.alloc(size, 'a') },
});

const policy = Buffer.from(
  'app:\n  id: "00"\nsystems:\n  - mrtd: "00"\ntcb:\n  states: [UpToDate]\nkey_providers:\n  - name: kms\ncaa:\n  methods: dns-01\nct:\n  sources: 1\n  known: [ab]\n',
);

export const verifyPolicy = fuzzTarget<Buffer>({
  name: 'policy file of verify',
  input: mutated(
    [policy],
    [...tokens, Buffer.from('&a '), Buffer.from('*a'), Buffer.from('- '), Buffer.from(': ')],
  ),
  check(bytes) {
    // A compose file of any name may be read, so none is named.
    const text = bytes.toString('utf8').replaceAll('compose', 'composer');
    const { expected, mistakes } = readPolicy(text, 'policy.yaml');
    for (const { place, subject, cure } of mistakes) {
      assert.equal(place.file, 'policy.yaml');
      assert.ok(subject !== '' && cure !== '');
    }
    if (expected.appId !== undefined) assert.match(expected.appId, /^[0-9a-f]{40}$/);
  },
  growing: { 'a list': (size) => Buffer.from(`tcb:\n  states: [${'a,'.repeat(size / 2)}]\n`) },
});
