// Debian's PostgreSQL with an empty database on loopback, TLS on, for one test run.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, chownSync, globSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeServerCertificate } from './pebble.ts';
import { freePort } from './ports.ts';

export interface PostgresServer {
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  /** PEM: what its certificate, for localhost and 127.0.0.1, is under. */
  readonly ca: string;
  /** With SIGQUIT, as a crash: what was not on disk is gone. */
  kill(): Promise<void>;
  restart(): Promise<void>;
  /** Runs this statement as the administrator. */
  run(statement: string): void;
  stop(): Promise<void>;
}

const PASSWORD = 'a password of the test';

export async function startPostgres(): Promise<PostgresServer> {
  const bin = globSync('/usr/lib/postgresql/*/bin').sort().at(-1);
  if (bin === undefined) throw new Error('there is no PostgreSQL: npm test installs it');
  const folder = await mkdtemp(join(tmpdir(), 'postgres-'));
  // The server refuses to run as root.
  const id = unprivileged();
  const as = { ...id, env: { PATH: process.env.PATH ?? '', LC_ALL: 'C' }, cwd: '/' };
  const own = (path: string) => 'uid' in id && chownSync(path, id.uid as number, id.gid as number);
  own(folder);
  const [data, secret] = [join(folder, 'data'), join(folder, 'password')];
  writeFileSync(secret, PASSWORD);
  own(secret);
  const port = await freePort();
  const tls = await makeServerCertificate();
  const init = [
    '-D',
    data,
    '-U',
    'admin',
    '-A',
    'scram-sha-256',
    '--pwfile',
    secret,
    '--no-sync',
    '-E',
    'UTF8',
  ];
  execFileSync(join(bin, 'initdb'), init, { ...as, stdio: 'ignore' });
  for (const [file, text] of [
    ['server.crt', tls.cert],
    ['server.key', tls.key],
  ] as const) {
    writeFileSync(join(data, file), text, { mode: 0o600 });
    own(join(data, file));
  }
  const settings = [
    `port = ${port}`,
    "listen_addresses = '127.0.0.1'",
    `unix_socket_directories = '${folder}'`,
    'ssl = on',
    'shared_buffers = 8MB',
    'max_connections = 60',
    'autovacuum = off',
  ];
  appendFileSync(join(data, 'postgresql.conf'), `${settings.join('\n')}\n`);

  let server: ChildProcess | undefined;
  async function launch(): Promise<void> {
    server = spawn(join(bin!, 'postgres'), ['-D', data], { ...as, stdio: 'ignore' });
    await answering(port);
  }
  async function end(signal: NodeJS.Signals): Promise<void> {
    if (server === undefined || server.exitCode !== null || server.signalCode !== null) return;
    const gone = once(server, 'exit');
    server.kill(signal);
    await gone;
  }
  function run(statement: string): void {
    const args = ['-h', '127.0.0.1', '-p', String(port), '-U', 'admin', '-d', 'postgres', '-qc', statement];
    execFileSync(join(bin!, 'psql'), args, {
      ...as,
      env: { ...as.env, PGPASSWORD: PASSWORD },
      stdio: 'pipe',
    });
  }
  await launch();
  for (let tries = 0; ; tries += 1) {
    try {
      run(`CREATE ROLE ingress LOGIN PASSWORD '${PASSWORD}'`);
      break;
    } catch (error) {
      // It listens a moment before it is ready.
      if (tries > 50) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  run('CREATE DATABASE ingress OWNER ingress');
  return {
    port,
    user: 'ingress',
    password: PASSWORD,
    database: 'ingress',
    ca: tls.ca,
    kill: () => end('SIGQUIT'),
    restart: launch,
    run,
    async stop() {
      await end('SIGQUIT');
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function unprivileged(): { uid: number; gid: number } | Record<string, never> {
  if (process.getuid?.() !== 0) return {};
  const idOf = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
  return { uid: idOf('-u'), gid: idOf('-g') };
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
