// The demo as a newcomer meets it: started by npm, its printed commands run as printed, stopped by Ctrl-C.

import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { freePort } from '../support/ports.ts';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));

interface RunningDemo {
  readonly port: number;
  /** Everything printed so far. */
  readonly printed: () => string;
  /** By the line above each command, without its colon. */
  readonly commands: ReadonlyMap<string, string>;
  /** What a terminal does on Ctrl-C. Resolves when every process of it is gone. */
  stop(): Promise<void>;
}

let temporary: string;

before(async () => {
  temporary = await mkdtemp(join(tmpdir(), 'demo-test-'));
});

after(() => rm(temporary, { recursive: true }));

describe('npm run demo', () => {
  let demo: RunningDemo;

  before(async () => {
    demo = await startDemo();
  });

  after(() => demo.stop());

  test('says what is simulated', () => {
    assert.match(demo.printed(), /^Simulated: .*CA.*guest agent.*quotes.*app/m);
  });

  const shown: readonly [shows: string, output: RegExp][] = [
    ['A page over HTTP/1.1', /GET \/hello\?from=curl HTTP\/1\.1\n[\s\S]*x-forwarded-proto: https/],
    ['The same over HTTP/2', /^HTTP\/2 200[\s\S]*GET \/hello\?from=curl/],
    ['A WebSocket', /^hello\n$/],
    ['A unary gRPC call', /^hello World\n$/],
    ['A bidirectional gRPC stream', /^a\nb\nc\n$/],
    ['The evidence: fetch all', /^acme-account\.json: OK\n(.*: OK\n)*cert-localhost\.pem: OK\n/m],
    ['The report data', /is the digest of sha256sum\.txt\n$/],
    ['The same within', /signs the digest of sha256sum\.txt\n$/],
  ];

  for (const [shows, output] of shown) {
    test(`"${shows}" works as printed`, async () => {
      const [, command] = [...demo.commands].find(([line]) => line.startsWith(shows)) ?? [];
      assert.ok(command !== undefined, `no command is printed under "${shows}"`);
      const { stdout } = await run('sh', ['-c', command], { cwd: root, env: terminal(), timeout: 60_000 });
      assert.match(stdout, output);
      assert.doesNotMatch(stdout, /FAILED/);
    });
  }

  test('prints no command that is not tried here', () => {
    assert.equal(demo.commands.size, shown.length);
  });
});

test('Ctrl-C ends it cleanly, and leaves neither a file nor a listener', { timeout: 120_000 }, async () => {
  const demo = await startDemo();
  const caFile = /--cacert (\S+ca\.pem)/.exec(demo.printed())![1]!;
  await access(caFile);
  await demo.stop();
  assert.match(demo.printed(), /\nStopping\.\n/);
  await assert.rejects(access(dirname(caFile)), { code: 'ENOENT' });
  const again = createServer().listen(demo.port, '127.0.0.1');
  await once(again, 'listening');
  again.close();
});

test('told to stop while it starts, it ends with success and leaves nothing behind', {
  timeout: 60_000,
}, async () => {
  const home = await mkdtemp(join(temporary, 'early-'));
  const args = [join(root, 'src/main.ts'), 'demo', '--port', String(await freePort())];
  const child = spawn(process.execPath, args, {
    env: { ...terminal(), TMPDIR: home },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout.resume();
  await once(child.stderr, 'data');
  child.stderr.resume();
  child.kill('SIGTERM');
  const [code, signal] = await once(child, 'close');
  assert.deepEqual([code, signal], [0, null]);
  assert.deepEqual(await readdir(home), []);
});

test('a port that is taken is named at once, with the flag that takes another', async () => {
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as { port: number };
  const refused = await run('npm', ['run', '--silent', 'demo', '--', '--port', String(port)], {
    cwd: root,
    env: terminal(),
  }).then(
    () => assert.fail('the port is taken'),
    (error: { code: number; stderr: string; stdout: string }) => error,
  );
  taken.close();
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, new RegExp(`port ${port} is taken`));
  assert.match(refused.stderr, /--port N/);
});

test('wrong arguments are a mistake of usage, and nothing is started', async () => {
  for (const args of [
    ['--port', 'http'],
    ['--prot', '1'],
    ['websocket', 'hello'],
    ['sing'],
    ['grpc-unary', '--ca', 'x'],
  ]) {
    await assert.rejects(
      run(process.execPath, [join(root, 'src/main.ts'), 'demo', ...args], { env: terminal() }),
      (error: { code: number; stdout: string; stderr: string }) => {
        assert.deepEqual([error.code, error.stdout], [2, '']);
        assert.match(error.stderr, /^demo: .+\nhint: .+\n$/);
        return true;
      },
    );
  }
});

/** A newcomer's shell: this Node first, nothing of the test runner, and a folder for temporary files of its own. */
function terminal(): Record<string, string> {
  return {
    PATH: [dirname(process.execPath), process.env.PATH].join(':'),
    HOME: process.env.HOME ?? '/',
    TMPDIR: temporary,
  };
}

async function startDemo(): Promise<RunningDemo> {
  const port = await freePort();
  // A process group of its own, as a terminal would give it.
  const child = spawn('npm', ['run', 'demo', '--', '--port', String(port)], {
    cwd: root,
    env: terminal(),
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  const complete = new Promise<void>((resolve, reject) => {
    const read = (part: string) => {
      text += part;
      if (text.includes('Stop it with Ctrl-C.')) resolve();
    };
    child.stdout.setEncoding('utf8').on('data', read);
    child.stderr.setEncoding('utf8').on('data', read);
    child.once('exit', (code) => reject(new Error(`the demo ended (${code}) before it served:\n${text}`)));
    // The promise of the README, and no measure of speed.
    setTimeout(() => reject(new Error(`the demo does not serve:\n${text}`)), 60_000).unref();
  });
  try {
    await complete;
  } catch (error) {
    await interrupt(child);
    throw error;
  }
  return { port, printed: () => text, commands: commandsIn(text), stop: () => interrupt(child) };
}

function commandsIn(text: string): Map<string, string> {
  const found = [...text.matchAll(/^(.+):\n {2}\$ (.+)$/gm)];
  return new Map(found.map(([, shows, command]) => [shows!, command!]));
}

async function interrupt(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  // Not "exit": npm may end before what it started does, which still holds the pipes.
  const gone = once(child, 'close');
  process.kill(-child.pid!, 'SIGINT');
  const impatience = setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), 20_000);
  await gone;
  clearTimeout(impatience);
}
