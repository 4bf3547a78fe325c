// The certificate that a client has shown in its handshake, as rules see it: whether it is good, and whose it is.

import type { DetailedPeerCertificate, TLSSocket } from 'node:tls';
import type { ClientCertificate } from '../rules/compiled.ts';
import type { ClientConnection } from './context.ts';

const known = new WeakMap<ClientConnection, ClientCertificate>();

/** Undefined: it has shown none, or was not asked. */
export function clientCertificateOf(client: ClientConnection): ClientCertificate | undefined {
  const before = known.get(client);
  if (before !== undefined) return before;
  const { socket } = client;
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return undefined;
  const fault = faultOf(client);
  const shown: ClientCertificate = {
    fault,
    verify:
      fault === undefined
        ? 'SUCCESS'
        : `FAILED:${reasons[fault] ?? fault.toLowerCase().replaceAll('_', ' ')}`,
    subject: distinguishedName(certificate.subject),
    issuer: distinguishedName(certificate.issuer),
    serial: certificate.serialNumber,
    fingerprint: certificate.fingerprint.replaceAll(':', '').toLowerCase(),
    certificate: certificate.toString(),
    validFrom: certificate.validFrom,
    validTo: certificate.validTo,
  };
  known.set(client, shown);
  return shown;
}

/** OpenSSL's names of what is wrong with a certificate, and its words for the more frequent ones. */
const reasons: Readonly<Record<string, string>> = {
  __proto__: null as never,
  CERT_CHAIN_TOO_LONG: 'certificate chain too long',
  CERT_HAS_EXPIRED: 'certificate has expired',
  CERT_NOT_YET_VALID: 'certificate is not yet valid',
  CERT_REVOKED: 'certificate revoked',
  CERT_UNTRUSTED: 'certificate not trusted',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'self-signed certificate',
  INVALID_PURPOSE: 'unsuitable certificate purpose',
  SELF_SIGNED_CERT_IN_CHAIN: 'self-signed certificate in certificate chain',
  UNABLE_TO_GET_CRL: 'unable to get certificate CRL',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'unable to get local issuer certificate',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'unable to verify the first certificate',
};

function faultOf({ socket, clientAuth }: ClientConnection): string | undefined {
  // A resumed session tells what was shown once, to whom is not known.
  if (clientAuth === undefined || socket.isSessionReused()) return 'NOT_SHOWN_IN_THIS_HANDSHAKE';
  if (!socket.authorized) return String(socket.authorizationError ?? 'CERT_UNTRUSTED');
  if (clientAuth.depth !== undefined && intermediates(socket) > clientAuth.depth)
    return 'CERT_CHAIN_TOO_LONG';
  return undefined;
}

/** Authorities between the certificate and the one that is trusted, which signs itself: Node may tell it or not. */
function intermediates(socket: TLSSocket): number {
  const seen = new Set<string>();
  let one: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true);
  while (one?.fingerprint256 !== undefined && !seen.has(one.fingerprint256)) {
    seen.add(one.fingerprint256);
    one = one.issuerCertificate;
  }
  const endsWithItself = one?.fingerprint256 !== undefined;
  return Math.max(0, seen.size - (endsWithItself ? 2 : 1));
}

/** RFC 2253, as nginx has it: the last part first, and bytes beyond ASCII escaped, which makes it a header's value. */
function distinguishedName(lines: string): string {
  return lines
    .split('\n')
    .map((part) => part.replaceAll(' + ', '+'))
    .reverse()
    .join(',')
    .replaceAll(/[^\x20-\x7e]/gu, (character) =>
      [...Buffer.from(character)]
        .map((byte) => `\\${byte.toString(16).toUpperCase().padStart(2, '0')}`)
        .join(''),
    );
}
