// HAProxy twice: as the dstack-ingress 2.x images configured it (TLS, then bytes), and speaking HTTP.

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HTTP_ROWS, TCP_ROWS } from '../rows/ids.ts';
import { type Peer, type Site, speaksHttp2 } from './peer.ts';

const needs = { program: 'haproxy', package: 'haproxy' };
const version = { program: 'haproxy', args: ['-v'] };

/** Ends TLS with P-384 alone and no tickets, looks for /evidences in the first bytes, then passes bytes both ways. */
export const haproxy2x: Peer = {
  id: 'haproxy-2.x',
  title: 'HAProxy (2.x images, TCP)',
  needs,
  version,
  rows: TCP_ROWS,
  prepare: (site) => writeConfig(site, config2x(site)),
};

/** HTTP on both sides, connections to the upstream kept, TLS defaults. */
export const haproxyHttp: Peer = {
  id: 'haproxy-http',
  title: 'HAProxy (HTTP)',
  needs,
  version,
  rows: [...HTTP_ROWS, 'h1-h2c'],
  prepare: (site) => writeConfig(site, configHttp(site)),
};

async function writeConfig(site: Site, text: string) {
  const file = join(site.folder, 'haproxy.cfg');
  await writeFile(file, text);
  const { chain, key } = site.certificate;
  await writeFile(pemOf(site), `${await readFile(chain, 'utf8')}${await readFile(key, 'utf8')}`, {
    mode: 0o600,
  });
  return { program: 'haproxy', args: ['-db', '-f', file] };
}

function pemOf(site: Site): string {
  return join(site.folder, 'haproxy.pem');
}

function config2x(site: Site): string {
  const alpn = site.target.protocol === 'grpc' ? ' alpn h2' : '';
  return `
global
  maxconn 8192
  nbthread 1
  ssl-default-bind-ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
  ssl-default-bind-curves secp384r1
defaults
  mode tcp
  timeout connect 10s
  timeout client 86400s
  timeout server 86400s
frontend tls_in
  bind 127.0.0.1:${site.port} backlog 8192 ssl crt ${pemOf(site)}${alpn}
  tcp-request inspect-delay 5s
  tcp-request content accept if { req.len ge 16 }
  acl is_evidence payload(0,16) -m beg "GET /evidences"
  acl is_evidence payload(0,16) -m beg "HEAD /evidences"
  tcp-request content reject if is_evidence
  default_backend app
backend app
  server app1 127.0.0.1:${site.target.port}
`;
}

function configHttp(site: Site): string {
  const protocol = speaksHttp2(site.target) ? ' proto h2' : '';
  return `
global
  maxconn 8192
  nbthread 1
defaults
  mode http
  timeout connect 10s
  timeout client 300s
  timeout server 300s
  timeout tunnel 3600s
  timeout http-keep-alive 65s
frontend tls_in
  bind 127.0.0.1:${site.port} backlog 8192 ssl crt ${pemOf(site)} alpn h2,http/1.1
  option forwardfor
  http-request set-header X-Forwarded-Proto https
  default_backend app
backend app
  http-reuse always
  server app1 127.0.0.1:${site.target.port}${protocol} pool-max-conn 512
`;
}
