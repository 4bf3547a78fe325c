// The fence between workers and supervisor, tried from the worker's side; where there is none, the log says so.

import assert from 'node:assert/strict';
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { firstUnprivilegedPort, WORKER_ID } from '../../../src/workers/fence.ts';
import { bundledProgram } from '../../support/bundle.ts';
import { isOpenToOthers, NOT_OPEN } from '../../support/open-to-others.ts';
import { freePort } from '../../support/ports.ts';

const run = promisify(execFile);
const program = bundledProgram();
const probe = fileURLToPath(new URL('../../support/fence-probe.ts', import.meta.url));
const TOKEN = 'top-secret-token';
const isRoot = process.getuid?.() === 0 && isOpenToOthers();
const NOT_ROOT = 'only root can give a process another user, which must be able to read this checkout';

interface Supervisor {
  readonly pid: number;
  readonly port: number;
  readonly httpPort: number;
  readonly folder: string;
  readonly child: ChildProcess;
  readonly log: Record<string, unknown>[];
  workers(): Promise<number[]>;
}

interface Start {
  /** What starts it: a program and its arguments before those of Node. */
  readonly through?: readonly string[];
  readonly uid?: number;
  readonly port?: number;
  readonly httpPort?: number;
  readonly agentSocket?: string;
}

/** Resolves once it serves. */
async function startSupervisor(t: TestContext, options: Start = {}): Promise<Supervisor> {
  const folder = await mkdtemp(join(tmpdir(), 'fence-'));
  if (options.uid !== undefined) await chmod(folder, 0o777);
  const port = options.port ?? (await freePort());
  const httpPort = options.httpPort ?? (await freePort());
  const [command, ...args] = [...(options.through ?? []), process.execPath, program, 'serve'];
  const child = spawn(command!, args, {
    ...(options.uid !== undefined && { uid: options.uid, gid: options.uid }),
    env: {
      PATH: process.env.PATH ?? '',
      DOMAIN: 'app.example.com',
      TARGET_ENDPOINT: 'http://127.0.0.1:9',
      GATEWAY_DOMAIN: 'gateway.example.net',
      CLOUDFLARE_API_TOKEN: TOKEN,
      ACME_DIRECTORY_URL: 'https://127.0.0.1:9/directory',
      DNS_RESOLVERS: '127.0.0.1:9',
      DSTACK_SIMULATOR_ENDPOINT: options.agentSocket ?? join(folder, 'agent.sock'),
      LISTEN_ADDRESS: '127.0.0.1',
      PORT: String(port),
      HTTP_PORT: String(httpPort),
      WORKERS: '2',
      STATE_DIR: join(folder, 'state'),
      EVIDENCE_DIR: join(folder, 'evidences'),
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    await rm(folder, { recursive: true, force: true });
  });
  const log: Record<string, unknown>[] = [];
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout! }).on('line', (text) => {
      log.push(JSON.parse(text) as Record<string, unknown>);
      if (log.at(-1)?.msg === 'serving') resolve();
    });
    child.once('exit', () => setImmediate(() => reject(new Error(`it ended: ${JSON.stringify(log)}`))));
  });
  const pid = await supervisorBelow(child.pid!);
  return { pid, port, httpPort, folder, child, log, workers: () => childrenOf(pid) };
}

async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.split(' ').filter(Boolean).map(Number);
}

/** What it was started through may wait above it. */
async function supervisorBelow(pid: number): Promise<number> {
  const isIt = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).startsWith(process.execPath);
  return isIt ? pid : supervisorBelow((await childrenOf(pid))[0]!);
}

async function statusOf(pid: number): Promise<Record<string, string>> {
  const lines = (await readFile(`/proc/${pid}/status`, 'utf8')).split('\n');
  return Object.fromEntries(
    lines.map((line) => line.split(':').map((part) => part.trim().replaceAll('\t', ' '))),
  );
}

function fenceLine({ log }: Supervisor): Record<string, unknown> | undefined {
  return log.find(({ msg }) => /no fence between them/.test(String(msg)));
}

