// Connections to a host that has been verified, and to nobody else: for node:https, for undici, and as bare sockets.

import { constants } from 'node:crypto';
import { Agent as HttpsAgent } from 'node:https';
import { isIP } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import type { Dispatcher } from 'undici';
import { CodedError } from '../../src/lib/coded-error.ts';
import type { Check, CheckId, Report } from './checks.ts';
import type { Expected } from './expected.ts';
import { ownConnection, type Seen } from './seen.ts';

export class NotVerifiedError extends CodedError<'not-verified' | 'another-host' | 'another-key'> {
  override readonly name = 'NotVerifiedError';
}

export interface VerifiedHost {
  readonly report: JudgedHost;
  /** Accept a host of which nothing failed, and all that its key hangs on ran: see lackingProof. Default: false. */
  readonly acceptUnknown?: boolean;
}

type JudgedHost = Report & { readonly seen: Seen; readonly expected: Expected };

interface Pin {
  readonly host: string;
  readonly port: number;
  readonly spki: Buffer;
}

/** Throws NotVerifiedError ('not-verified') where proof is lacking. */
function pinOf({ report, acceptUnknown = false }: VerifiedHost): Pin {
  const { seen } = report;
  const connection = ownConnection(seen);
  const lacking = lackingProof(report, acceptUnknown).map(({ id }) => id);
  if (lacking.length > 0 || connection === undefined)
    throw new NotVerifiedError('not-verified', `${seen.host} is not verified: ${lacking.join(', ')}`);
  return { host: seen.host, port: seen.port, spki: connection.spki };
}

/** Without one of these nothing ties the key on the wire to a machine. */
const PROOF: readonly CheckId[] = [
  'tls.chain',
  'tls.pinned',
  'bundle.fetch',
  'bundle.format',
  'bundle.sums',
  'bundle.leaf',
  'quote.collateral',
  'quote.signature',
  'quote.revocation',
  'quote.tcb',
  'quote.attributes',
  'quote.binding',
  'log.replay',
  'log.system',
];

/**
 * What stands between a host and trust in its key: every check that did not pass. With `acceptUnknown` those that failed, and
 * those that could not be run though the key hangs on them or something was expected of them: a host that withholds its
 * evidence fails nothing, and proves nothing.
 */
export function lackingProof({ checks, expected }: JudgedHost, acceptUnknown: boolean): Check[] {
  const needed = new Set<CheckId>(PROOF);
  if (expected.appId !== undefined) needed.add('app.id');
  if (expected.composeHash !== undefined) needed.add('app.compose');
  if (expected.systems !== undefined) needed.add('os.image');
  if (expected.keyProviders !== undefined) needed.add('key.provider');
  if (expected.caa?.account !== undefined) needed.add('caa.account');
  if (expected.caa?.methods !== undefined) needed.add('caa.method');
  if (expected.ct?.sources !== undefined) needed.add('ct.sources');
  const mayBeOpen = (id: CheckId) => acceptUnknown && !needed.has(id);
  return checks.filter(({ id, verdict }) => verdict === 'fail' || (verdict === 'not-run' && !mayBeOpen(id)));
}

export type AlpnProtocol = 'http/1.1' | 'h2';

export interface VerifiedConnector {
  /** DER. */
  readonly spki: Buffer;
  /** A connection of its own, on which nothing has been sent yet. Rejects with NotVerifiedError if the key is another. */
  connect(protocol: AlpnProtocol): Promise<TLSSocket>;
}

/** For protocols that neither node:https nor undici speaks. */
export function createVerifiedConnector(verified: VerifiedHost): VerifiedConnector {
  const pin = pinOf(verified);
  return { spki: pin.spki, connect: (protocol) => connectPinned(pin, pin, protocol) };
}

/**
 * Requests over it reach the key that was verified, or fail with NotVerifiedError before a byte of them has left. A key that
 * has changed wants another verification.
 */
export function createVerifiedAgent(verified: VerifiedHost): HttpsAgent {
  const pin = pinOf(verified);
  // A resumed session would not show a certificate.
  const agent = new HttpsAgent({ keepAlive: true, maxCachedSessions: 0 });
  agent.createConnection = (options, done) => {
    const { host = '', port = 443 } = options as { host?: string; port?: number | string };
    connectPinned(pin, { host, port: Number(port) }).then(
      (socket) => done?.(null, socket),
      (error: Error) => done?.(error, undefined as never),
    );
    return undefined;
  };
  return agent;
}

/** The same for undici and for `fetch`. */
export async function createVerifiedDispatcher(verified: VerifiedHost): Promise<Dispatcher> {
  const pin = pinOf(verified);
  const { Agent } = await import('../../src/lib/undici.ts');
  return new Agent({
    connect: ({ hostname, port }, done) => {
      connectPinned(pin, { host: hostname, port: Number(port || 443) }).then(
        (socket) => done(null, socket),
        (error: Error) => done(error, null),
      );
    },
  });
}

const CONNECT_MS = 15_000;

function connectPinned(
  pin: Pin,
  to: { readonly host: string; readonly port: number },
  protocol: AlpnProtocol = 'http/1.1',
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    if (to.host.replace(/^\[|\]$/g, '') !== pin.host || to.port !== pin.port) {
      reject(new NotVerifiedError('another-host', `${to.host}:${to.port} is not the host that was verified`));
      return;
    }
    const socket = connect({
      host: pin.host,
      port: pin.port,
      ...(isIP(pin.host) === 0 && { servername: pin.host }),
      ALPNProtocols: [protocol],
      minVersion: 'TLSv1.2',
      // A TLS 1.2 host could show another key in a second handshake, after this one was looked at.
      secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
      // The key is what was verified, its chain included; the name need not be looked at again.
      rejectUnauthorized: false,
    });
    const giveUp = () =>
      socket.destroy(new Error(`${pin.host} did not answer within ${CONNECT_MS / 1000} s`));
    const timer = setTimeout(giveUp, CONNECT_MS);
    socket.once('close', () => clearTimeout(timer));
    socket.once('error', reject);
    socket.once('secureConnect', () => {
      clearTimeout(timer);
      const spki = socket.getPeerX509Certificate()?.publicKey.export({ type: 'spki', format: 'der' });
      if (spki?.equals(pin.spki)) {
        socket.off('error', reject);
        resolve(socket);
        return;
      }
      socket.destroy();
      reject(
        new NotVerifiedError('another-key', `${pin.host} has another key than the one that was verified`),
      );
    });
  });
}
