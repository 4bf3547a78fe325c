// The verify command from outside: what it prints and ends with, what it refuses, what it keeps, and what it says when it watches.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { checkIds } from '../../../evidence/verify/index.ts';
import { bundledProgram } from '../../support/bundle.ts';
import {
  createEvidenceWorld,
  type EvidenceHost,
  HOST,
  type Lie,
  machine,
  registersOf,
  startEvidenceHost,
  type World,
} from '../../support/evidence-host.ts';

const program = bundledProgram();

/** The servers of a zone are at port 53, where none of ours may listen: so it has none. */
const zoneless: Lie = { dns: { first: { [`NS ${HOST}`]: [] }, second: { [`NS ${HOST}`]: [] } } };

let world: World;
let folder: string;
let host: EvidenceHost;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'verify-'));
  world = await createEvidenceWorld();
  host = await startEvidenceHost(world, zoneless);
  await writeFile(join(folder, 'ca.pem'), world.ca.pem);
  await writeFile(join(folder, 'quote-root.pem'), world.processor.rootPem);
  await writeFile(join(folder, 'collateral.json'), JSON.stringify(world.processor.collateral));
  const [rtmr0, rtmr1, rtmr2] = registersOf(world.processor);
  await writeFile(
    join(folder, 'policy.yaml'),
    [
      'app:',
      `  id: "${machine.appId}"`,
      `  compose: "${machine.composeHash}"`,
      'systems:',
      `  - mrtd: "${machine.mrTd}"`,
      `    rtmr0: "${rtmr0}"`,
      `    rtmr1: "${rtmr1}"`,
      `    rtmr2: "${rtmr2}"`,
      'key_providers:',
      '  - name: kms',
      '    id: "beef"',
      '',
    ].join('\n'),
  );
});

