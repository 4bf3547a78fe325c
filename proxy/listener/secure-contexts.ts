// Which certificate a handshake gets: by its SNI, exact then wildcard; swapped whole while connections live.

import { X509Certificate } from 'node:crypto';
import {
  createSecureContext,
  type SecureContext,
  type SecureContextOptions,
  type TLSSocket,
  type TlsOptions,
} from 'node:tls';
import { type ChallengeCertificate, splitChain } from '../../src/lib/certificate.ts';
import { serverNameOf } from '../http1/authority.ts';
import type { ClientAuth } from '../rules/model.ts';
import { coveredBy } from '../rules/routes.ts';
import { askForCertificate } from '../socket/insides/client-certificates.ts';

export interface ServedCertificate {
  /** Lower case, as in the certificate. */
  readonly names: readonly string[];
  /** PEM, leaf first. */
  readonly chain: string;
  /** PEM. Secret. */
  readonly key: string;
}

export type ServedCertificateErrorCode = 'certificate-refused';

export class ServedCertificateError extends Error {
  override readonly name = 'ServedCertificateError';
  readonly code: ServedCertificateErrorCode = 'certificate-refused';
}

export interface SecureContexts {
  /** Loads all, then replaces all. Throws ServedCertificateError, and keeps what was there, if one does not load. */
  setCertificates(list: readonly ServedCertificate[]): void;
  /** What a tls-alpn-01 validation of `domain` (RFC 8737) is shown; undefined takes it away. */
  setChallenge(domain: string, certificate: ChallengeCertificate | undefined): void;
  /** The names of the certificate that this SNI is served; undefined: none. */
  namesFor(serverName: string): readonly string[] | undefined;
  /** What the handshake of this socket asked of the client's certificate; undefined: nothing. */
  clientAuthOf(socket: TLSSocket): ClientAuth | undefined;
  /** For tls.createServer(): callbacks and the pinned protocol settings. */
  readonly serverOptions: TlsOptions;
}

/** RFC 8737 §6.2. */
export const ACME_TLS = 'acme-tls/1';

/** Always accepted: a client that knows nothing newer can read evidence, or is told which protocol is needed. */
const HTTP1 = ['http/1.1', 'http/1.0'];

// AEAD with forward secrecy only: Node's own TLS 1.2 list still has CBC, CCM and ARIA.
const CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');

/** The hybrid comes first: traffic that is recorded today must stay unreadable to quantum computers. */
const GROUPS = 'X25519MLKEM768:X25519:P-256:P-384';

interface Entry {
  readonly names: readonly string[];
  readonly certificate: ServedCertificate;
  readonly context: SecureContext;
  /** Made when such a handshake comes. */
  readonly asking: WeakMap<ClientAuth, SecureContext>;
}

/** A handshake that began with `acme-tls/1`, and the certificate for it. */
type Handshake = TLSSocket & {
  [askedFor]?: ClientAuth;
  [challengeOf]?: SecureContext | typeof elsewhere;
  setKeyCert(context: SecureContext): void;
};
type Answered = (error: Error | null, context?: SecureContext) => void;

const askedFor = Symbol('what the client is asked to show');
const challengeOf = Symbol('challenge');
const elsewhere = Symbol('perhaps another instance has the challenge');

export interface SecureContextsOptions {
  /** In order of preference. A client that knows only HTTP/1 is served over it, even if it is not in this list. */
  readonly alpn: readonly string[];
  /** Whether this name's clients may choose a protocol that is not in `alpn`; otherwise the handshake fails. */
  readonly takesAnyProtocol: (serverName: string) => boolean;
  /** What clients of this name are to show. */
  readonly clientAuthFor?: (serverName: string) => ClientAuth | undefined;
  /**
   * Asked when a validation begins for a name without a challenge of our own: another instance may have placed the
   * order. TLS 1.3 only, where the certificate is chosen after the protocol.
   */
  readonly findChallenge?: ((domain: string) => Promise<ChallengeCertificate | undefined>) | undefined;
}

