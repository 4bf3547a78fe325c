// Claims of a connection, paths to the root over them, and the proof of the key, each computed here once more by hand.

import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto';
import { describe, test } from 'node:test';
import {
  attestAnswerSchema,
  attestLeaf,
  attestNode,
  attestNonceSchema,
  attestReportData,
  foldPath,
  signKeyProof,
  spkiDigest,
  verifyKeyProof,
} from '../../evidence/attest-claims.ts';
import { makeCertificate } from '../support/certificates.ts';

const claims = { nonce: 'ab'.repeat(16), spki: '01'.repeat(32), exporter: '02'.repeat(32) };

const sha256 = (...parts: (string | Uint8Array)[]) =>
  createHash('sha256')
    .update(Buffer.concat(parts.map((part) => Buffer.from(part))))
    .digest();

const der = (key: KeyObject) => key.export({ type: 'spki', format: 'der' });

test('a nonce has 16 to 64 bytes of lower-case hex', () => {
  const taken = (nonce: unknown) => attestNonceSchema.safeParse(nonce).success;
  for (const good of ['0'.repeat(32), 'ab'.repeat(64)]) assert.ok(taken(good));
  for (const bad of [
    '',
    '0'.repeat(30),
    '0'.repeat(33),
    'AB'.repeat(16),
    'ab'.repeat(65),
    'xy'.repeat(16),
    undefined,
  ])
    assert.ok(!taken(bad), String(bad));
  assert.ok(!taken(`${'ab'.repeat(16)}\n`));
});

test('a leaf is the hash of the claims as canonical JSON, marked as a leaf', () => {
  const text =
    `{"exporter":"${claims.exporter}","nonce":"${claims.nonce}","spki":"${claims.spki}",` +
    '"type":"dstack-ingress/attest-leaf/v1"}';
  assert.deepEqual(attestLeaf(claims), sha256('\0', text));
});

test('each claim changes the leaf', () => {
  const others = [
    { ...claims, nonce: 'ac'.repeat(16) },
    { ...claims, spki: '03'.repeat(32) },
    { ...claims, exporter: '03'.repeat(32) },
  ];
  const leaves = [claims, ...others].map((one) => attestLeaf(one).toString('hex'));
  assert.equal(new Set(leaves).size, 4);
});

test('a path leads to the root from its own leaf alone, and sides matter', () => {
  const [a, b, c] = ['a', 'b', 'c'].map((each) => sha256(each)) as [Buffer, Buffer, Buffer];
  const ab = sha256('\x01', a, b);
  assert.deepEqual(attestNode(a, b), ab);
  const root = sha256('\x01', ab, c);
  const hex = (hash: Buffer) => hash.toString('hex');
  const path = [
    { side: 'left', hash: hex(a) },
    { side: 'right', hash: hex(c) },
  ] as const;
  assert.deepEqual(foldPath(b, path), root);
  assert.notDeepEqual(foldPath(a, path), root);
  assert.notDeepEqual(foldPath(b, [{ side: 'right', hash: hex(a) }, path[1]]), root);
  assert.deepEqual(foldPath(c, []), c);
});

test('the report data of a root is a whole SHA-512: no bundle has it', () => {
  const root = sha256('root');
  const expected = createHash('sha512').update('dstack-ingress/attest/v1\n').update(root).digest();
  assert.deepEqual(attestReportData(root), expected);
  assert.notDeepEqual(expected.subarray(32), Buffer.alloc(32));
});

test('the digest of a key is that of its DER, as a certificate has it', async () => {
  const { chain } = await makeCertificate('app.example.com');
  const key = new X509Certificate(chain).publicKey;
  assert.equal(spkiDigest(key), sha256(der(key)).toString('hex'));
});

describe('the proof of the key', () => {
  const leaf = attestLeaf(claims);
  const pairs = {
    'P-256': generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    'P-384': generateKeyPairSync('ec', { namedCurve: 'P-384' }),
    RSA: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  };
  for (const [kind, { privateKey, publicKey }] of Object.entries(pairs)) {
    test(`of ${kind} holds for its leaf and its key, and for no other`, async () => {
      const signature = await signKeyProof(leaf, privateKey);
      assert.ok(verifyKeyProof(leaf, der(publicKey), signature));
      assert.ok(
        !verifyKeyProof(attestLeaf({ ...claims, nonce: 'cd'.repeat(16) }), der(publicKey), signature),
      );
      const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey;
      assert.ok(!verifyKeyProof(leaf, der(other), signature));
      assert.ok(!verifyKeyProof(leaf, der(publicKey), signature.subarray(1)));
    });
  }

  test('does not hold for what is no key, or a key of another kind', () => {
    const { publicKey } = generateKeyPairSync('ed25519');
    for (const spki of [Buffer.alloc(0), Buffer.from('not a key'), der(publicKey)])
      assert.ok(!verifyKeyProof(leaf, spki, Buffer.alloc(70)));
  });
});

test('an answer with a longer path, other case or wrong lengths is no answer', () => {
  const answer = {
    version: 1,
    ...claims,
    path: Array.from({ length: 32 }, () => ({ side: 'left', hash: 'aa'.repeat(32) })),
    root: 'bb'.repeat(32),
    signature: 'cc',
    quote: 'dd',
    event_log: '[]',
    report_data: 'ee'.repeat(64),
    vm_config: '{}',
  };
  const taken = (change: object) => attestAnswerSchema.safeParse({ ...answer, ...change }).success;
  assert.ok(taken({}));
  assert.ok(taken({ vm_config: undefined, later: 1 }));
  assert.ok(!taken({ path: [...answer.path, answer.path[0]] }));
  assert.ok(!taken({ path: [{ side: 'up', hash: 'aa'.repeat(32) }] }));
  for (const wrong of [{ version: 2 }, { root: 'BB'.repeat(32) }, { exporter: 'aa' }, { signature: '' }])
    assert.ok(!taken(wrong), JSON.stringify(wrong));
});