after(async () => {
  await host.close();
  await rm(folder, { recursive: true });
});

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function run(args: readonly string[]): Promise<Ended> {
  const child = spawn(process.execPath, [program, 'verify', ...args], {
    cwd: folder,
    env: { PATH: process.env.PATH ?? '' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const [out, err, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close'),
  ]);
  return { code: code as number, out, err };
}

const trust = ['--ca', 'ca.pem', '--root', 'quote-root.pem', '--collateral', 'collateral.json'];

function everything({ url, resolvers, ct }: EvidenceHost): string[] {
  const dns = resolvers.flatMap(({ doh }) => ['--resolver', doh]);
  return [url, ...trust, ...dns, '--ct', ct.certSpotter, '--ct', `crtsh+${ct.crtsh}`];
}

interface Document {
  readonly verdict: string;
  readonly checks: readonly { readonly id: string; readonly verdict: string; readonly reason: string }[];
}

async function documentOf(args: readonly string[]): Promise<Ended & { readonly document: Document }> {
  const ended = await run([...args, '--json']);
  return { ...ended, document: JSON.parse(ended.out) as Document };
}

describe('verify', () => {
  test('prints one JSON document with every check once, and ends with 3 where not all could be run', async () => {
    const { code, document, err } = await documentOf(everything(host));
    assert.deepEqual([code, err, document.verdict], [3, '', 'unknown']);
    assert.deepEqual(
      document.checks.map(({ id }) => id),
      checkIds,
    );
    const open = ['app.id', 'app.compose', 'os.image', 'key.provider', 'dns.authority'];
    for (const { id, verdict, reason } of document.checks) {
      assert.equal(verdict, open.includes(id) ? 'not-run' : 'pass', `${id}: ${reason}`);
      assert.notEqual(reason, '');
    }
    assert.deepEqual(Object.keys(document), ['verdict', 'checks']);
    assert.deepEqual(Object.keys(document.checks[0]!), ['id', 'verdict', 'reason']);
  });

  test('compares with what flags and policy expect', async () => {
    const { document } = await documentOf([...everything(host), '--policy', 'policy.yaml']);
    const verdicts = new Map(document.checks.map(({ id, verdict }) => [id, verdict]));
    for (const id of ['app.id', 'app.compose', 'os.image', 'key.provider'])
      assert.equal(verdicts.get(id), 'pass', id);
    const flags = ['--app-id', 'b2'.repeat(20), '--compose', 'ca.pem'];
    const { code, document: other } = await documentOf([
      ...everything(host),
      '--policy',
      'policy.yaml',
      ...flags,
    ]);
    assert.equal(code, 1);
    const failed = other.checks.filter(({ verdict }) => verdict === 'fail');
    assert.deepEqual(
      failed.map(({ id }) => id),
      ['app.id', 'app.compose'],
    );
    assert.match(failed[0]!.reason, /; this means: .+; /);
  });

  test('counts what could not be run as failed under --strict', async () => {
    assert.equal((await run([...everything(host), '--strict'])).code, 1);
  });

  test('prints a report that begins with what matters, in plain text without a terminal', async () => {
    const { code, out } = await run([...everything(host), '--compose', 'b2'.repeat(32)]);
    assert.equal(code, 1);
    const [first, empty, group] = out.split('\n');
    assert.match(
      first!,
      /^FAIL {2}https:\/\/localhost:\d+: 1 of 35 checks failed, 4 could not be run: app\.compose$/,
    );
    assert.deepEqual([empty, group], ['', 'The connection']);
    assert.match(
      out,
      /FAIL {5}app\.compose +the compose file that is expected .*\n +this machine runs another .*\n +get the file/,
    );
    assert.doesNotMatch(out, /\u001b/);
    assert.match(out, /measured is a1a1a1a1a1a1…/);
    assert.match((await run([...everything(host), '-v'])).out, new RegExp(`measured is ${machine.appId}`));
  });

  test('judges every date by --time', async () => {
    // The collateral has thirty days, the certificate sixty, those of the processor a year.
    const long = ['--time', new Date(Date.now() + 100 * 86_400_000).toISOString()];
    const { code, document } = await documentOf([...everything(host), ...long]);
    assert.equal(code, 1);
    const failed = document.checks.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
    assert.deepEqual(failed, ['tls.chain', 'quote.collateral']);
  });

  test('does not write on a terminal what a host would like', async () => {
    const evil = '\u001b]0;owned\u0007\u001b[31mPASS\nAll is well';
    const lie: Lie = { ...zoneless, statement: (honest) => ({ ...honest, domains: [evil] }) };
    const liar = await startEvidenceHost(world, lie);
    const { out } = await run([...everything(liar), '-v']).finally(() => liar.close());
    assert.match(out, /FAIL {5}statement\.content/);
    assert.ok(!out.includes('\u001b') && !out.includes('\u0007'));
    assert.doesNotMatch(out, /^All is well/m);
  });

  test('keeps all that it saw, and judges it again with nobody to ask', async () => {
    const kept = join(folder, 'kept');
    const live = await documentOf([...everything(host), '--policy', 'policy.yaml', '--save', kept]);
    assert.deepEqual((await readdir(kept)).sort(), [
      'attest.json',
      'evidences',
      'quote-collateral.json',
      'seen.json',
      'wire.pem',
    ]);
    const flags = ['--ca', 'ca.pem', '--root', 'quote-root.pem', '--policy', 'policy.yaml'];
    const again = await documentOf(['--offline', kept, ...flags]);
    assert.deepEqual(again.document, live.document);
    assert.equal(again.code, live.code);

    const used = await run([...everything(host), '--save', kept]);
    assert.equal(used.code, 2);
    assert.match(used.err, /^verify: .*kept is not empty/);

    await writeFile(join(kept, 'evidences', `cert-${HOST}.pem`), 'another');
    const changed = await documentOf(['--offline', kept, ...flags]);
    assert.deepEqual(
      changed.document.checks.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id),
      ['bundle.sums'],
    );
    for (const damage of ['{', '{}', '[]']) {
      await writeFile(join(kept, 'seen.json'), damage);
      const { code, err } = await run(['--offline', kept, ...flags]);
      assert.equal(code, 2);
      assert.match(err, /^verify: .*seen\.json is not what --save writes\n$/);
    }
  });

  test('tells every mistake at once, on stderr, without a stack, and asks nobody', async () => {
    await writeFile(join(folder, 'wrong.yaml'), 'app:\n  ident: x\n  id: "12"\ntcb:\n  states: [Revoked]\n');
    const asked = host.asked.length;
    const { code, out, err } = await run([
      'http://app.example.com',
      ...[
        '--ca',
        'collateral.json',
        '--root',
        'missing.pem',
        '--collateral',
        'ca.pem',
        '--time',
        'yesterday',
      ],
      ...['--app-id', '12', '--compose', 'missing.json', '--resolver', 'ftp://a', '--ct', 'http://a.example'],
      ...['--policy', 'wrong.yaml', '--every', '5', '--pccs', 'nowhere', '--app-id', '34'],
    ]);
    assert.deepEqual([code, out], [2, '']);
    for (const said of [
      /^verify: "http:\/\/app\.example\.com" is not an https:\/\/ address$/m,
      /^verify: --ca: collateral\.json does not hold certificates in PEM$/m,
      /^verify: --root: missing\.pem: cannot be read: ENOENT: /m,
      /^verify: --collateral: ca\.pem: /m,
      /^verify: --time "yesterday" is no time as in 2026-/m,
      /^verify: --app-id is given 2 times$/m,
      /^verify: --compose: missing\.json: cannot be read: ENOENT/m,
      /^verify: "ftp:\/\/a" is not a DNS over HTTPS address/m,
      /^verify: --ct "http:\/\/a\.example" is not an https:\/\/ address$/m,
      /^verify: --pccs "nowhere" is not/m,
      /^verify: wrong\.yaml:2:3: "ident" is not a key of "app": wants id, compose$/m,
      /^verify: wrong\.yaml:3:7: "id" is "12": wants 20 bytes in hex/m,
      /^verify: wrong\.yaml:5:\d+: "Revoked" is no state that can be allowed: /m,
      /^verify: --every is for --watch, which is not given$/m,
      /^hint: .*--help/m,
    ])
      assert.match(err, said);
    assert.doesNotMatch(err, /^ +at /m);
    assert.equal(host.asked.length, asked);
  });

  test('refuses an address with a path, no address, two addresses, and flags that it does not know', async () => {
    for (const [args, said] of [
      [[`${host.url}/evidences/`], /has more than a host and a port/],
      [[], /lacks the address to verify: https:\/\/HOST/],
      [[host.url, host.url], /takes no such argument/],
      [[host.url, '--jsn'], /unknown flag: --jsn\nhint: was --json meant\?/],
      [[host.url, '--root'], /nothing follows --root/],
      [['--offline', 'missing'], /holds no seen\.json/],
    ] as const) {
      const { code, out, err } = await run(args);
      assert.deepEqual([code, out], [2, ''], String(args));
      assert.match(err, said);
    }
  });
});

test('verify --watch prints a line when a verdict turns, posts it, and ends on SIGTERM with the last verdict', {
  timeout: 120_000,
}, async () => {
  const letters: { verdict: string; was: string | null; changes: { id: string; verdict: string }[] }[] = [];
  const hook = createServer(async (request, response) => {
    letters.push(JSON.parse(await text(request)));
    response.end();
    hook.emit('letter');
  }).listen(0, '127.0.0.1');
  await once(hook, 'listening');
  const url = `http://127.0.0.1:${(hook.address() as AddressInfo).port}/`;
  const watched = await startEvidenceHost(world, zoneless);
  const args = [...everything(watched), '--watch', '--every', '0.01', '--webhook', url];
  const child = spawn(process.execPath, [program, 'verify', ...args], {
    cwd: folder,
    env: { PATH: process.env.PATH ?? '' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    out += part;
  });
  const printed = async (said: RegExp) => {
    while (!said.test(out)) await once(child.stdout, 'data');
  };
  try {
    await printed(/ verdict: unknown\n/);
    assert.equal(letters.length, 0, 'nothing has turned yet');
    watched.show(await world.ca.issue([HOST]));
    await printed(/ bundle\.leaf: pass -> fail: .+\n/);
    assert.match(out, / verdict: unknown -> fail\n/);
    watched.show(world.served);
    await printed(/ bundle\.leaf: fail -> pass: .+\n/);
    watched.show(await world.ca.issue([HOST]));
    await printed(/ verdict: fail -> unknown\n[\s\S]* verdict: unknown -> fail\n/);
    while (letters.length < 3) await once(hook, 'letter');
    child.kill('SIGTERM');
    const [code] = await once(child, 'exit');
    assert.equal(code, 1);
    assert.deepEqual([letters[0]?.was, letters[0]?.verdict], ['unknown', 'fail']);
    assert.ok(letters[0]?.changes.some(({ id, verdict }) => id === 'bundle.leaf' && verdict === 'fail'));
  } finally {
    child.kill('SIGKILL');
    hook.closeAllConnections();
    hook.close();
    await watched.close();
  }
});
