// The roots that are trusted for TLS to upstreams: Node's, the system's, and the CA given.

import * as tls from 'node:tls';

/** Made when it is first asked for: most upstreams speak no TLS. `upstreamCa`: PEM. */
export function createTrustOfUpstreams(upstreamCa: string | undefined): () => tls.SecureContext {
  let context: tls.SecureContext | undefined;
  return () => {
    context ??= tls.createSecureContext({
      minVersion: 'TLSv1.2',
      ca: [
        ...tls.getCACertificates('default'),
        ...tls.getCACertificates('system'),
        ...(upstreamCa === undefined ? [] : [upstreamCa]),
      ],
    });
    return context;
  };
}
