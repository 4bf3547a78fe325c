// Who may ask for a fresh quote, how many may wait, and what is left of those who went away.

import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { describe, test } from 'node:test';
import { type AttestOptions, createAttester } from '../../evidence/attest.ts';
import {
  type AttestAnswer,
  attestAnswerSchema,
  attestLeaf,
  attestReportData,
  foldPath,
  verifyKeyProof,
} from '../../evidence/attest-claims.ts';
import type { RoundAnswer } from '../../evidence/attest-rounds.ts';
import type { LocalConnection, LocalReply } from '../../src/lib/local-handler.ts';
import { makeCertificate } from '../support/certificates.ts';
import { localConnection } from '../support/local-connections.ts';

const certificate = await makeCertificate('app.example.com');
const never = new AbortController().signal;
const nonceOf = (number: number) => number.toString(16).padStart(32, '0');

/** The quote of a root that is the hash itself. */
function answerFor(hash: Uint8Array): RoundAnswer {
  return {
    path: [],
    root: Buffer.from(hash).toString('hex'),
    quote: '00',
    eventLog: '[]',
    reportData: attestReportData(hash).toString('hex'),
  };
}

function stage(options: Partial<AttestOptions> = {}) {
  const asked: Buffer[] = [];
  const open: PromiseWithResolvers<RoundAnswer | undefined>[] = [];
  const attester = createAttester({
    keyOf: (pem) => (certificate.chain.includes(pem.trim()) ? createPrivateKey(certificate.key) : undefined),
    ask: (hash) => {
      asked.push(Buffer.from(hash));
      open.push(Promise.withResolvers());
      return open.at(-1)!.promise;
    },
    ...options,
  });
  return {
    asked,
    /** Answers the question that is open. */
    answer: (fails = false) => open.at(-1)!.resolve(fails ? undefined : answerFor(asked.at(-1)!)),
    ask: (connection: LocalConnection, query: string, signal = never, method = 'GET') =>
      attester.handle({ method, query, connection, signal }),
  };
}

const turns = async () => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
};
const bodyOf = (reply: LocalReply) => JSON.parse(Buffer.from(reply.body as Uint8Array).toString());

function verified(reply: LocalReply, nonce: string, connection: LocalConnection): AttestAnswer {
  assert.equal(reply.status, 200);
  const answer = attestAnswerSchema.parse(bodyOf(reply));
  const spki = new X509Certificate(certificate.chain).publicKey.export({ type: 'spki', format: 'der' });
  const exporter = Buffer.from(connection.exportKeyingMaterial(32, '', Buffer.alloc(0))).toString('hex');
  const leaf = attestLeaf({ nonce, spki: answer.spki, exporter });
  assert.equal(foldPath(leaf, answer.path).toString('hex'), answer.root);
  assert.ok(verifyKeyProof(leaf, spki, Buffer.from(answer.signature, 'hex')));
  return answer;
}

describe('who asks wrongly is told at once, and nobody is asked for him', () => {
  const { ask, asked } = stage();
  const good = `nonce=${nonceOf(1)}`;
  const cases: readonly [what: string, status: number, reply: () => Promise<LocalReply>][] = [
    ['without a nonce', 400, () => ask(localConnection(certificate), '')],
    ['with two', 400, () => ask(localConnection(certificate), `${good}&${good}`)],
    ['with upper case', 400, () => ask(localConnection(certificate), `nonce=${'AB'.repeat(16)}`)],
    ['with half a megabyte', 400, () => ask(localConnection(certificate), `nonce=${'ab'.repeat(250_000)}`)],
    ['with a bad escape', 400, () => ask(localConnection(certificate), 'nonce=%zz')],
    ['with HEAD', 405, () => ask(localConnection(certificate), good, never, 'HEAD')],
    ['with POST', 405, () => ask(localConnection(certificate), good, never, 'POST')],
    ['over TLS 1.2', 400, () => ask(localConnection(certificate, { secureVersion: 'TLSv1.2' }), good)],
    ['when he is gone', 400, () => ask(localConnection(certificate, { secureVersion: undefined }), good)],
    [
      'with a certificate that is served no more',
      421,
      async () => ask(localConnection(await makeCertificate('old.example.com')), good),
    ],
  ];
  for (const [what, status, reply] of cases) {
    test(what, async () => {
      const { status: given, headers, body } = await reply();
      assert.equal(given, status);
      assert.equal(headers['content-type'], 'application/json');
      assert.ok(JSON.parse(Buffer.from(body as Uint8Array).toString()).error.length > 10);
      assert.equal(asked.length, 0);
    });
  }
});

