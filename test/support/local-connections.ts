// Connections as a handler of our own sees them, for tests that need some without a socket.

import { randomBytes } from 'node:crypto';
import type { Certificate } from '../../src/lib/certificate.ts';
import { splitChain } from '../../src/lib/certificate.ts';
import type { LocalConnection } from '../../src/lib/local-handler.ts';

/** Each has keying material of its own. */
export function localConnection(
  certificate: Certificate,
  change: Partial<LocalConnection> = {},
): LocalConnection {
  const material = randomBytes(64);
  return {
    certificate: { pem: splitChain(certificate.chain)[0]!, fingerprint: certificate.sha256 },
    serverName: certificate.names[0]!,
    clientAddress: '127.0.0.1',
    secureVersion: 'TLSv1.3',
    exportKeyingMaterial: (length) => material.subarray(0, length),
    ...change,
  };
}