/** The probe with the user and the flags of this process, but for Node's own permission model: what holds without it is tried. */
async function tryAs(
  pid: number | undefined,
  supervisor: Supervisor,
  socket: string,
): Promise<Record<string, string>> {
  const { Uid, Gid } = pid === undefined ? { Uid: '0', Gid: '0' } : await statusOf(pid);
  const flags =
    pid === undefined
      ? []
      : (await readFile(`/proc/${pid}/cmdline`, 'utf8'))
          .split('\0')
          .filter((part) => /^--(?!permission|allow-)/.test(part));
  const { stdout } = await run(
    process.execPath,
    [...flags, probe, String(supervisor.pid), join(supervisor.folder, 'state'), socket],
    { uid: Number.parseInt(Uid!, 10), gid: Number.parseInt(Gid!, 10), cwd: '/', env: {} },
  );
  return JSON.parse(stdout) as Record<string, string>;
}

async function agentAt(t: TestContext, path: string, mode: number): Promise<Server> {
  const server = createServer((socket) => void socket.end());
  server.listen(path);
  await once(server, 'listening');
  await chmod(path, mode);
  t.after(() => server.close());
  return server;
}

/** The status line of plain HTTP, which sends every visitor to https. */
async function status(port: number): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write('GET / HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n');
  let text = '';
  for await (const chunk of socket) text += chunk;
  return text.split('\r\n', 1)[0]!;
}

