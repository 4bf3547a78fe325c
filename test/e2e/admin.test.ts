// The program shows itself: health before and after it is ready, every metric of the table and no other, and nothing secret.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { metrics } from '../../src/admin/metrics.ts';
import type { WholeReport } from '../../src/admin/report.ts';
import { runProgram } from '../support/ingress-process.ts';
import { freePort } from '../support/ports.ts';
import { askAdmin, parseScrape } from '../support/scrape.ts';
import { createWorld, get, startApp } from '../support/world.ts';

const domain = 'app.example.com';
const TOKEN = 'the-token-of-this-test';

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail(`${what}: waited in vain`);
}

/** The words behind CMD in the HEALTHCHECK of the Dockerfile, without Node and the program. */
function healthcheckOfImage(): string[] {
  const dockerfile = readFileSync(new URL('../../Dockerfile', import.meta.url), 'utf8');
  const words = JSON.parse(/HEALTHCHECK[^\n]*\\\n\s*CMD (\[.*\])/.exec(dockerfile)![1]!) as string[];
  assert.deepEqual(words.slice(0, 2), ['/nodejs/bin/node', '/app/dstack-ingress.mjs']);
  return words.slice(2);
}

test('it says when it is ready, tells every metric of the table, and shows no secret', async () => {
  await using world = await createWorld();
  await using app = await startApp('hello');
  const routesFile = join(world.folder, 'routes.yaml');
  const hash = `{SHA}${createHash('sha1').update('open sesame').digest('base64')}`;
  const routes = (more = '') =>
    writeFile(
      routesFile,
      `routes:\n  - host: ${domain}\n    paths:\n      - { prefix: /, upstream: "${app.url}" }\n      - { prefix: /status/, admin: true, basic_auth: { users: { operator: "${hash}" } } }\n${more}`,
    );
  await routes();
  const where = { host: '127.0.0.1', port: await freePort() };
  const settings = {
    ROUTES_FILE: routesFile,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
    ADMIN_ADDRESS: `${where.host}:${where.port}`,
    ADMIN_TOKEN: TOKEN,
    CLOUDFLARE_API_TOKEN: 'a-token-that-is-not-needed-here',
  };
  const env = { ...world.env, ...settings };
  const check = healthcheckOfImage();

  const early = await runProgram(check, env);
  assert.equal(early.code, 1);
  assert.match(early.stderr, /^healthcheck: no ingress answers at /);

  const ingress = world.start(settings);
  await ingress.waitFor('ready');
  const health = await runProgram(check, env);
  assert.equal(health.code, 0, health.stderr);
  assert.match(health.stdout, /^ready\nok {2}certificates: 1 of 1 /);

  const ca = await world.roots();
  const ask = (path: string, host = domain) =>
    get({ port: world.port, servername: domain, ca, path, host }).then(({ status }) => status);
  const headers = { authorization: `Bearer ${TOKEN}` };
  const throughRoute = (path: string, password: string) =>
    get({
      port: world.port,
      servername: domain,
      ca,
      path: `/status/${path}`,
      headers: [`Authorization: Basic ${Buffer.from(`operator:${password}`).toString('base64')}`],
    });
  assert.equal((await throughRoute('', 'a guess')).status, 401);
  const page = await throughRoute('', 'open sesame');
  assert.equal(page.status, 200);
  assert.match(page.head, /^content-security-policy: default-src 'none'/im);
  assert.match((await throughRoute('readyz', 'open sesame')).body, /certificates: 1 of 1/);
  const scrape = async () => (await askAdmin(where, '/metrics', { headers })).body;
  assert.equal(await ask('/'), 200);
  assert.equal(await ask('/', 'other.example.com'), 421);
  await routes('      - { prefix: /gone/, upstream: "http://127.0.0.1:1" }\n');
  await ingress.waitFor('routes replaced');
  assert.equal(await ask('/gone/'), 502);
  await writeFile(routesFile, 'routes: 7\n');
  await ingress.waitFor('routes file refused, the old routes go on');
  const sum = async (name: string, labels = {}) => parseScrape(await scrape()).sum(name, labels);
  await until('all to be told', async () => (await sum('dstack_ingress_http_requests_total')) >= 3);
  assert.equal(await sum('dstack_ingress_config_reloads_total', { result: 'applied' }), 1);
  assert.equal(await sum('dstack_ingress_config_reloads_total', { result: 'refused' }), 1);
  assert.equal(await sum('dstack_ingress_certificate_renewals_total', { result: 'obtained' }), 1);
  assert.equal(await sum('dstack_ingress_upstream_healthy', { upstream: 'http://127.0.0.1:1' }), 0);
  const left = (await sum('dstack_ingress_certificate_not_after_timestamp_seconds')) - Date.now() / 1_000;
  assert.ok(left > 0, `${left} s left`);

  const text = await scrape();
  const typed = [...text.matchAll(/^# TYPE (\S+) /gm)].map(([, name]) => name!);
  const all = Object.values(metrics).map(({ name }) => name);
  assert.deepEqual(typed.sort(), all.toSorted());
  // Those of the store are told where there is one.
  const store = [metrics.storeUp, metrics.storeCalls, metrics.storeDuration].map(
    ({ name }) => name as string,
  );
  assert.deepEqual([...parseScrape(text).names].sort(), all.filter((name) => !store.includes(name)).sort());
  execFileSync('promtool', ['check', 'metrics'], { input: text });

  const config = JSON.parse((await askAdmin(where, '/config.json', { headers })).body) as {
    settings: { name: string; value?: string }[];
  };
  const shown = new Map(config.settings.map(({ name, value }) => [name, value]));
  assert.equal(shown.get('CHALLENGE_TYPE'), 'tls-alpn-01');
  for (const secret of ['ADMIN_TOKEN', 'CLOUDFLARE_API_TOKEN']) {
    assert.ok(shown.has(secret), secret);
    assert.equal(shown.get(secret), undefined);
  }
  await until('the status', async () => {
    const { body } = await askAdmin(where, '/status.json', { headers });
    assert.doesNotMatch(body, /PRIVATE|the-token-of|not-needed-here/);
    return (JSON.parse(body) as WholeReport).status?.domains[0]?.valid === true;
  });

  ingress.kill('SIGTERM');
  assert.deepEqual((await ingress.exited).code, 0);
  assert.equal((await runProgram(check, env)).code, 1);
});
