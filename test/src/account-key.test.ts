// The derived account key: only where it lasts, the same every time, another for every CA.

import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { test } from 'node:test';
import type { AgentInfo } from '../../evidence/agent.ts';
import { deriveAccountKey, p256KeyFrom } from '../../src/account-key.ts';

const directoryUrl = 'https://ca.example/directory';

function agentOf(keyProvider: AgentInfo['keyProvider']) {
  const asked: string[] = [];
  return {
    asked,
    info: async () => ({ appId: '', instanceId: '', appName: '', ...(keyProvider && { keyProvider }) }),
    async deriveKey(path: string, purpose: string) {
      asked.push(`${purpose} ${path}`);
      return { key: Buffer.alloc(32, asked.length), signatureChain: [] };
    },
  };
}

for (const name of ['local-sgx', 'tpm', 'none', 'simulated-kms', undefined]) {
  test(`keys of ${name ?? 'an agent that does not say'} do not last: none is derived, and the error says what to do`, async () => {
    const agent = agentOf(name === undefined ? undefined : { name, id: '' });
    await assert.rejects(deriveAccountKey(agent, directoryUrl), {
      code: 'account-key-fleeting',
      message: /use ACME_ACCOUNT_KEY=file/,
    });
    assert.deepEqual(agent.asked, []);
  });
}

test('each ACME directory has a key of its own', async () => {
  const agent = agentOf({ name: 'kms', id: '' });
  const keys = [
    await deriveAccountKey(agent, directoryUrl),
    await deriveAccountKey(agent, 'https://staging.ca.example:14000/dir?x=1'),
  ];
  assert.notEqual(keys[0], keys[1]);
  assert.deepEqual(agent.asked, [
    'acme-account dstack-ingress/acme-account/v1/ca.example/directory',
    'acme-account dstack-ingress/acme-account/v1/staging.ca.example:14000/dir?x=1',
  ]);
});

test('the construction is fixed: the same secret gives the P-256 key that was computed by hand', () => {
  const pem = p256KeyFrom(Buffer.from(Array.from({ length: 32 }, (_, i) => i)));
  const { d, x } = createPrivateKey(pem).export({ format: 'jwk' });
  const hex = (text: string | undefined) => Buffer.from(text!, 'base64url').toString('hex');
  assert.equal(hex(d), '1c165fadff86898aa7f9feab0bf08160aacb1b1e4a86ac3c6218a6d331874444');
  assert.equal(hex(x), '9f7bde838e6dbb4a553491afb3bb791afde90fbec4b45b18fd64bcc291aedca9');
});

test('every secret gives a key that OpenSSL takes', () => {
  for (const byte of [0, 1, 0x7f, 0xff]) {
    assert.equal(createPrivateKey(p256KeyFrom(Buffer.alloc(32, byte))).asymmetricKeyType, 'ec');
  }
});
