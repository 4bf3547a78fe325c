// The demo, as a newcomer starts it with npm and as the image holds it: its printed commands run as printed, Ctrl-C ends it.

import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parseCollateral } from '../../evidence/verify/collateral.ts';
import { judgeQuote, parseRoot } from '../../evidence/verify/quote-rules.ts';
import { type Start, startOfImage } from '../support/bundle.ts';
import { runProgram } from '../support/ingress-process.ts';
import { freePort } from '../support/ports.ts';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));

/** Nothing failed, and what was not run is what cannot be: nobody expects a system or a key service, nobody knows localhost. */
const VERIFIED = new RegExp(
  [
    '^UNKNOWN .* nothing failed, and 10 of 35 checks',
    'not run {2}os\\.image',
    'not run {2}key\\.provider',
    'pass {5}attest\\.identity',
    'not run {2}dns\\.agreement',
  ].join('[\\s\\S]*'),
);

/** As the log has them: `12:00:00 info  serving`. */
const LOG_LINE = /^\d\d:\d\d:\d\d (info|warn|error) /m;

type Way = 'npm run demo' | 'the demo of the bundle';

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
  // As short as that of most machines, for what is printed has paths in it.
  temporary = await mkdtemp(join(tmpdir(), 'd-'));
});

after(() => rm(temporary, { recursive: true }));

for (const way of ['npm run demo', 'the demo of the bundle'] as const)
  describe(way, () => {
    let demo: RunningDemo;

    before(async () => {
      demo = await startDemo(way);
    });

    after(() => demo.stop());

    test('says what is simulated', () => {
      assert.match(demo.printed(), /^CA, guest agent, its quotes and the app are simulated/m);
    });

    test('begins with one short list, and its log comes behind that', async () => {
      // More comes when somebody asks.
      await shell([...demo.commands.values()][0]!);
      const printed = demo.printed().slice(demo.printed().indexOf('Starting: '));
      const [list, log] = printed.split('What follows is its log.\n');
      assert.ok(log !== undefined);
      assert.doesNotMatch(list!, LOG_LINE);
      assert.match(log, LOG_LINE);
      const short = list!.slice(0, list!.indexOf('A page over HTTP/1.1')).split('\n');
      assert.ok(short.length <= 30, short.join('\n'));
      // Where the program of a test lies is a longer path than npm's.
      if (way === 'npm run demo')
        assert.deepEqual(
          short.filter((line) => line.length > 80),
          [],
        );
    });

    test('names the status page, which shows it', async () => {
      const [, address] = /^The status +(http:\S+)$/m.exec(demo.printed())!;
      assert.match(await (await fetch(address!)).text(), /<title>dstack-ingress<\/title>/);
      assert.match(await (await fetch(`${address}status.json`)).text(), /"localhost"/);
    });

    /** `code`: what the command ends with, if not with success. */
    const shown: readonly [shows: string, output: RegExp, code?: number][] = [
      ['The page, as the app saw', /GET \/ HTTP\/1\.1\n[\s\S]*x-forwarded-proto: https/],
      ['The list that the evidence', /^[0-9a-f]{64} {2}acme-account\.json\n/],
      ['What the status page', /"localhost"/],
      ['All of it verified', VERIFIED, 3],
      ['A page over HTTP/1.1', /GET \/hello\?from=curl HTTP\/1\.1\n[\s\S]*x-forwarded-proto: https/],
      ['The same over HTTP/2', /^HTTP\/2 200[\s\S]*GET \/hello\?from=curl/],
      ['A WebSocket', /^hello\n$/],
      ['A unary gRPC call', /^hello World\n$/],
      ['A bidirectional gRPC stream', /^a\nb\nc\n$/],
      ['The evidence: fetch all', /^acme-account\.json: OK\n(.*: OK\n)*cert-localhost\.pem: OK\n/m],
      ['The report data', /is the digest of sha256sum\.txt\n$/],
      ['The same within', /signs the digest of sha256sum\.txt\n$/],
      ['The status in a terminal', /localhost/],
    ];

    for (const [shows, output, code = 0] of shown) {
      test(`"${shows}" works as printed`, async () => {
        const [, command] = [...demo.commands].find(([line]) => line.startsWith(shows)) ?? [];
        assert.ok(command !== undefined, `no command is printed under "${shows}"`);
        const { stdout, code: ended } = await shell(command);
        assert.equal(ended, code);
        assert.match(stdout, output);
        assert.doesNotMatch(stdout, /FAILED/);
      });
    }

    test('writes beside its ca.pem what its quotes are verified with', async () => {
      const caFile = /--cacert (\S+)/.exec([...demo.commands.values()].join('\n'))![1]!;
      const beside = (name: string) => readFile(join(dirname(caFile), name), 'utf8');
      const url = `https://localhost:${demo.port}/evidences/quote.json`;
      const { stdout } = await run('curl', ['-fsS', '--cacert', caFile, url]);
      const verdicts = await judgeQuote(
        JSON.parse(stdout).quote,
        parseCollateral(await beside('quote-collateral.json')),
        { root: parseRoot(await beside('quote-root.pem')), at: new Date() },
      );
      assert.deepEqual(
        Object.values(verdicts).filter(({ verdict }) => verdict !== 'pass'),
        [],
      );
    });

    test('prints no command that is not tried here', () => {
      assert.equal(demo.commands.size, shown.length);
    });
  });

/** As a newcomer pastes it. */
async function shell(command: string): Promise<{ stdout: string; code: number }> {
  const options = { cwd: root, env: terminal(), timeout: 60_000 };
  return run('sh', ['-c', command], options).then(
    ({ stdout }) => ({ stdout, code: 0 }),
    (error: { stdout: string; code: number }) => error,
  );
}

test('told nothing, it prints the first four commands and how to see the others', {
  timeout: 120_000,
}, async () => {
  const demo = await startDemo('the demo of the bundle', []);
  const list = demo.printed().split('What follows is its log.')[0]!;
  await demo.stop();
  assert.equal(demo.commands.size, 4);
  assert.match(list, /^More to try, .* demo --more$/m);
});

test('Ctrl-C ends it cleanly, and leaves neither a file nor a listener', { timeout: 120_000 }, async () => {
  const demo = await startDemo('the demo of the bundle');
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
  const { program, args, env } = startOfImage(['demo', '--port', String(await freePort())]);
  const child = spawn(program, args, {
    env: { ...terminal(), ...env, TMPDIR: home },
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
    const { code, stdout, stderr } = await runProgram(['demo', ...args], terminal());
    assert.deepEqual([code, stdout], [2, '']);
    assert.match(stderr, /^demo: .+\nhint: .+\n$/);
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

async function startDemo(way: Way, flags: readonly string[] = ['--more']): Promise<RunningDemo> {
  const port = await freePort();
  const { program, args, env, cwd } = startOf(way, ['--port', String(port), ...flags]);
  // A process group of its own, as a terminal would give it.
  // Both streams in one, as a terminal shows them.
  const child = spawn('sh', ['-c', 'exec "$@" 2>&1', 'sh', program, ...args], {
    cwd,
    env: { ...terminal(), ...env },
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

/** npm starts it from source: that is the README's first command, and there is no bundle in a clone. */
function startOf(way: Way, args: readonly string[]): Start {
  if (way === 'the demo of the bundle') return startOfImage(['demo', ...args]);
  return { program: 'npm', args: ['run', 'demo', '--', ...args], env: {}, cwd: root };
}

function commandsIn(text: string): Map<string, string> {
  const found = [...text.matchAll(/^(.+):\n {2}\$ ((?:.+\\\n)*.+)$/gm)];
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
