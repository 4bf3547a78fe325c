// Whom we trust when we speak TLS to an upstream: Node's and the system's roots, and the CA given.

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
