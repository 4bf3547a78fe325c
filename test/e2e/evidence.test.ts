// Evidence as strangers read it from the built program: bundles while a renewal goes on, statements and their history over
// restarts, and fresh quotes while the agent comes and goes.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFile, mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { canonicalJson } from '../../evidence/canonical-json.ts';
import { readHistory } from '../../evidence/history.ts';
import {
  checkAttest,
  freshNonce,
  readBundle,
  readHttp1,
  readHttp2,
  type Target,
  whyInconsistent,
} from '../support/evidence-reader.ts';
import type { IngressProcess } from '../support/ingress-process.ts';
import { freePort } from '../support/ports.ts';
import { startSocketRelay } from '../support/socket-relay.ts';
import { createWorld, startApp, type World } from '../support/world.ts';

const domain = 'app.example.com';

let world: World;
let app: Awaited<ReturnType<typeof startApp>>;
let ingress: IngressProcess;
let target: Target;

const settings = () => ({
  DOMAIN: domain,
  TARGET_ENDPOINT: app.url,
  CHALLENGE_TYPE: 'tls-alpn-01',
  DNS_SETUP_MODE: 'print',
});

before(async () => {
  world = await createWorld();
  app = await startApp('from the app');
  ingress = world.start(settings());
  await ingress.waitFor('ready');
  target = { port: world.port, servername: domain, ca: await world.roots() };
});

after(async () => {
  await app?.[Symbol.asyncDispose]();
  await world?.[Symbol.asyncDispose]();
});

const sha256 = (text: string | Uint8Array) => createHash('sha256').update(text).digest('hex');

/** What both files say, read over one connection. */
async function readStatement() {
  const reader = await readHttp1(target);
  const [attestation, history] = [
    await reader.get('/evidences/attestation.json'),
    await reader.get('/evidences/history.jsonl'),
  ];
  reader.close();
  assert.deepEqual([attestation.status, history.status], [200, 200]);
  return {
    ...JSON.parse(attestation.body.toString()),
    history: history.body.toString(),
    wire: reader.certificate,
  };
}

/** The agent is in this process, and must not be kept waiting. */
async function sh(script: string, options: { cwd: string; env: NodeJS.ProcessEnv }): Promise<string> {
  return (await promisify(execFile)('sh', ['-euc', script], options)).stdout;
}

