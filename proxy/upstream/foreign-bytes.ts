// Recognises by its first bytes an upstream that does not speak what its scheme says, and names the scheme to write instead.

import { speaksHttp2, speaksTls, type UpstreamProtocol } from '../rules/routes.ts';

/** Undefined: nothing that is known. `bytes[start, end)` are the first of a connection, or of a reply. */
export function foreignBytes(
  protocol: UpstreamProtocol,
  bytes: Buffer,
  start: number,
  end: number,
): string | undefined {
  const spoken = spokenIn(bytes, start, end);
  const secure = speaksTls(protocol);
  switch (spoken) {
    case 'tls':
      if (secure) return undefined;
      return tlsBehindPlain(protocol);
    case 'http2':
      if (speaksHttp2(protocol)) return undefined;
      return `it speaks HTTP/2: write ${secure ? 'grpcs://' : 'h2c://, or grpc:// for gRPC'}`;
    case 'http1':
      if (!speaksHttp2(protocol)) return undefined;
      return `it speaks HTTP/1.1, not HTTP/2: write ${secure ? 'https://' : 'http://'}`;
    default:
      return undefined;
  }
}

export function tlsBehindPlain(protocol: UpstreamProtocol): string {
  return `it speaks TLS: write ${speaksHttp2(protocol) ? 'grpcs://' : 'https://'}`;
}

/** For a TLS handshake that failed because the upstream does not speak TLS. */
export function plainBehindTls(protocol: UpstreamProtocol): string {
  return `it does not speak TLS: write ${speaksHttp2(protocol) ? 'grpc:// or h2c://' : 'http://'}`;
}

/** OpenSSL's words for a peer that answers a ClientHello with something else than TLS. */
export function isPlainBehindTls(code: string): boolean {
  return /^ERR_SSL_(?:WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST|UNKNOWN_PROTOCOL)$/.test(code);
}

const SETTINGS = 4;
const TLS_ALERT = 0x15;
const TLS_HANDSHAKE = 0x16;

function spokenIn(bytes: Buffer, start: number, end: number): 'tls' | 'http2' | 'http1' | undefined {
  const size = end - start;
  if (size >= 5 && bytes.toString('latin1', start, start + 5) === 'HTTP/') return 'http1';
  // RFC 8446 §5.1: the type of a record, and a version that always begins with 3.
  if (size >= 3 && (bytes[start] === TLS_ALERT || bytes[start] === TLS_HANDSHAKE) && bytes[start + 1] === 3) {
    return 'tls';
  }
  // RFC 9113 §3.4: a server begins with SETTINGS, which are no longer than a few entries, of stream 0.
  const isSettings =
    size >= 9 &&
    bytes.readUInt16BE(start) === 0 &&
    bytes[start + 3] === SETTINGS &&
    bytes.readUInt32BE(start + 5) === 0;
  return isSettings ? 'http2' : undefined;
}
