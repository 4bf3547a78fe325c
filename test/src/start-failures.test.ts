// A start that fails ends the program: with the right code, with the reason, and with nothing left behind.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmdirSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { bundledProgram } from '../support/bundle.ts';
import { type IngressProcess, startIngressProcess } from '../support/ingress-process.ts';
import { isOpenToOthers, NOT_OPEN } from '../support/open-to-others.ts';
import { freePort } from '../support/ports.ts';

const mounts: string[] = [];
after(() => {
  for (const folder of mounts) {
    execFileSync('umount', [folder]);
    rmdirSync(folder);
  }
});

/** The fault that this guards against befell eight starts of thirteen. */
const ROUNDS = 4;

async function place(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'start-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

interface Start {
  readonly port: number;
  readonly ingress: IngressProcess;
}

async function start(t: TestContext, folder: string, settings: Record<string, string>): Promise<Start> {
  const port = await freePort();
  const ingress = startIngressProcess({
    DOMAIN: 'app.example.com',
    TARGET_ENDPOINT: 'http://127.0.0.1:9',
    GATEWAY_DOMAIN: 'gateway.example.net',
    CHALLENGE_TYPE: 'tls-alpn-01',
    // Nobody is there: what is tried after the start fails fast, and reaches nobody.
    ACME_DIRECTORY_URL: 'https://127.0.0.1:9/directory',
    DNS_RESOLVERS: '127.0.0.1:9',
    DSTACK_SIMULATOR_ENDPOINT: join(folder, 'agent.sock'),
    LISTEN_ADDRESS: '127.0.0.1',
    PORT: String(port),
    STATE_DIR: join(folder, 'state'),
    EVIDENCE_DIR: join(folder, 'evidences'),
    ...settings,
  });
  t.after(() => ingress.stop());
  return { port, ingress };
}

/** Pids of the processes that `pid` has started. */
async function childrenOf(pid: number): Promise<number[]> {
  const all = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const parents = await Promise.all(
    all.map(async (name) => {
      const stat = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => '');
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return { pid: Number(name), parent: Number(parent), state };
    }),
  );
  return parents.filter((each) => each.parent === pid && each.state !== 'Z').map((each) => each.pid);
}

/** Watches until the program ends: all that it ever started. */
async function offspring(ingress: IngressProcess): Promise<Set<number>> {
  const seen = new Set<number>();
  let ended = false;
  void ingress.exited.then(() => {
    ended = true;
  });
  while (!ended) {
    for (const pid of await childrenOf(ingress.pid)) seen.add(pid);
    await sleep(10);
  }
  return seen;
}

async function nothingLeft(port: number, started: ReadonlySet<number>): Promise<void> {
  // A killed process is gone once the kernel has taken it apart.
  for (let tries = 0; tries < 200 && [...started].some(isRunning); tries++) await sleep(10);
  assert.deepEqual([...started].filter(isRunning), [], 'no process is left');
  const server = await taken(port);
  server.close();
}

function isRunning(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

async function taken(port: number): Promise<Server> {
  const server = createServer();
  server.listen({ port, host: '127.0.0.1', exclusive: true });
  await once(server, 'listening');
  return server;
}

async function failsToStart(
  t: TestContext,
  settings: (folder: string) => Record<string, string>,
  says: RegExp,
): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) {
    const folder = await place(t);
    const WORKERS = round % 2 === 0 ? '1' : '4';
    const { port, ingress } = await start(t, folder, { WORKERS, ...settings(folder) });
    const started = await offspring(ingress);
    assert.deepEqual(await ingress.exited, { code: 1, signal: null });
    const last = ingress.log.at(-1)!;
    assert.equal(last.msg, 'cannot start');
    assert.match((last.err as { message: string }).message, says);
    await nothingLeft(port, started);
  }
}

test('a state folder on a read-only file system stops the start, and is called read-only', async (t) => {
  const mounted = await readOnlyFolder();
  if (mounted === undefined) return t.skip('no file system can be mounted here');
  await failsToStart(t, () => ({ STATE_DIR: mounted }), /file system is read-only/);
  await failsToStart(t, () => ({ STATE_DIR: join(mounted, 'not', 'there') }), /file system is read-only/);
});

test('a state folder that is a file stops the start, and is called no folder', async (t) => {
  const folder = await place(t);
  await writeFile(join(folder, 'file'), '');
  await failsToStart(t, () => ({ STATE_DIR: join(folder, 'file') }), /not a folder in its path/);
  await failsToStart(t, () => ({ STATE_DIR: join(folder, 'file', 'below') }), /not a folder in its path/);
});

test('a port that another program has stops the start', async (t) => {
  const server = await taken(await freePort());
  t.after(() => server.close());
  const port = String((server.address() as { port: number }).port);
  await failsToStart(t, () => ({ PORT: port }), new RegExp(`port ${port}: another program has it`));
  await failsToStart(t, () => ({ HTTP_PORT: port }), new RegExp(`port ${port}: another program has it`));
});

