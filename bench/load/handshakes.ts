// TLS 1.3 handshakes, full or resumed, several at a time; a unit is done when the server has ended its side in peace.

import { readFileSync } from 'node:fs';
import { connect, type TLSSocket } from 'node:tls';
import { startWork } from './parent.ts';

export interface HandshakeSettings {
  readonly port: number;
  /** Path of the certificate that the proxy must show, PEM. */
  readonly chain: string;
  readonly resume: boolean;
  readonly parallel: number;
}

/** What Debian's OpenSSL 3.0 and most browsers before hybrid key exchange offer: every peer can agree. */
const CURVES = 'X25519:P-256:P-384';
/** Longer than this process is ever paused while others have their turns. */
const DEADLINE_MS = 60_000;

const settings = JSON.parse(process.argv[2] ?? '') as HandshakeSettings;
const ca = readFileSync(settings.chain);
const lanes = Promise.all(Array.from({ length: settings.parallel }, () => lane()));
const work = startWork(async () => void (await lanes));

async function lane(): Promise<void> {
  // The settings are read and `work` is there from the second turn on.
  await Promise.resolve();
  let ticket: Buffer | undefined;
  if (settings.resume) ticket = (await handshake(undefined).catch(failed))?.ticket;
  while (!work.ending) {
    try {
      const outcome = await handshake(ticket);
      if (settings.resume && !outcome.resumed) throw new Error('the session was not resumed');
      // A ticket is for one use (RFC 8446 appendix C.4): each resumption brings the next.
      if (settings.resume) ticket = outcome.ticket ?? ticket;
      work.done();
    } catch (error) {
      failed(error);
      // The fault will last: fail without spinning.
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

function failed(error: unknown): undefined {
  work.failed(error);
}

function handshake(ticket: Buffer | undefined): Promise<{ resumed: boolean; ticket: Buffer | undefined }> {
  return new Promise((resolve, reject) => {
    let latest: Buffer | undefined;
    let resumed: boolean | undefined;
    const socket: TLSSocket = connect({
      host: '127.0.0.1',
      port: settings.port,
      servername: 'localhost',
      ca,
      ecdhCurve: CURVES,
      minVersion: 'TLSv1.3',
      ...(ticket === undefined ? {} : { session: ticket }),
    });
    socket.setTimeout(DEADLINE_MS, () => socket.destroy(new Error('the handshake took too long')));
    socket.on('session', (session: Buffer) => {
      latest = session;
    });
    socket.on('secureConnect', () => {
      resumed = socket.isSessionReused();
      // The server's own end proves that it took our Finished: only then is its part of the work done.
      socket.end();
    });
    socket.resume();
    socket.on('error', reject);
    socket.on('close', () => {
      if (resumed === undefined) return reject(new Error('closed before the handshake was over'));
      resolve({ resumed, ticket: latest });
    });
  });
}