export function createSecureContexts(options: SecureContextsOptions): SecureContexts {
  const { alpn, takesAnyProtocol, findChallenge } = options;
  let byName = new Map<string, Entry>();
  const challenges = new Map<string, SecureContext>();

  const find = (serverName: string): Entry | undefined =>
    byName.get(serverName) ?? byName.get(`*${serverName.slice(serverName.indexOf('.'))}`);

  return {
    setCertificates(list) {
      const next = new Map<string, Entry>();
      for (const certificate of list) {
        const { names } = certificate;
        const entry = { names, certificate, context: load(certificate), asking: new WeakMap() };
        for (const name of names) if (!next.has(name)) next.set(name, entry);
      }
      byName = next;
    },
    setChallenge(domain, certificate) {
      if (certificate === undefined) challenges.delete(domain);
      else challenges.set(domain, load({ names: [domain], chain: certificate.cert, key: certificate.key }));
    },
    namesFor: (serverName) => find(serverNameOf(serverName))?.names,
    clientAuthOf: (socket) => (socket as Handshake)[askedFor],
    serverOptions: {
      minVersion: 'TLSv1.2',
      ciphers: CIPHERS,
      honorCipherOrder: true,
      ecdhCurve: GROUPS,
      SNICallback,
      ALPNCallback,
    } as TlsOptions,
  };

  // OpenSSL asks for the protocol first in TLS 1.3 and for the certificate first in TLS 1.2; an SNICallback's answer
  // overrides setKeyCert(). So the challenge is left on the socket for the callback that comes second.
  function ALPNCallback(
    this: Handshake,
    { servername, protocols }: { servername: string; protocols: string[] },
  ): string | undefined {
    const name = serverNameOf(servername);
    if (protocols.includes(ACME_TLS)) {
      const challenge = challenges.get(name);
      // RFC 8737 §3: without a challenge under way the protocol is not spoken.
      if (challenge === undefined && findChallenge === undefined) return undefined;
      this[challengeOf] = challenge ?? elsewhere;
      if (challenge === undefined) return ACME_TLS;
      this.setKeyCert(challenge);
      return ACME_TLS;
    }
    const agreed = alpn.find((protocol) => protocols.includes(protocol));
    if (agreed !== undefined) return agreed;
    if (takesAnyProtocol(name)) return protocols[0];
    // Node cannot continue without a protocol: undefined makes an alert (RFC 7301 §3.2).
    return HTTP1.find((protocol) => protocols.includes(protocol));
  }

  function SNICallback(this: Handshake, serverName: string, done: Answered) {
    const name = serverNameOf(serverName);
    const challenge = this[challengeOf];
    // Without a context OpenSSL has no certificate, and ends the handshake with an alert.
    if (challenge === elsewhere) return askElsewhere(name, done);
    if (challenge !== undefined) return done(null, challenge);
    const entry = find(name);
    const clientAuth = entry && options.clientAuthFor?.(name);
    if (clientAuth === undefined) done(null, entry?.context ?? challenges.get(name));
    else answerAsking(this, entry!, clientAuth, done);
  }

  function askElsewhere(name: string, done: Answered): void {
    findChallenge!(name).then(
      (found) => done(null, found && load({ names: [name], chain: found.cert, key: found.key })),
      (error: Error) => done(error),
    );
  }
}

/** An SNICallback must not throw. */
function answerAsking(socket: Handshake, entry: Entry, clientAuth: ClientAuth, done: Answered) {
  let context: SecureContext;
  try {
    context = askingContext(entry, clientAuth);
  } catch (error) {
    return done(error as Error);
  }
  askForCertificate(socket);
  socket[askedFor] = clientAuth;
  done(null, context);
}

/** The authorities are said to the client, which chooses a certificate by them, and judge what it shows. */
function askingContext({ certificate, asking }: Entry, clientAuth: ClientAuth): SecureContext {
  let context = asking.get(clientAuth);
  if (context === undefined) {
    const { authorities, crl } = clientAuth;
    const ca = splitChain(authorities);
    context = createSecureContext({
      ...contextOptions(certificate),
      ca,
      ...(crl === undefined ? {} : { crl }),
    });
    asking.set(clientAuth, context);
  }
  return context;
}

function contextOptions({ chain, key }: ServedCertificate): SecureContextOptions {
  return {
    cert: chain,
    key,
    minVersion: 'TLSv1.2',
    ciphers: CIPHERS,
    honorCipherOrder: true,
    ecdhCurve: GROUPS,
  };
}

function load(certificate: ServedCertificate): SecureContext {
  const subject = certificate.names.join(', ');
  const refuse = (why: string, cause?: unknown): never => {
    throw new ServedCertificateError(`the certificate for ${subject} cannot be served: ${why}`, { cause });
  };
  try {
    const leaf = new X509Certificate(certificate.chain);
    const covered = (leaf.subjectAltName ?? '')
      .split(', ')
      .map((entry) => entry.replace(/^DNS:/, '').toLowerCase());
    const missing = certificate.names.find((name) => !coveredBy(covered, name) && !covered.includes(name));
    if (missing !== undefined) return refuse(`it does not name ${missing}`);
    // This also checks that the key belongs to the certificate.
    return createSecureContext(contextOptions(certificate));
  } catch (error) {
    if (error instanceof ServedCertificateError) throw error;
    // OpenSSL's messages say what is wrong, and never contain the key.
    return refuse((error as Error).message);
  }
}