test('SIGTERM at any moment of the start ends the program and all that it started', async (t) => {
  for (let round = 0; round < 12; round++) {
    const folder = await place(t);
    const { port, ingress } = await start(t, folder, { WORKERS: '4' });
    const started = offspring(ingress);
    await sleep(round * 60);
    ingress.kill('SIGTERM');
    const { code, signal } = await ingress.exited;
    // Until it handles signals, the signal itself ends it.
    assert.ok(code === 0 || signal === 'SIGTERM', `${code} ${signal}`);
    await nothingLeft(port, await started);
  }
});

test('SIGKILL at any moment of the start leaves no worker', async (t) => {
  for (let round = 0; round < 8; round++) {
    const folder = await place(t);
    const { port, ingress } = await start(t, folder, { WORKERS: '2' });
    const started = offspring(ingress);
    await sleep(round * 90);
    ingress.kill('SIGKILL');
    await nothingLeft(port, await started);
  }
});

test('a second SIGTERM ends it at once, while a connection is still open', async (t) => {
  const folder = await place(t);
  const { port, ingress } = await start(t, folder, { WORKERS: '2' });
  await ingress.waitFor('serving');
  const started = offspring(ingress);
  // Held: a worker that stands still cannot drain. One that is asked first may be gone before it stands still.
  const workers = await childrenOf(ingress.pid);
  for (const pid of workers) process.kill(pid, 'SIGSTOP');
  ingress.kill('SIGTERM');
  await ingress.waitFor('stopping');
  await sleep(1_100);
  ingress.kill('SIGTERM');
  assert.deepEqual(await ingress.exited, { code: 0, signal: null });
  await nothingLeft(port, await started);
});

test('workers that stand still do not keep the program from ending when it is asked to', async (t) => {
  const folder = await place(t);
  const { port, ingress } = await start(t, folder, { WORKERS: '2' });
  await ingress.waitFor('serving');
  const started = offspring(ingress);
  for (const pid of await childrenOf(ingress.pid)) process.kill(pid, 'SIGSTOP');
  ingress.kill('SIGTERM');
  assert.deepEqual(await ingress.exited, { code: 0, signal: null });
  await nothingLeft(port, await started);
});

test('an evidence folder that cannot be written, and an agent that hangs, stop nothing', async (t) => {
  const folder = await place(t);
  await writeFile(join(folder, 'file'), '');
  const hanging = createServer(() => {});
  hanging.listen(join(folder, 'agent.sock'));
  await once(hanging, 'listening');
  t.after(() => hanging.close());
  const { port, ingress } = await start(t, folder, { EVIDENCE_DIR: join(folder, 'file', 'evidences') });
  await ingress.waitFor('serving');
  const started = offspring(ingress);
  ingress.kill('SIGTERM');
  assert.deepEqual(await ingress.exited, { code: 0, signal: null });
  await nothingLeft(port, await started);
});

test('a state folder that another process holds does not keep it from serving, nor from ending', async (t) => {
  const folder = await place(t);
  const first = await start(t, folder, {});
  await first.ingress.waitFor('serving');
  const second = await start(t, folder, {});
  await second.ingress.waitFor('serving');
  for (const { port, ingress } of [second, first]) {
    const started = offspring(ingress);
    ingress.kill('SIGTERM');
    assert.deepEqual(await ingress.exited, { code: 0, signal: null });
    await nothingLeft(port, await started);
  }
});

test('a state folder of another user stops the start of one who is not root', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('only root can start it as somebody else');
  if (!isOpenToOthers()) return t.skip(NOT_OPEN);
  const folder = await place(t);
  await mkdir(join(folder, 'state'), { mode: 0o700 });
  await chmod(folder, 0o755);
  const port = await freePort();
  const program = bundledProgram();
  const child = spawn(process.execPath, [program, 'serve'], {
    uid: 65_534,
    gid: 65_534,
    env: {
      DOMAIN: 'app.example.com',
      TARGET_ENDPOINT: 'http://127.0.0.1:9',
      GATEWAY_DOMAIN: 'gateway.example.net',
      CHALLENGE_TYPE: 'tls-alpn-01',
      LISTEN_ADDRESS: '127.0.0.1',
      PORT: String(port),
      STATE_DIR: join(folder, 'state'),
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text) => {
      said += text;
    });
  const [code] = await once(child, 'exit');
  assert.equal(code, 1, said);
  assert.match(said, /this user may not write there/);
});

/** A file system of its own, mounted read-only; undefined where nothing can be mounted. */
async function readOnlyFolder(): Promise<string | undefined> {
  const mounted = await mkdtemp(join(tmpdir(), 'read-only-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'ro', 'tmpfs', mounted], { stdio: 'pipe' });
  } catch {
    return undefined;
  }
  mounts.push(mounted);
  return mounted;
}
