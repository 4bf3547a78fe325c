// Connections to a host that has been verified, and to nobody else: for node:https and for undici.

import { Agent as HttpsAgent } from 'node:https';
import { isIP } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import type { Dispatcher } from 'undici';
import { CodedError } from '../../src/lib/coded-error.ts';
import type { Report } from './checks.ts';
import { ownConnection, type Seen } from './seen.ts';

export class NotVerifiedError extends CodedError<'not-verified' | 'another-host' | 'another-key'> {
  override readonly name = 'NotVerifiedError';
}

export interface VerifiedHost {
  readonly report: Report & { readonly seen: Seen };
  /** Accept a host of which nothing failed, though not everything could be run. Default: false. */
  readonly acceptUnknown?: boolean;
}

interface Pin {
  readonly host: string;
  readonly port: number;
  readonly spki: Buffer;
}

/** Throws NotVerifiedError ('not-verified') unless the report allows it. */
function pinOf({ report, acceptUnknown = false }: VerifiedHost): Pin {
  const { verdict, seen } = report;
  const connection = ownConnection(seen);
  if (verdict === 'fail' || (verdict === 'unknown' && !acceptUnknown) || connection === undefined)
    throw new NotVerifiedError('not-verified', `${seen.host} is not verified: the verdict is ${verdict}`);
  return { host: seen.host, port: seen.port, spki: connection.spki };
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

function connectPinned(pin: Pin, to: { readonly host: string; readonly port: number }): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    if (to.host.replace(/^\[|\]$/g, '') !== pin.host || to.port !== pin.port) {
      reject(new NotVerifiedError('another-host', `${to.host}:${to.port} is not the host that was verified`));
      return;
    }
    const socket = connect({
      host: pin.host,
      port: pin.port,
      ...(isIP(pin.host) === 0 && { servername: pin.host }),
      ALPNProtocols: ['http/1.1'],
      minVersion: 'TLSv1.2',
      // The key is what was verified, its chain included; the name need not be looked at again.
      rejectUnauthorized: false,
    });
    socket.once('error', reject);
    socket.once('secureConnect', () => {
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