test('the steps by hand work as they stand in docs/verification.md: curl, sha256sum, openssl, jq', async () => {
  const page = await readFile(new URL('../../docs/verification.md', import.meta.url), 'utf8');
  const section = page.slice(page.indexOf('\n## By hand\n'), page.indexOf('\n## What is published'));
  const steps = [...section.matchAll(/^```sh\n([^`]*(?:`(?!``)[^`]*)*)```$/gm)].map(([, block]) => block);
  assert.equal(steps.length, 3);
  const folder = await mkdtemp(join(world.folder, 'by-hand-'));
  await writeFile(join(folder, 'roots.pem'), target.ca);
  const { statement } = await readStatement();
  const here = `127.0.0.1:${target.port}`;
  // The name leads here, and DNS has what the ingress asks for.
  const stands: Readonly<Record<string, string>> = {
    curl: `exec /usr/bin/curl --noproxy '*' --connect-to ${domain}:443:${here} --cacert ${folder}/roots.pem "$@"`,
    openssl: `for arg; do shift; test "$arg" = ${domain}:443 && arg=${here}; set -- "$@" "$arg"; done; exec /usr/bin/openssl "$@"`,
    dig: `echo '${statement.caa[domain]}'`,
  };
  for (const [name, script] of Object.entries(stands))
    await writeFile(join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  const env = { PATH: `${folder}:${process.env.PATH}`, HOME: folder };
  const said = await sh(steps.join('\n'), { cwd: folder, env });
  const lines = said.trimEnd().split('\n');
  const pair = (at: number) => assert.equal(lines[at], lines[at + 1], `${at}: ${said}`);
  assert.deepEqual(lines.slice(0, 3), ['acme-account.json: OK', `cert-${domain}.pem: OK`, 'bound']);
  pair(3);
  assert.ok(lines[6]!.includes(`accounturi=${lines[5]}`), said);
  pair(7);
  assert.equal(lines[9], 'last');
  pair(10);
  assert.deepEqual(lines.slice(12, 15), ['this nonce', 'this connection', 'this key']);
  pair(15);
  assert.match(lines[15]!, /^[0-9a-f]{128}$/);
  assert.equal(lines[17], 'Verified OK');
  assert.equal(lines.length, 18);
  const sums = await readFile(join(folder, 'evidence', 'sha256sum.txt'), 'utf8');
  assert.doesNotMatch(sums, /attestation|history|quote/, 'what vouches for itself is in no checksum');
});

test('a fresh quote is for the connection, the nonce and the key, over HTTP/1.1 and HTTP/2', async () => {
  for (const open of [readHttp1, readHttp2]) {
    const reader = await open(target);
    const quotes = new Set<string>();
    for (const bytes of [16, 64]) {
      const nonce = freshNonce(bytes);
      const { status, body, headers } = await reader.get(`/evidences/attest?nonce=${nonce}`);
      assert.equal(status, 200, body.toString());
      assert.equal(headers['cache-control'], 'no-store');
      quotes.add(checkAttest(body, nonce, reader).quote);
    }
    assert.equal(quotes.size, 2);
    reader.close();
  }
});

test('what is no question for a fresh quote is told why', async () => {
  const reader = await readHttp1(target);
  const good = freshNonce();
  for (const query of [
    '',
    '?nonce=',
    '?nonce=ab',
    `?nonce=${good.toUpperCase()}A`,
    `?nonce=${good}&nonce=${good}`,
  ]) {
    const { status, body } = await reader.get(`/evidences/attest${query}`);
    assert.equal(status, 400, query);
    assert.match(JSON.parse(body.toString()).error, /16 to 64 random bytes/);
  }
  reader.close();
  const old = await readHttp1(target, 'TLSv1.2');
  const { status, body } = await old.get(`/evidences/attest?nonce=${good}`);
  assert.equal(status, 400);
  assert.match(JSON.parse(body.toString()).error, /TLS 1\.3/);
  assert.equal((await old.get('/evidences/quote.json')).status, 200, 'the bundle is for all');
  old.close();
});

test('the statement is about what is served, its quote is over it, and the history ends with it', async () => {
  const { statement, report_data, quote, history, wire } = await readStatement();
  const expected = createHash('sha512')
    .update(`dstack-ingress/statement/v1\n${canonicalJson(statement)}`)
    .digest('hex');
  assert.equal(report_data, expected);
  assert.equal(quote.slice(1136, 1264), expected);
  assert.deepEqual(statement.domains, [domain]);
  assert.equal(statement.certificates.length, 1);
  const [certificate] = statement.certificates;
  assert.equal(certificate.sha256, wire.fingerprint256.replaceAll(':', '').toLowerCase());
  assert.equal(certificate.spki, sha256(wire.publicKey.export({ type: 'spki', format: 'der' })));
  assert.equal(certificate.serial, wire.serialNumber.toLowerCase());
  const reader = await readHttp1(target);
  const account = JSON.parse((await reader.get('/evidences/acme-account.json')).body.toString());
  reader.close();
  assert.equal(statement.account.uri, account.uri);
  assert.match(statement.account.thumbprint, /^[\w-]{43}$/);
  assert.equal(statement.caa[domain].length, 1);
  assert.ok(statement.caa[domain][0].includes(`accounturi=${account.uri};validationmethods=tls-alpn-01`));
  assert.deepEqual(
    [statement.appId, statement.instanceId, statement.composeHash],
    [world.agent.appId, world.agent.instanceId, world.agent.composeHash],
  );
  const { entries, faults } = readHistory(history);
  assert.deepEqual(faults, []);
  assert.deepEqual(entries.at(-1)?.statement, statement);
  const published = await readFile(join(world.folder, 'evidences', 'history.jsonl'), 'utf8');
  assert.equal(published, history);
});

test('of 200 readers beside a renewal each gets one generation, and that of the certificate he was shown', async () => {
  const known = ingress.log.length;
  const renewed = ingress.waitFor('evidence published', (line) => ingress.log.indexOf(line) >= known);
  const serials = new Set<string>();
  let done = false;
  let reads = 0;
  const wrong: string[] = [];
  // Until the renewal is over and each side of it has been read often enough.
  const keepReading = async (open: typeof readHttp2, pauseMs: number) => {
    while (!done || reads < 200) {
      const reader = await open(target);
      const read = await readBundle(reader, () => new Promise((resolve) => setTimeout(resolve, pauseMs)));
      const why = whyInconsistent(read, domain, reader.certificate);
      if (why !== undefined) wrong.push(why);
      serials.add(reader.certificate.serialNumber);
      reader.close();
      reads++;
    }
  };
  const readers = [0, 1, 3, 10, 40].flatMap((pauseMs) => [
    keepReading(readHttp1, pauseMs),
    keepReading(readHttp2, pauseMs),
  ]);
  setTimeout(() => ingress.kill('SIGUSR2'), 300);
  await renewed;
  done = true;
  await Promise.all(readers);
  assert.deepEqual(wrong, []);
  assert.ok(reads >= 200);
  assert.equal(serials.size, 2, 'both certificates were met');
});

test('many ask at once: few quotes, every answer verifies or is 429', async () => {
  const calls = () => world.agent.calls.filter((method) => method === 'GetQuote').length;
  const before = calls();
  const readers = await Promise.all(Array.from({ length: 20 }, () => readHttp2(target)));
  const statuses: number[] = [];
  const startedAt = performance.now();
  await Promise.all(
    readers.flatMap((reader) =>
      Array.from({ length: 25 }, async () => {
        const nonce = freshNonce();
        const { status, body, headers } = await reader.get(`/evidences/attest?nonce=${nonce}`);
        statuses.push(status);
        if (status === 200) checkAttest(body, nonce, reader);
        else assert.ok(Number(headers['retry-after']) > 0);
      }),
    ),
  );
  const seconds = (performance.now() - startedAt) / 1_000;
  for (const reader of readers) reader.close();
  const count = (status: number) => statuses.filter((each) => each === status).length;
  assert.equal(count(200) + count(429), 500);
  // Of each connection eight may wait, and 128 in a worker.
  assert.ok(count(200) >= 128, `${count(200)} answers`);
  assert.ok(calls() - before <= seconds + 2, `${calls() - before} quotes`);
});

test('an agent that is away for a moment costs a wait, one that is silent costs 503, and the app is served meanwhile', async () => {
  await using away = await startSocketRelay(join(world.folder, 'away.sock'), world.agent.endpoint);
  const port = await freePort();
  const other = world.start({
    ...settings(),
    PORT: String(port),
    DSTACK_SIMULATOR_ENDPOINT: away.endpoint,
    EVIDENCE_DIR: join(world.folder, 'other-evidences'),
  });
  await other.waitFor('ready');
  const reader = await readHttp2({ ...target, port });
  const ask = async (nonce: string) => reader.get(`/evidences/attest?nonce=${nonce}`);
  const nonces = Array.from({ length: 8 }, () => freshNonce());
  await away.close();
  const answers = nonces.map(ask);
  await other.waitFor('no fresh quotes for now');
  assert.equal((await reader.get('/')).body.toString(), 'from the app');
  await away.open();
  for (const [index, answer] of (await Promise.all(answers)).entries()) {
    const { status, body } = await answer;
    assert.equal(status, 200);
    checkAttest(body, nonces[index]!, reader);
  }
  away.silence();
  const unanswered = [freshNonce(), freshNonce()].map(ask);
  assert.equal((await reader.get('/')).body.toString(), 'from the app');
  for (const { status, headers } of await Promise.all(unanswered)) {
    assert.equal(status, 503);
    assert.ok(Number(headers['retry-after']) > 0);
  }
  reader.close();
  await other.stop();
});

test('the history outlives kills, is mended where it was cut, and a damaged one is told and shown', async () => {
  const before = readHistory((await readStatement()).history);
  const folder = join(world.env.STATE_DIR!, 'dstack-ingress');
  const file = join(folder, (await readdir(folder)).find((name) => name.startsWith('history-'))!);
  ingress.kill('SIGKILL');
  await ingress.exited;
  await appendFile(file, '{"account":{"thumbprint":"cut o');
  ingress = world.start(settings());
  await ingress.waitFor('ready');
  const mended = await readStatement();
  const { entries, faults } = readHistory(mended.history);
  assert.deepEqual(faults, []);
  assert.deepEqual(entries.slice(0, before.entries.length), before.entries);
  assert.ok(entries.length > before.entries.length);
  assert.deepEqual(entries.at(-1)!.statement, mended.statement);
  assert.equal(ingress.log.filter(({ msg }) => msg.includes('was cut off')).length, 1);
  await ingress.stop();

  const text = await readFile(file, 'utf8');
  await writeFile(file, text.replace(/"revision":"[^"]*"/, '"revision":"another"'));
  ingress = world.start(settings());
  await ingress.waitFor('ready');
  const damaged = ingress.log.filter(({ level, msg }) => level === 'error' && msg.includes('is damaged'));
  assert.equal(damaged.length, 1);
  const shown = readHistory((await readStatement()).history);
  assert.deepEqual(
    shown.faults.map(({ code, line }) => [code, line]),
    [['not-linked', 2]],
  );
});
