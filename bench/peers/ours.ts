// The program of this repository, with a certificate already in its state folder and a CA that cannot be reached.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createStore } from '../../acme/store.ts';
import { readCertificate } from '../../src/lib/certificate.ts';
import { type Command, nodeCommand } from '../processes.ts';
import { HTTP_ROWS, NGINX_FILE_ROWS } from '../rows/ids.ts';
import { writeNginxFile } from './nginx.ts';
import type { Peer, Site } from './peer.ts';

/** Nobody listens on port 1 (tcpmux): issuing fails at once, and is tried again later. */
const UNREACHABLE_DIRECTORY = 'https://127.0.0.1:1/directory';

/** `program` is the bundle as the image ships it, or the source. */
export function createOurs(program: string, name = { id: 'ours', title: 'dstack-ingress' }): Peer {
  return {
    ...name,
    rows: [...HTTP_ROWS, ...NGINX_FILE_ROWS, 'h1-logged', 'h1-h2c', 'tcp'],
    version: nodeCommand(program, ['--version']),
    prepare: (site) => prepareOurs(program, site),
  };
}

/** One request in a hundred is recorded. Its collector is away: what that costs is part of it. */
export function createTraced(program: string): Peer {
  const tracing = {
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1',
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: '0.01',
  };
  const ours = createOurs(program, { id: 'traced', title: 'dstack-ingress, 1 % traced' });
  return {
    ...ours,
    async prepare(site) {
      const command = await ours.prepare(site);
      return { ...command, env: { ...command.env, ...tracing } };
    },
  };
}

/** Without a routing file everything goes to the site's target. */
export async function prepareOurs(program: string, site: Site, routesFile?: string): Promise<Command> {
  const stateDir = join(site.folder, 'state');
  await placeCertificate(stateDir, site);
  return {
    ...nodeCommand(program, ['serve']),
    env: {
      ...(await routing(site, routesFile)),
      DOMAIN: 'localhost',
      PORT: String(site.port),
      LISTEN_ADDRESS: '127.0.0.1',
      STATE_DIR: stateDir,
      WORKERS: '1',
      MAXCONN: '8192',
      // While the others take their turns nothing is asked.
      KEEPALIVE_TIMEOUT: '600s',
      ACCESS_LOG: site.accessLog ? 'on' : 'off',
      LOG_LEVEL: 'info',
      // Of the challenges the one that needs no DNS provider; none is ever answered here.
      CHALLENGE_TYPE: 'tls-alpn-01',
      DNS_SETUP_MODE: 'print',
      EVIDENCE_SERVER: 'false',
      ACME_DIRECTORY_URL: UNREACHABLE_DIRECTORY,
      ACME_EMAIL: 'bench@localhost.invalid',
    },
  };
}

async function routing(site: Site, routesFile: string | undefined): Promise<Record<string, string>> {
  if (routesFile !== undefined) return { ROUTES_FILE: routesFile };
  if (site.nginxFile !== undefined) return { NGINX_CONF_DIR: await writeNginxFile(site, site.nginxFile) };
  return { TARGET_ENDPOINT: `${site.target.protocol}://127.0.0.1:${site.target.port}` };
}

async function placeCertificate(stateDir: string, { certificate }: Site): Promise<void> {
  const [chain, key] = await Promise.all([
    readFile(certificate.chain, 'utf8'),
    readFile(certificate.key, 'utf8'),
  ]);
  const store = await createStore({ stateDir, directoryUrl: UNREACHABLE_DIRECTORY });
  await store.keepCertificate(readCertificate(chain, key));
}
