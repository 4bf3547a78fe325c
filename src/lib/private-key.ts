// Whether a text is a private key that can sign; it never says why not, for the reason may quote the key.

import { createPrivateKey } from 'node:crypto';

export function isPrivateKey(pem: string): boolean {
  try {
    createPrivateKey(pem);
    return true;
  } catch {
    return false;
  }
}
