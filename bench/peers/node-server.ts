// The TLS server, HTTP/2 and HTTP/1.1, on which the Node packages are measured.

import { readFileSync } from 'node:fs';
import { createSecureServer, type Http2SecureServer } from 'node:http2';
import type { CertificateFiles } from '../stage.ts';

export interface NodeProxySettings {
  readonly port: number;
  readonly certificate: CertificateFiles;
  /** The port of the upstream on 127.0.0.1. */
  readonly target: number;
}

/** The program's one argument. */
export function readSettings(): NodeProxySettings {
  return JSON.parse(process.argv[2] ?? '') as NodeProxySettings;
}

export function listen(settings: NodeProxySettings): Http2SecureServer {
  const { chain, key } = settings.certificate;
  const server = createSecureServer({ allowHTTP1: true, cert: readFileSync(chain), key: readFileSync(key) });
  // As long as the other peers keep an idle connection; Node's default of 5 s would empty the row of idle memory.
  Object.assign(server, { keepAliveTimeout: 65_000 });
  server.on('sessionError', () => {});
  server.listen({ host: '127.0.0.1', port: settings.port, backlog: 8_192 });
  return server;
}