test('those who ask together share one question, those who come meanwhile the next', async () => {
  const { ask, asked, answer } = stage();
  const connections = Array.from({ length: 5 }, () => localConnection(certificate));
  const first = connections.map((connection, index) => ask(connection, `nonce=${nonceOf(index)}`));
  await turns();
  assert.equal(asked.length, 1);
  const second = connections.map((connection, index) => ask(connection, `nonce=${nonceOf(100 + index)}`));
  await turns();
  assert.equal(asked.length, 1, 'one question at a time');
  answer();
  for (const [index, reply] of (await Promise.all(first)).entries())
    verified(reply, nonceOf(index), connections[index]!);
  await turns();
  assert.equal(asked.length, 2);
  answer();
  for (const [index, reply] of (await Promise.all(second)).entries())
    verified(reply, nonceOf(100 + index), connections[index]!);
});

test('so many wait on one connection and in all, and others are told to come again', async () => {
  const { ask, asked, answer } = stage({ mostWaiting: 10, mostOfConnection: 4 });
  const [busy, ...others] = Array.from({ length: 4 }, () => localConnection(certificate)) as [
    LocalConnection,
    ...LocalConnection[],
  ];
  let number = 0;
  const askOn = (connection: LocalConnection) => ask(connection, `nonce=${nonceOf(number++)}`);
  const waiting = Array.from({ length: 4 }, () => askOn(busy));
  const refused = await askOn(busy);
  assert.equal(refused.status, 429);
  assert.match(refused.headers['retry-after']!, /^[1-9]\d*$/);
  waiting.push(...others.slice(0, 2).flatMap((one) => [askOn(one), askOn(one), askOn(one)]));
  assert.equal((await askOn(others[2]!)).status, 429, 'ten wait in all');
  await turns();
  answer();
  for (const { status } of await Promise.all(waiting)) assert.equal(status, 200);
  const again = askOn(busy);
  await turns();
  answer();
  assert.equal((await again).status, 200, 'there is room again');
  assert.equal(asked.length, 2);
});

test('who goes away before he was asked for costs no question, and his place is free at once', async () => {
  const { ask, asked, answer } = stage({ mostWaiting: 2 });
  const connection = localConnection(certificate);
  const gone = new AbortController();
  const left = [1, 2].map((number) => ask(connection, `nonce=${nonceOf(number)}`, gone.signal));
  gone.abort();
  await Promise.all(left);
  await turns();
  assert.equal(asked.length, 0);
  const stays = ask(connection, `nonce=${nonceOf(3)}`);
  await turns();
  // And while the question is open.
  const later = new AbortController();
  const leaves = ask(connection, `nonce=${nonceOf(4)}`, later.signal);
  later.abort();
  await leaves;
  answer();
  verified(await stays, nonceOf(3), connection);
  await turns();
  assert.equal(asked.length, 1);
});

test('without a quote it is 503, at once where there is none and in time where nobody says so', async () => {
  const failing = stage();
  const reply = failing.ask(localConnection(certificate), `nonce=${nonceOf(1)}`);
  await turns();
  failing.answer(true);
  assert.equal((await reply).status, 503);
  const silent = stage({ patienceMs: 30 });
  const { status, headers } = await silent.ask(localConnection(certificate), `nonce=${nonceOf(1)}`);
  assert.equal(status, 503);
  assert.match(headers['retry-after']!, /^[1-9]\d*$/);
  // It was asked once: while that is open, others wait for their time and no more.
  assert.equal((await silent.ask(localConnection(certificate), `nonce=${nonceOf(2)}`)).status, 503);
  assert.equal(silent.asked.length, 1);
});
