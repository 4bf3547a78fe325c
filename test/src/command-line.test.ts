// The command line: help wherever it is asked for, a neighbour for what is unknown, a sentence for a Node that is too old.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstatSync, readFileSync, realpathSync } from 'node:fs';
import { test } from 'node:test';
import { bundledProgram } from '../support/bundle.ts';

const program = bundledProgram();
const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

async function run(args: readonly string[], flags: readonly string[] = [], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [...flags, program, ...args], {
    env: { PATH: process.env.PATH ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text;
  });
  const [code] = await once(child, 'close');
  return { code: code as number, out, err };
}

test('an unknown command or flag names its nearest neighbour, and ends with the usage code', async () => {
  for (const [args, said] of [
    [['serv'], /^unknown command: serv\nhint: was serve meant\? /],
    [['statsu'], /^unknown command: statsu\nhint: was status meant\? /],
    [['--hlep'], /^unknown command: --hlep\nhint: /],
    [['help', 'rollovr'], /^unknown command: rollovr\nhint: was rollover meant\? /],
    [['frobnicate'], /^unknown command: frobnicate\nhint: dstack-ingress --help lists the commands\n$/],
    [['status', '--jsn'], /^status: unknown flag: --jsn\nhint: was --json meant\? /],
    [['status', '--of', 'x'], /^status: unknown flag: --of\nhint: dstack-ingress status --help /],
    [['serve', '--port'], /^serve: unknown flag: --port\nhint: /],
    [['serve', 'now'], /^serve: takes no such argument: now\nhint: /],
    [['rollover', '--hepl'], /^rollover: unknown flag: --hepl\nhint: was --help meant\? /],
    [['demo', '--prot', '1'], /^demo: unknown flag: --prot \(was --port meant\?\)\nhint: /],
    [['demo', 'websockets'], /^demo: unknown demo command: websockets \(was websocket meant\?\)\nhint: /],
  ] as const) {
    const { code, out, err } = await run(args);
    assert.match(err, said, args.join(' '));
    assert.deepEqual([code, out], [2, ''], args.join(' '));
  }
});

test('help is given on stdout wherever it is asked for, whatever the environment says', async () => {
  const wrong = { DOMAIN: 'https://wrong' };
  for (const [args, said] of [
    [['help'], /^usage: dstack-ingress \[command\]\n/],
    [['--help'], /^usage: dstack-ingress \[command\]\n/],
    [['-h'], /^usage: dstack-ingress \[command\]\n/],
    [['status', '--help'], /^usage: dstack-ingress status \[--json\] \[--offline\]\n/],
    [['status', '--json', '-h'], /^usage: dstack-ingress status /],
    [['help', 'status'], /^usage: dstack-ingress status /],
    [['serve', '--help'], /^usage: dstack-ingress serve\n/],
    [['rollover', '--help'], /^usage: dstack-ingress rollover\n/],
    [['demo', '--help'], /^usage: demo /],
    [['help', 'demo'], /^usage: demo /],
  ] as const) {
    const { code, out, err } = await run(args, [], wrong);
    assert.match(out, said, args.join(' '));
    assert.deepEqual([code, err], [0, ''], args.join(' '));
  }
  const { out } = await run(['help']);
  for (const name of ['serve', 'status', 'rollover', 'convert-nginx', 'demo', 'version', 'help']) {
    assert.match(out, new RegExp(`^ {2}${name} +\\w`, 'm'));
  }
});

/** A Node of this version that cannot read TypeScript, as far as the program can tell. */
const pretending = (node: string) => [
  '--no-strip-types',
  '--import',
  `data:text/javascript,Object.defineProperty(process,"versions",{value:{...process.versions,node:"${node}"}})`,
];

test('a Node that is too old is told in one line which is needed, whatever was asked for', async () => {
  for (const args of [[], ['--help'], ['status']]) {
    for (const node of ['20.20.2', '22.18.0', '24.11.9']) {
      const { code, out, err } = await run(args, pretending(node));
      assert.equal(
        err,
        `dstack-ingress needs Node 24.12 or newer, this is ${node}: npm ci brings one along, and npm start uses it\n`,
      );
      assert.deepEqual([code, out], [1, '']);
    }
  }
});

test('package.json asks for the Node that the program asks for, and warns nobody who only starts npm with another', () => {
  const { engines, devEngines } = JSON.parse(
    readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
  );
  const entry = readFileSync(new URL('../../src/entry.js', import.meta.url), 'utf8');
  const [major, minor] = ['OLDEST_MAJOR', 'OLDEST_MINOR'].map((name) => entry.match(`${name} = (\\d+)`)![1]);
  assert.equal(engines.node, `>=${major}.${minor}`);
  assert.deepEqual(devEngines.runtime, { name: 'node', version: engines.node, onFail: 'ignore' });
});

test('nothing but JavaScript is read before the version of Node is known', () => {
  const entry = new URL('../../src/main.ts', import.meta.url);
  assert.ok(lstatSync(entry).isSymbolicLink());
  assert.match(realpathSync(entry), /\/src\/entry\.js$/);
  const text = readFileSync(entry, 'utf8');
  assert.doesNotMatch(
    text,
    /^import|: (string|number)|require\(/m,
    'nothing is loaded at once, nothing has a type',
  );
});

test('the version is printed by its command and by its flag', async () => {
  for (const asked of ['version', '--version']) {
    const { code, out } = await run([asked]);
    assert.equal(code, 0);
    assert.ok(out.startsWith(`dstack-ingress ${version} `), out);
  }
});
