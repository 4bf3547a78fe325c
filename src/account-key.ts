// The ACME account's key, derived from the app's own key at the dstack KMS: the same wherever this app runs, and on no disk.

import { createECDH, createPrivateKey, hkdfSync } from 'node:crypto';
import { AccountError } from '../acme/account.ts';
import type { Agent } from '../evidence/agent.ts';

/** The order of P-256's base point (SP 800-186 §3.2.1.3). */
const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
/** FIPS 186-5 §A.4.1 wants at least 64 bits more than the order has; these are 128 more. */
const SCALAR_BYTES = 48;

/**
 * PEM, PKCS#8. Rejects with AgentError if the agent does not answer, and with AccountError `account-key-fleeting` where
 * its keys do not outlive the machine: the next start would find another account, and a CAA pin that shuts it out.
 */
export async function deriveAccountKey(
  agent: Pick<Agent, 'info' | 'deriveKey'>,
  directoryUrl: string,
): Promise<string> {
  const { keyProvider } = await agent.info();
  if (keyProvider?.name !== 'kms') {
    throw new AccountError(
      'account-key-fleeting',
      `ACME_ACCOUNT_KEY=kms needs an app whose keys come from the dstack KMS: this one's key provider is ` +
        `${keyProvider === undefined ? 'not told by the agent' : JSON.stringify(keyProvider.name)}, ` +
        'and a new start could have another account; use ACME_ACCOUNT_KEY=file',
    );
  }
  const { key } = await agent.deriveKey(keyPath(directoryUrl), 'acme-account');
  return p256KeyFrom(key);
}

/** A CA must not be able to tell that an account elsewhere is of the same app: each directory has a key of its own. */
function keyPath(directoryUrl: string): string {
  const { host, pathname, search } = new URL(directoryUrl);
  return `dstack-ingress/acme-account/v1/${host}${pathname}${search}`;
}

/**
 * A private key from 32 secret bytes, another one for each use. They are stretched by HKDF-SHA-256 (RFC 5869) and become the scalar as FIPS 186-5
 * §A.2.1 and §A.4.1 say: d = (c mod (n - 1)) + 1, with so many bits that the bias of the remainder does not matter.
 */
export function p256KeyFrom(secret: Uint8Array, use = 'acme-account'): string {
  const bits = Buffer.from(
    hkdfSync('sha256', secret, new Uint8Array(), `dstack-ingress ${use} P-256 v1`, SCALAR_BYTES),
  );
  const scalar = (BigInt(`0x${bits.toString('hex')}`) % (ORDER - 1n)) + 1n;
  const d = Buffer.from(scalar.toString(16).padStart(64, '0'), 'hex');
  const pair = createECDH('prime256v1');
  pair.setPrivateKey(d);
  const point = pair.getPublicKey();
  const jwk = {
    kty: 'EC',
    crv: 'P-256',
    d: d.toString('base64url'),
    x: point.subarray(1, 33).toString('base64url'),
    y: point.subarray(33).toString('base64url'),
  };
  return createPrivateKey({ key: jwk, format: 'jwk' }).export({ type: 'pkcs8', format: 'pem' }).toString();
}
