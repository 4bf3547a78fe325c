// Handshakes that fail: plain HTTP gets the answer that this port speaks HTTPS, and a name that is not served is logged.

import type { TLSSocket } from 'node:tls';
import type { Log } from '../../src/lib/log.ts';
import { loggedName } from '../exchange/logged.ts';
import { rawSocketUnder } from '../socket/insides/raw-sockets.ts';

export interface FailedHandshakesOptions {
  /** Whether there is a certificate for this name. */
  readonly isServed: (serverName: string) => boolean;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  readonly log: Log;
}

export interface FailedHandshakes {
  /** Of a server's 'tlsClientError': ends the connection. */
  failed(error: NodeJS.ErrnoException, socket: TLSSocket): void;
  /** Somebody has asked for a name that is not served; empty: for none. */
  noteUnknown(serverName: string): void;
}

/** OpenSSL's codes for a first record that is an HTTP request, and for one that is a CONNECT. */
const PLAIN_HTTP = new Set(['ERR_SSL_HTTP_REQUEST', 'ERR_SSL_HTTPS_PROXY_REQUEST']);
/** OpenSSL's codes for a handshake without a certificate to choose, in TLS 1.2 and in TLS 1.3. */
const NO_CERTIFICATE = new Set(['ERR_SSL_NO_SHARED_CIPHER', 'ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM']);

/** Scanners try names many times a minute: one line in this time is enough. */
const NOTE_EVERY_MS = 60_000;

const SENTENCE = 'This port speaks HTTPS, and the request was sent in plain HTTP: ask again with https://.\n';

export function createFailedHandshakes({ isServed, now, log }: FailedHandshakesOptions): FailedHandshakes {
  let noteAt = Number.NEGATIVE_INFINITY;
  let leftOut = 0;

  const noteUnknown = (serverName: string) => {
    const time = now();
    if (time < noteAt) {
      leftOut++;
      return;
    }
    noteAt = time + NOTE_EVERY_MS;
    log.info(
      { serverName: loggedName(serverName), leftOut },
      'a handshake asked for a name that is not served',
    );
    leftOut = 0;
  };

  return {
    noteUnknown,
    failed(error, socket) {
      const { code = '' } = error;
      log.debug({ err: error }, 'handshake failed');
      if (PLAIN_HTTP.has(code)) answerPlainHttp(socket);
      const serverName = (socket.servername || '').toString();
      if (NO_CERTIFICATE.has(code) && !isServed(serverName)) noteUnknown(serverName);
      socket.destroy();
    },
  };
}

/** Answers in the clear, as it was asked, and only if no byte of TLS has been sent. */
function answerPlainHttp(socket: TLSSocket): void {
  const raw = rawSocketUnder(socket);
  if (raw === undefined || !raw.writable || raw.bytesWritten > 0) return;
  raw.on('error', () => {});
  // RFC 9110 §6.6.1: an origin server with a clock sends Date.
  raw.end(
    `HTTP/1.1 400 Bad Request\r\nDate: ${new Date().toUTCString()}\r\nContent-Type: text/plain\r\nContent-Length: ${SENTENCE.length}\r\nConnection: close\r\n\r\n${SENTENCE}`,
    'latin1',
  );
}
