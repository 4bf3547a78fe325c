// nginx twice: as the dstack-ingress 1.x images configured it, and as configured for speed.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { nginxProcess, nginxTemporaryFolders } from '../nginx-config.ts';
import { HTTP_ROWS, NGINX_FILE_ROWS, type RowId } from '../rows/ids.ts';
import type { NginxFile, Peer, Site } from './peer.ts';

const needs = { program: 'nginx', package: 'nginx' };
const version = { program: 'nginx', args: ['-v'] };

/** No Upgrade header reaches the upstream: WebSockets do not pass. */
const ROWS_1X: readonly RowId[] = HTTP_ROWS.filter((id) => id !== 'websocket');

/**
 * HTTP/1.0 and a connection per request to the upstream, 4 KiB TLS records, P-384 alone, no tickets. Left out: OCSP
 * stapling, for which a self-signed certificate has no responder. Added: no limit on the requests of a connection, so
 * that every peer has the same load.
 */
export const nginx1x: Peer = {
  id: 'nginx-1.x',
  title: 'nginx (1.x images)',
  needs,
  version,
  rows: ROWS_1X,
  prepare: (site) => writeConfig(site, { tls: TLS_1X, upstream: '', location: location1x(site) }),
};

/** Connections to the upstream kept, TLS defaults. */
export const nginxTuned: Peer = {
  id: 'nginx-tuned',
  title: 'nginx (tuned)',
  needs,
  version,
  rows: [...HTTP_ROWS, ...NGINX_FILE_ROWS],
  prepare: (site) =>
    writeConfig(site, { tls: TLS_TUNED, upstream: upstreamTuned(site), location: locationTuned(site) }),
};

const TLS_1X = `
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305;
    ssl_prefer_server_ciphers on;
    ssl_ecdh_curve secp384r1;
    ssl_session_timeout 1d;
    ssl_session_cache shared:SSL:50m;
    ssl_session_tickets off;
    ssl_buffer_size 4k;`;

const TLS_TUNED = `
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:SSL:50m;`;

function location1x(site: Site): string {
  const kind = site.target.protocol === 'grpc' ? 'grpc' : 'proxy';
  const scheme = site.target.protocol === 'grpc' ? 'grpc' : 'http';
  return `${kind}_pass ${scheme}://127.0.0.1:${site.target.port};
      ${forwardedHeaders(kind)}`;
}

function upstreamTuned(site: Site): string {
  return `map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  upstream app {
    server 127.0.0.1:${site.target.port};
    keepalive 512;
    keepalive_requests 100000000;
  }`;
}

function locationTuned(site: Site): string {
  if (site.target.protocol === 'grpc') return `grpc_pass grpc://app;\n      ${forwardedHeaders('grpc')}`;
  return `proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      ${forwardedHeaders('proxy')}`;
}

function forwardedHeaders(kind: 'proxy' | 'grpc'): string {
  return `${kind}_set_header Host $host;
      ${kind}_set_header X-Real-IP $remote_addr;
      ${kind}_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      ${kind}_set_header X-Forwarded-Proto $scheme;`;
}

interface Parts {
  readonly tls: string;
  readonly upstream: string;
  readonly location: string;
}

async function writeConfig(site: Site, parts: Parts) {
  const file = join(site.folder, 'nginx.conf');
  await writeFile(file, await configText(site, parts));
  return { program: 'nginx', args: ['-p', site.folder, '-c', file] };
}

async function configText(site: Site, parts: Parts): Promise<string> {
  return `
${nginxProcess(join(site.folder, 'nginx.pid'))}
http {
  access_log off;
  sendfile on;
  default_type application/octet-stream;
  ${nginxTemporaryFolders(site.folder)}
  keepalive_timeout 600s;
  keepalive_requests 100000000;
  ssl_certificate ${site.certificate.chain};
  ssl_certificate_key ${site.certificate.key};
  ${parts.tls}
  ${site.nginxFile === undefined ? serverText(site, parts) : `include ${await writeNginxFile(site, site.nginxFile)}/*.conf;`}
}
`;
}

function serverText({ port }: Site, { upstream, location }: Parts): string {
  return `${upstream}
  server {
    listen 127.0.0.1:${port} ssl http2 backlog=8192;
    server_name localhost;
    location / {
      ${location}
    }
  }`;
}

/** The folder that it is in. */
export async function writeNginxFile(
  { folder, port, target, filesRoot }: Site,
  text: NginxFile,
): Promise<string> {
  const confFolder = join(folder, 'conf.d');
  await mkdir(confFolder);
  await writeFile(
    join(confFolder, 'site.conf'),
    text({ listen: `127.0.0.1:${port} ssl http2`, target, filesRoot }),
  );
  return confFolder;
}
