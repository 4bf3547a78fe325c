// The CA's look at a tls-alpn-01 challenge: a handshake that must show the right certificate (RFC 8737 §3).

import 'reflect-metadata';
import { createHash } from 'node:crypto';
import { connect } from 'node:tls';
import { SubjectAlternativeNameExtension, X509Certificate } from '@peculiar/x509';
import { AcmeRefusal } from './acme-refusal.ts';

const ALPN = 'acme-tls/1';
/** id-pe-acmeIdentifier, RFC 8737 §6.1. */
const ACME_IDENTIFIER = '1.3.6.1.5.5.7.1.31';
const TIMEOUT_MS = 10_000;

export interface ChallengeToValidate {
  readonly domain: string;
  readonly keyAuthorization: string;
  /** On the loopback address: the demo's CA never leaves this machine. */
  readonly port: number;
}

/** Resolves if the challenge is met. Rejects with AcmeRefusal that says what was seen instead. */
export async function validateTlsAlpn(challenge: ChallengeToValidate): Promise<void> {
  const certificate = new X509Certificate(await certificateShown(challenge));
  const names = certificate.getExtension(SubjectAlternativeNameExtension)?.names.toJSON() ?? [];
  // §3: the certificate must be for this name and no other.
  if (names.length !== 1 || names[0]!.type !== 'dns' || names[0]!.value.toLowerCase() !== challenge.domain) {
    throw refusal(challenge, 'the challenge certificate must name the domain and nothing else');
  }
  const identifier = certificate.getExtension(ACME_IDENTIFIER);
  if (identifier?.critical !== true) {
    throw refusal(challenge, 'the challenge certificate has no critical acmeIdentifier extension');
  }
  const digest = createHash('sha256').update(challenge.keyAuthorization).digest();
  // The extension's value is a DER OCTET STRING of 32 bytes.
  const wanted = Buffer.concat([Buffer.from([0x04, 0x20]), digest]);
  if (!wanted.equals(Buffer.from(identifier.value))) {
    throw refusal(challenge, 'the challenge certificate is for another key authorization');
  }
}

/** In DER. */
function certificateShown(challenge: ChallengeToValidate): Promise<Uint8Array<ArrayBuffer>> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: '127.0.0.1',
      port: challenge.port,
      servername: challenge.domain,
      ALPNProtocols: [ALPN],
      // §3: the challenge certificate is self-signed; what it holds is the proof.
      rejectUnauthorized: false,
    });
    socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error('no answer')));
    socket.once('error', (cause) => {
      reject(
        new AcmeRefusal(
          'connection',
          `${challenge.domain}: no handshake on port ${challenge.port}: ${cause.message}`,
        ),
      );
    });
    socket.once('secureConnect', () => {
      const agreed = socket.alpnProtocol;
      const shown = socket.getPeerCertificate().raw;
      socket.destroy();
      if (agreed !== ALPN) return reject(refusal(challenge, `the server did not agree to ${ALPN}`));
      resolve(new Uint8Array(shown));
    });
  });
}

function refusal(challenge: ChallengeToValidate, detail: string): AcmeRefusal {
  return new AcmeRefusal('unauthorized', `${challenge.domain}: ${detail}`, 403);
}
