// Debian's Redis on loopback, with TLS and a password, for one test run; alone, behind a sentinel, or as a cluster of one.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeServerCertificate } from './pebble.ts';
import { freePort } from './ports.ts';

export interface RedisServer {
  readonly port: number;
  readonly password: string;
  readonly ca: string;
  /** Where it keeps what it has. */
  readonly folder: string;
  kill(): Promise<void>;
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export interface RedisServerOptions {
  readonly tls?: boolean;
  readonly cluster?: boolean;
  /** The port of the server that this one is to watch over as a sentinel, which knows it as `ingress`. */
  readonly watches?: number;
  /** More lines of its configuration. */
  readonly settings?: readonly string[];
}

const PASSWORD = 'a-password-of-the-test';

export async function startRedis(options: RedisServerOptions = {}): Promise<RedisServer> {
  const {
    tls = true,
    cluster = false,
    watches,
    settings = ['appendonly yes', 'appendfsync always'],
  } = options;
  const folder = await mkdtemp(join(tmpdir(), 'redis-'));
  const isRoot = process.getuid?.() === 0;
  const idOf = (flag: string) => Number(execFileSync('id', [flag, 'redis'], { encoding: 'utf8' }));
  const id = isRoot ? { uid: idOf('-u'), gid: idOf('-g') } : undefined;
  const put = (name: string, text: string) => {
    writeFileSync(join(folder, name), text, { mode: 0o600 });
    if (id !== undefined) chownSync(join(folder, name), id.uid, id.gid);
  };
  if (id !== undefined) chownSync(folder, id.uid, id.gid);
  const pair = await makeServerCertificate();
  put('server.crt', pair.cert);
  put('server.key', pair.key);
  put('ca.crt', pair.ca);
  const port = await freePort();
  const lines = [
    'bind 127.0.0.1',
    `dir ${folder}`,
    'daemonize no',
    ...(tls
      ? [
          'port 0',
          `tls-port ${port}`,
          'tls-auth-clients no',
          'tls-cert-file server.crt',
          'tls-key-file server.key',
          'tls-ca-cert-file ca.crt',
        ]
      : [`port ${port}`]),
    ...(watches === undefined
      ? [`requirepass ${PASSWORD}`, 'save ""', ...settings]
      : [`sentinel monitor ingress 127.0.0.1 ${watches} 1`, `sentinel auth-pass ingress ${PASSWORD}`]),
    ...(cluster
      ? [
          'cluster-enabled yes',
          'cluster-announce-ip 127.0.0.1',
          ...(tls ? ['tls-cluster yes', 'tls-replication yes'] : []),
          `cluster-port ${await freePort()}`,
        ]
      : []),
  ];
  put('redis.conf', `${lines.join('\n')}\n`);
  let server: ChildProcess | undefined;
  async function launch(): Promise<void> {
    const args = [join(folder, 'redis.conf'), ...(watches === undefined ? [] : ['--sentinel'])];
    server = spawn('redis-server', args, { ...id, cwd: folder, stdio: 'ignore' });
    await answering(port);
  }
  async function kill(): Promise<void> {
    if (server === undefined || server.exitCode !== null || server.signalCode !== null) return;
    const gone = once(server, 'exit');
    server.kill('SIGKILL');
    await gone;
  }
  await launch();
  if (cluster) {
    const secure = tls ? ['--tls', '--cacert', join(folder, 'ca.crt')] : [];
    const args = [
      '-p',
      String(port),
      ...secure,
      '--no-auth-warning',
      '-a',
      PASSWORD,
      'CLUSTER',
      'ADDSLOTSRANGE',
      '0',
      '16383',
    ];
    execFileSync('redis-cli', args, { stdio: 'ignore' });
    // A member takes no writes in its first two seconds.
    const stateOf = [...args.slice(0, -4), 'CLUSTER', 'INFO'];
    while (!execFileSync('redis-cli', stateOf, { encoding: 'utf8' }).includes('cluster_state:ok'))
      await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return {
    port,
    password: PASSWORD,
    ca: pair.ca,
    folder,
    kill,
    restart: launch,
    async stop() {
      await kill();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function answering(port: number): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    const socket = connect(port, '127.0.0.1');
    try {
      await once(socket, 'connect');
      return;
    } catch (error) {
      if (tries > 200) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    } finally {
      socket.destroy();
    }
  }
}
