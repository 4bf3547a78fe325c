// Debian's Knot DNS server with zones on loopback that take signed updates, for one test run.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createPlainExchange } from '../../dns/wire/exchange.ts';
import { freePort } from './ports.ts';

export interface KnotServer {
  /** For plain DNS and RFC2136_NAMESERVER. */
  readonly server: string;
  readonly key: { readonly name: string; readonly secret: string; readonly algorithm: string };
  stop(): Promise<void>;
}

export const knotInstalled = spawnSync('knotd', ['--version']).error === undefined;

export async function startKnot(zones: readonly string[], algorithm = 'hmac-sha256'): Promise<KnotServer> {
  const folder = await mkdtemp(join(tmpdir(), 'knot-'));
  const port = await freePort();
  const key = {
    name: 'key.example.com',
    secret: Buffer.from('a secret of thirty-two octets ok').toString('base64'),
    algorithm,
  };
  const entries = zones
    .map((zone) => `  - domain: ${zone}\n    file: ${folder}/${zone}.zone\n    acl: updates\n`)
    .join('');
  const text = `server:
  rundir: ${folder}
  listen: 127.0.0.1@${port}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: ${folder}
key:
  - id: ${key.name}
    algorithm: ${key.algorithm}
    secret: ${key.secret}
acl:
  - id: updates
    key: ${key.name}
    action: update
zone:
${entries}`;
  await writeFile(join(folder, 'knot.conf'), text);
  for (const zone of zones) {
    const soa = `${zone}. 60 IN SOA ns1.${zone}. admin.${zone}. 1 3600 600 86400 1\n`;
    await writeFile(
      join(folder, `${zone}.zone`),
      `${soa}${zone}. 60 IN NS ns1.${zone}.\nns1.${zone}. 60 IN A 127.0.0.1\n`,
    );
  }
  const child = spawn('knotd', ['-c', join(folder, 'knot.conf')], { stdio: 'ignore' });
  const server = `127.0.0.1:${port}`;
  await answering(server, zones[0]!);
  return {
    server,
    key,
    async stop() {
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function answering(server: string, zone: string): Promise<void> {
  const exchange = createPlainExchange(server, { timeoutMs: 300 });
  for (let attempt = 0; attempt < 100; attempt++) {
    const message = await exchange.ask({ name: zone, type: 6, class: 1 }).catch(() => undefined);
    if (message !== undefined && message.answers.length > 0) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error('knotd does not answer');
}
