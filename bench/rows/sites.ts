// Rows of nginx's own files, read by nginx and by this program alike: rules on a site, many sites, files from disk.

import { askHttp1, expectAnswer } from '../ask.ts';
import { LARGE, SMALL } from '../files-upstream.ts';
import { type CurlProtocol, download } from '../load/curl.ts';
import { startWrk } from '../load/wrk.ts';
import { cpuTimeUs } from '../measure.ts';
import type { NginxFile } from '../peers/peer.ts';
import { curl, DOWNLOADS, h1, wrk } from './http.ts';
import type { LoadRow, SingleRow } from './row.ts';

const CONNECTIONS = 64;
const LOCATIONS = 10;
const SITES = 1_000;

/** Connections to the upstream are kept by nginx only if its file says so. */
const KEPT = 'proxy_http_version 1.1;\nproxy_set_header Connection "";';

const upstream = (port: number) => `upstream app {
  server 127.0.0.1:${port};
  keepalive 512;
  keepalive_requests 100000000;
}`;

const REWRITTEN = '/app';

/** Ten rules on fields, five each way, and a rewrite. */
export const rulesFile: NginxFile = ({ listen, target }) => `${upstream(target.port)}
server {
  listen ${listen};
  server_name localhost;
  location / {
    rewrite ^${REWRITTEN}/(.*)$ /$1 break;
    proxy_pass http://app;
    ${KEPT}
    proxy_set_header Host $host;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Site "the shop";
    proxy_hide_header Last-Modified;
    add_header X-Content-Type-Options nosniff always;
    add_header X-Frame-Options DENY;
    add_header Referrer-Policy no-referrer;
    add_header Cache-Control "public, max-age=60";
  }
}
`;

/** The first host is `localhost`. All have the same locations, and share the upstream. */
export function sitesFile(sites: number): NginxFile {
  return ({ listen, target }) => {
    const servers = hostsOf(sites).map((host) => serverOf(host, listen));
    return `${upstream(target.port)}\n${KEPT}\n${servers.join('')}`;
  };
}

function serverOf(host: string, listen: string): string {
  const locations = pathsOf().map((path) => `  location ${path} { proxy_pass http://app/; }\n`);
  return `server {\n  listen ${listen};\n  server_name ${host};\n${locations.join('')}}\n`;
}

function hostsOf(sites: number): readonly string[] {
  return Array.from({ length: sites }, (_, index) => (index === 0 ? 'localhost' : `site-${index}.localhost`));
}

function pathsOf(): readonly string[] {
  return Array.from({ length: LOCATIONS }, (_, index) => (index === 0 ? '/' : `/part-${index}/`));
}

/** All of them, one host after the other: no two in a row have anything in common. */
function requestsTo(sites: number): readonly { readonly host: string; readonly path: string }[] {
  const hosts = hostsOf(sites);
  return pathsOf().flatMap((path) => hosts.map((host) => ({ host, path: `${path}${SMALL.path.slice(1)}` })));
}

export const rulesRow: LoadRow = {
  ...h1,
  id: 'rules',
  title: 'the same by a site of an nginx file: ten rules on header fields, and a rewrite',
  beside: 'h1',
  nginxFile: rulesFile,
  async verify({ stage, subject }) {
    const answer = await askHttp1(stage, subject.port, { path: `${REWRITTEN}${SMALL.path}` });
    expectAnswer(answer, SMALL.bytes);
    // A proxy that passes over its rules would look as if they were free.
    if (answer.headers?.['x-frame-options'] !== 'DENY') throw new Error('a rule on the reply had no effect');
  },
  load: ({ stage, subject }) =>
    startWrk(stage, {
      port: subject.port,
      path: `${REWRITTEN}${SMALL.path}`,
      connections: CONNECTIONS,
      replyBytes: SMALL.bytes,
      units: stage.files.served,
    }),
};

function sitesRow(row: Pick<LoadRow, 'id' | 'title' | 'beside'>, sites: number): LoadRow {
  const requests = requestsTo(sites);
  return {
    ...row,
    unit: 'µs/request',
    tools: [wrk],
    moreOpeningMs: h1.moreOpeningMs!,
    target: h1.target,
    nginxFile: sitesFile(sites),
    async verify({ stage, subject }) {
      const { host, path } = requests.at(-1)!;
      expectAnswer(await askHttp1(stage, subject.port, { path, headers: { host } }), SMALL.bytes);
    },
    load: ({ stage, subject }) =>
      startWrk(stage, {
        port: subject.port,
        path: SMALL.path,
        requests,
        connections: CONNECTIONS,
        replyBytes: SMALL.bytes,
        units: stage.files.served,
      }),
  };
}

export const oneSite = sitesRow(
  { id: 'one-site', title: `an nginx file of one host with ${LOCATIONS} locations, each asked in turn` },
  1,
);

export const manySites = sitesRow(
  {
    id: 'many-sites',
    title: `the same with ${SITES.toLocaleString('en')} hosts, ${(SITES * LOCATIONS).toLocaleString('en')} locations`,
    beside: 'one-site',
  },
  SITES,
);

function filesRow(id: 'static' | 'static-h2', title: string, protocol: CurlProtocol): SingleRow {
  return {
    id,
    title,
    unit: 'ms',
    tools: [curl],
    target: (stage) => ({ protocol: 'http', port: stage.files.port }),
    nginxFile: ({ listen, filesRoot }) =>
      `server {\n  listen ${listen};\n  server_name localhost;\n  root ${filesRoot};\n}\n`,
    verify: ({ stage, subject }) => download(stage, subject.port, LARGE, 1, protocol),
    async measure({ stage, subject }) {
      const beforeUs = cpuTimeUs(subject.pid);
      await download(stage, subject.port, LARGE, DOWNLOADS, protocol);
      return (cpuTimeUs(subject.pid) - beforeUs) / DOWNLOADS / 1_000;
    },
  };
}

export const staticFile = filesRow('static', 'a file of 100 MiB from disk, HTTP/1.1', 'http1.1');
export const staticFileH2 = filesRow('static-h2', 'the same over HTTP/2', 'http2');
