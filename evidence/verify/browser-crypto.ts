// The part of node:crypto that evidence/ needs, for a browser: digests at once, where WebCrypto has them only later.

import { sha256, sha384, sha512 } from '@noble/hashes/sha2.js';

const algorithms = { sha256, sha384, sha512 } as const;

export function createHash(name: keyof typeof algorithms) {
  const hash = algorithms[name].create();
  const chain = {
    update(data: Uint8Array | string) {
      hash.update(typeof data === 'string' ? new TextEncoder().encode(data) : data);
      return chain;
    },
    /** With an encoding a text, as `hex`; without one bytes. */
    digest(encoding?: BufferEncoding) {
      const bytes = Buffer.from(hash.digest());
      return encoding === undefined ? bytes : bytes.toString(encoding);
    },
  };
  return chain;
}
