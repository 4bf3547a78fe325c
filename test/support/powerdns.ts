// Debian's PowerDNS server with zones on loopback, its API and its DNS, for one test run.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { freePort } from './ports.ts';

export interface PowerdnsServer {
  /** PDNS_API_URL. */
  readonly api: string;
  readonly key: string;
  /** For plain DNS. */
  readonly server: string;
  stop(): Promise<void>;
}

export const powerdnsInstalled = spawnSync('pdns_server', ['--version']).error === undefined;

export async function startPowerdns(zones: readonly string[]): Promise<PowerdnsServer> {
  const folder = await mkdtemp(join(tmpdir(), 'pdns-'));
  const [dns, web] = [await freePort(), await freePort()];
  const key = 'key-of-the-test-0123456789';
  const database = join(folder, 'zones.sqlite3');
  const settings = {
    'local-address': '127.0.0.1',
    'local-port': dns,
    launch: 'gsqlite3',
    'gsqlite3-database': database,
    'socket-dir': folder,
    api: 'yes',
    'api-key': key,
    webserver: 'yes',
    'webserver-address': '127.0.0.1',
    'webserver-port': web,
    'webserver-allow-from': '127.0.0.1',
    'cache-ttl': 0,
    'query-cache-ttl': 0,
    'negquery-cache-ttl': 0,
    'zone-cache-refresh-interval': 0,
    guardian: 'no',
    daemon: 'no',
  };
  const text = Object.entries(settings).map(([name, value]) => `${name}=${value}\n`);
  await writeFile(join(folder, 'pdns.conf'), text.join(''));
  const schema = await readFile('/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql', 'utf8');
  const opened = new DatabaseSync(database);
  opened.exec(schema);
  opened.close();
  for (const zone of zones) {
    const made = spawnSync('pdnsutil', [`--config-dir=${folder}`, 'create-zone', zone, `ns1.${zone}`]);
    if (made.status !== 0) throw new Error(`pdnsutil: ${made.stderr}`);
  }
  const child = spawn('pdns_server', [`--config-dir=${folder}`], { stdio: 'ignore' });
  const api = `http://127.0.0.1:${web}`;
  await answering(`${api}/api/v1/servers/localhost`, key);
  return {
    api,
    key,
    server: `127.0.0.1:${dns}`,
    async stop() {
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function answering(url: string, key: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      const reply = await fetch(url, { headers: { 'x-api-key': key } });
      await reply.arrayBuffer();
      if (reply.ok) return;
    } catch (error) {
      if (attempt > 100) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