test('as a worker one reads neither environment nor memory nor files nor state of the supervisor, and meets no agent', async (t) => {
  if (!isRoot) return t.skip(NOT_ROOT);
  const folder = await mkdtemp(join(tmpdir(), 'agent-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const socket = join(folder, 'agent.sock');
  await agentAt(t, socket, 0o777);
  const supervisor = await startSupervisor(t, { agentSocket: socket });
  const asRoot = await tryAs(undefined, supervisor, socket);
  assert.match(asRoot.environ!, new RegExp(TOKEN), 'the probe would find it');
  for (const [what, outcome] of Object.entries(asRoot)) assert.match(outcome, /^got /, what);

  for (const worker of await supervisor.workers()) {
    const got = await tryAs(worker, supervisor, socket);
    for (const [what, outcome] of Object.entries(got)) assert.match(outcome, /^(EACCES|EPERM)$/, what);
  }
  assert.equal(fenceLine(supervisor), undefined);
});

test('workers have a user and group of their own, no supplementary group and no capability, those born later too', async (t) => {
  if (!isRoot) return t.skip(NOT_ROOT);
  const supervisor = await startSupervisor(t, { through: ['setpriv', '--groups', '4,27'] });
  assert.equal((await statusOf(supervisor.pid)).Groups, '4 27');
  const [first] = await supervisor.workers();
  process.kill(first!, 'SIGKILL');
  for (let tries = 0; tries < 400; tries++) {
    const workers = await supervisor.workers();
    if (workers.length === 2 && !workers.includes(first!)) break;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  const workers = await supervisor.workers();
  assert.equal(workers.length, 2);
  for (const worker of workers) {
    // A process has its user from the moment it runs its program, and that of its parent before.
    let found = await statusOf(worker);
    for (let tries = 0; tries < 100 && !found.Uid?.startsWith(String(WORKER_ID)); tries++)
      found = await statusOf(worker);
    assert.equal(found.Uid, Array(4).fill(WORKER_ID).join(' '));
    assert.equal(found.Gid, Array(4).fill(WORKER_ID).join(' '));
    assert.equal(found.Groups, '');
    assert.match(found.CapEff!, /^0+$/);
    assert.match(found.CapPrm!, /^0+$/);
  }
});

test('ports below 1024 are served by workers that may not bind them, also after one was replaced', async (t) => {
  if (!isRoot) return t.skip(NOT_ROOT);
  const [port, httpPort] = [await lowPort(), await lowPort()];
  if (firstUnprivilegedPort() <= Math.max(port, httpPort)) return t.skip('here everybody may bind them');
  const supervisor = await startSupervisor(t, { port, httpPort });
  for (const worker of await supervisor.workers())
    assert.match((await statusOf(worker)).Uid!, new RegExp(`^${WORKER_ID} `));
  for (let i = 0; i < 20; i++) assert.match(await status(httpPort), /^HTTP\/1.1 308 /);
  const [victim] = await supervisor.workers();
  process.kill(victim!, 'SIGKILL');
  for (let i = 0; i < 400; i++) {
    const workers = await supervisor.workers();
    if (workers.length === 2 && !workers.includes(victim!)) break;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  // The kernel gives connections to it from the moment that its socket listens: they wait until it is there.
  for (let i = 0; i < 20; i++) assert.match(await status(httpPort), /^HTTP\/1.1 308 /);
  assert.ok(!supervisor.log.some(({ msg }) => msg === 'a new worker did not start'));
  supervisor.child.kill('SIGTERM');
  assert.deepEqual(await once(supervisor.child, 'exit'), [0, null]);
  for (const each of [port, httpPort]) {
    const server = createServer().listen({ port: each, host: '127.0.0.1', exclusive: true });
    await once(server, 'listening');
    server.close();
  }
});

test('without the capabilities for a fence workers serve as the user of the supervisor, and the log says once what is missing', async (t) => {
  if (!isRoot) return t.skip(NOT_ROOT);
  // As `cap_drop: [ALL]` with `cap_add: [NET_BIND_SERVICE]`.
  const supervisor = await startSupervisor(t, {
    through: ['setpriv', '--bounding-set', '-all,+net_bind_service'],
    port: await lowPort(),
    httpPort: await lowPort(),
  });
  assert.match(await status(supervisor.httpPort), /^HTTP\/1.1 308 /);
  assert.equal(fenceLine(supervisor)?.why, 'it has no capability KILL, SETGID, SETUID');
  assert.equal(fenceLine(supervisor)?.level, 'warn');
});

test('with these three capabilities and no others there is a fence', async (t) => {
  if (!isRoot) return t.skip(NOT_ROOT);
  const supervisor = await startSupervisor(t, {
    through: ['setpriv', '--bounding-set', '-all,+net_bind_service,+setuid,+setgid,+kill'],
    port: await lowPort(),
    httpPort: await lowPort(),
  });
  assert.equal(fenceLine(supervisor), undefined);
  for (const worker of await supervisor.workers())
    assert.match((await statusOf(worker)).Uid!, new RegExp(`^${WORKER_ID} `));
  assert.match(await status(supervisor.httpPort), /^HTTP\/1.1 308 /);
  supervisor.child.kill('SIGTERM');
  assert.deepEqual(await once(supervisor.child, 'exit'), [0, null]);
});

test('started as a plain user it serves, and says that there is no fence', async (t) => {
  if (process.getuid?.() === 0 && !isRoot) return t.skip(NOT_OPEN);
  const supervisor = await startSupervisor(t, isRoot ? { uid: 65_534 } : {});
  assert.equal(fenceLine(supervisor)?.why, 'it was not started as root');
  assert.match(await status(supervisor.httpPort), /^HTTP\/1.1 308 /);
});

test("as a container's first process it closes the folder of an agent's socket that is open to all, and else says so", async (t) => {
  if (!isRoot) return t.skip(NOT_ROOT);
  const [folder, ...others] = await Promise.all(
    ['/var/tmp', '/var/tmp'].map((place) => mkdtemp(join(place, 'agent-'))),
  );
  t.after(() => Promise.all([folder!, ...others].map((each) => rm(each, { recursive: true, force: true }))));
  if ((await stat(folder!)).dev !== (await stat('/')).dev)
    return t.skip('no such folder on the root file system');
  const unshare = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc'];
  try {
    execFileSync(unshare[0]!, [...unshare.slice(1), 'true'], { stdio: 'pipe' });
  } catch {
    return t.skip('no process namespace can be made here');
  }
  const socket = join(folder!, 'agent.sock');
  await agentAt(t, socket, 0o777);
  await chmod(folder!, 0o755);
  const told = ({ log }: Supervisor) => log.find(({ msg }) => msg === 'workers can reach the guest agent');

  const outside = await startSupervisor(t, { agentSocket: socket });
  assert.deepEqual(told(outside)?.sockets, [socket]);
  assert.equal((await stat(folder!)).mode & 0o777, 0o755, 'a folder that may be of others stays as it is');

  const first = await startSupervisor(t, { agentSocket: socket, through: unshare });
  assert.equal(told(first), undefined);
  assert.equal((await stat(folder!)).mode & 0o777, 0o750);
  const [worker] = await first.workers();
  assert.equal((await tryAs(worker, first, socket)).agent, 'EACCES');
});

/** Free now; few programs ask for such a port, and none of these tests twice. */
async function lowPort(): Promise<number> {
  for (let tries = 0; tries < 100; tries++) {
    const port = 700 + Math.floor(Math.random() * 300);
    const server = createServer();
    try {
      server.listen({ port, host: '127.0.0.1', exclusive: true });
      await once(server, 'listening');
      return port;
    } catch {
    } finally {
      server.close();
    }
  }
  return assert.fail('no port below 1024 is free');
}
