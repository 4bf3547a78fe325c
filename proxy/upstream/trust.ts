// The roots that are trusted for TLS to upstreams: Node's, the system's, and the CA given.

import { isIP } from 'node:net';
import * as tls from 'node:tls';
import type { TlsToUpstream } from '../rules/routes.ts';

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

export interface TrustOptions
  extends Pick<tls.ConnectionOptions, 'rejectUnauthorized' | 'checkServerIdentity'> {
  readonly secureContext: tls.SecureContext;
  /** Empty: none is sent. */
  readonly servername: string;
}

/** What it takes to speak TLS to a host as its settings want it; `usual`: where they say nothing. */
export function trustFor(
  host: string,
  settings: TlsToUpstream | undefined,
  usual: () => tls.SecureContext,
): TrustOptions {
  // RFC 6066 §3: an IP literal is not sent as a server name; the certificate is still checked against it.
  if (settings === undefined) return { secureContext: usual(), servername: isIP(host) === 0 ? host : '' };
  const { verify, name = host, sendName = true } = settings;
  return {
    secureContext: contextOf(settings, usual),
    rejectUnauthorized: verify,
    servername: sendName && isIP(name) === 0 ? name : '',
    checkServerIdentity: (_, certificate) => tls.checkServerIdentity(name, certificate),
  };
}

const contexts = new WeakMap<TlsToUpstream, tls.SecureContext>();

function contextOf(settings: TlsToUpstream, usual: () => tls.SecureContext): tls.SecureContext {
  const { authorities, certificate, key } = settings;
  if (authorities === undefined && certificate === undefined) return usual();
  let context = contexts.get(settings);
  if (context === undefined) {
    context = tls.createSecureContext({
      minVersion: 'TLSv1.2',
      ca: authorities ?? [...tls.getCACertificates('default'), ...tls.getCACertificates('system')],
      ...(certificate === undefined ? {} : { cert: certificate }),
      ...(key === undefined ? {} : { key }),
    });
    contexts.set(settings, context);
  }
  return context;
}
