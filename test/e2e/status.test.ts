// The status command beside a running ingress, and where there is none.

import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Status } from '../../src/commands/status-report.ts';
import { startCloudflareDouble } from '../support/cloudflare-double.ts';
import { runProgram } from '../support/ingress-process.ts';
import { createWorld, servedSerial, startApp } from '../support/world.ts';

const domain = 'app.example.com';

async function runStatus(settings: Readonly<Record<string, string>>, ...args: string[]) {
  const { code, stdout, stderr } = await runProgram(['status', ...args], settings);
  return { code, text: stdout, stderr };
}

test('beside a running ingress it says certificate, next renewal, CAA and records, and sees what goes wrong', async () => {
  await using world = await createWorld();
  await using app = await startApp('hello');
  const api = await startCloudflareDouble({ zones: { 'example.com': [] }, dns: world.pebble.dns });
  try {
    const settings = {
      CLOUDFLARE_API_TOKEN: api.token,
      CLOUDFLARE_BASE_URL: api.url,
      DOMAINS: `${domain},*.${domain}`,
      TARGET_ENDPOINT: app.url,
      SET_CAA: 'true',
    };
    const ingress = world.start(settings);
    await ingress.waitFor('ready');
    const serial = await servedSerial({ port: world.port, servername: domain, ca: await world.roots() });
    // The test's DNS server shows nothing beside an alias.
    const { dns } = world.pebble;
    const account = ingress.log.find((line) => line.msg === 'account ready')?.account;
    const pin = `127.0.0.1;accounturi=${account};validationmethods=dns-01`;
    await dns.clearCname(domain);
    await dns.addA('_.gateway.example.net', ['127.0.0.1']);
    await dns.addCaa(domain, [
      { tag: 'issue', value: pin },
      { tag: 'issuewild', value: pin },
    ]);
    const env = { ...world.env, ...settings };
    const good = await runStatus(env);
    assert.equal(good.code, 0, good.stderr);
    assert.match(good.text, new RegExp(`^account +https://${world.pebble.address}/`, 'm'));
    assert.match(good.text, /^app\.example\.com: valid\n {2}certificate +/m);
    assert.match(good.text, /^\*\.app\.example\.com: valid$/m);
    assert.ok(good.text.includes(`${serial} by CN=Pebble Intermediate CA`), good.text);
    assert.match(good.text, /^ {2}next +20\d\d-.* \(a third of its life left\)$/m);
    assert.match(good.text, /^ {2}CAA +this account alone may have certificates at app\.example\.com/m);
    assert.match(good.text, /^ {2}records +in place$/m);

    await dns.clearTxt(`_dstack-app-address.${domain}`);
    await dns.clearCaa(domain);
    const bad = JSON.parse((await runStatus(env, '--json')).text) as Status;
    const [first] = bad.domains;
    assert.equal(first?.records.state, 'missing');
    assert.match(JSON.stringify(first?.records), /TXT .*_dstack-app-address\.app\.example\.com/);
    assert.deepEqual([first?.caa.state, bad.domains.length], ['open', 2]);

    const offline = await runStatus(
      { ...env, DNS_RESOLVERS: '127.0.0.1:9', DSTACK_SIMULATOR_ENDPOINT: '/nowhere' },
      '--offline',
    );
    assert.equal(offline.code, 0);
    assert.match(offline.text, /records +not known: the DNS was not asked/);
    // As it was before the order, and in the words of the log.
    const told = await ingress.waitFor('CAA cannot be seen through an alias');
    assert.match(String(told.cause), /^app\.example\.com is an alias, /);
    assert.ok(
      offline.text.includes(`  CAA           not known: ${told.cause}; ${told.cure}\n`),
      offline.text,
    );
    for (const { text } of [good, offline]) assert.doesNotMatch(text, /PRIVATE/);
  } finally {
    await api.stop();
  }
});

test('the last failure is told with its reason, and a domain without a certificate makes it fail', async () => {
  await using world = await createWorld();
  await using app = await startApp('hello');
  const settings = {
    DOMAIN: domain,
    TARGET_ENDPOINT: app.url,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'wait',
    DNS_SETUP_TIMEOUT: '1',
  };
  const ingress = world.start(settings);
  await ingress.waitFor('certificate cannot be ordered yet');
  const { code, text } = await runStatus({ ...world.env, ...settings });
  assert.equal(code, 1);
  assert.match(text, /^app\.example\.com: NO VALID CERTIFICATE$/m);
  assert.match(text, /^ {2}next +due now \(no certificate yet\)$/m);
  assert.match(text, /^ {2}last failure +20\d\d-.*: .*_dstack-app-address\.app\.example\.com/m);
  assert.match(text, /^ {2}records +MISSING: /m);
});

test('where nothing is there it says so, makes nothing, and puts nothing aside', async () => {
  await using world = await createWorld();
  const env = {
    ...world.env,
    DOMAIN: domain,
    TARGET_ENDPOINT: 'http://127.0.0.1:1',
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
  };
  const empty = await runStatus(env, '--offline');
  assert.equal(empty.code, 1);
  assert.match(empty.text, /account +none yet/);
  await assert.rejects(readdir(world.env.STATE_DIR!), { code: 'ENOENT' });

  const [host, path] = [world.pebble.address.replace(':', '_'), 'dir'];
  const folder = join(world.env.STATE_DIR!, 'dstack-ingress', host, path);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'account.json'), '{"key": "-----BEGIN PRI');
  await writeFile(join(folder, 'ledger.json'), '{');
  const damaged = await runStatus(env, '--offline');
  assert.equal(damaged.code, 1);
  assert.match(damaged.text, /problem +.*account\.json/);
  assert.deepEqual((await readdir(folder)).sort(), ['account.json', 'ledger.json']);
});

test('wrong arguments and a wrong configuration have their own exit codes', async () => {
  const wrong = await runStatus({}, '--jsno');
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /--jsno/);
  const unset = await runStatus({});
  assert.equal(unset.code, 78);
  assert.match(unset.stderr, /DOMAIN: no domain is set/);
});
