// The program traces: requests, certificates and quotes reach a collector; its key stays inside; and when it hangs nobody waits.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync, statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { manners, startCollector } from '../support/collector-double.ts';
import { freePort } from '../support/ports.ts';
import { eventually } from '../support/proxy.ts';
import { askAdmin, parseScrape } from '../support/scrape.ts';
import { createWorld, get, startApp } from '../support/world.ts';

const domain = 'app.example.com';
const KEY = 'the-key-of-the-collector';

test('spans of requests, certificates and quotes reach the collector, which may hang as it likes', async (t) => {
  await using world = await createWorld();
  await using app = await startApp('hello');
  const collector = await startCollector();
  t.after(() => collector.close());
  const headersFile = join(world.folder, 'otlp-headers');
  await writeFile(headersFile, `authorization=Bearer%20${KEY}\n`, { mode: 0o600 });
  const logFile = join(world.folder, 'access.log');
  const admin = { host: '127.0.0.1', port: await freePort() };
  const ingress = world.start({
    DOMAIN: domain,
    TARGET_ENDPOINT: app.url,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
    ACCESS_LOG: 'true',
    ACCESS_LOG_FILE: logFile,
    ADMIN_ADDRESS: `${admin.host}:${admin.port}`,
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint,
    OTEL_EXPORTER_OTLP_HEADERS_FILE: headersFile,
    OTEL_EXPORTER_OTLP_COMPRESSION: 'gzip',
    OTEL_SERVICE_NAME: 'shop',
    OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=a%20test',
  });
  await ingress.waitFor('ready');
  const ca = await world.roots();
  const ask = () => get({ port: world.port, servername: domain, ca, path: '/cart?id=7' });
  assert.equal((await ask()).body, 'hello');
  const named = (name: string) => collector.spans().filter((span) => span.name === name);
  const server = `GET ${domain}/`;
  await eventually(() => named(server).length === 1 && named('quote').length > 0);

  const [request] = named(server);
  const [upstream] = collector.spans().filter(({ parentSpanId }) => parentSpanId === request!.spanId);
  assert.deepEqual(
    [upstream!.kind, upstream!.traceId, upstream!.attributes['server.port']],
    [3, request!.traceId, app.port],
  );
  assert.equal(request!.attributes['url.path'], '/cart');
  const line = await ingress.waitFor('access', ({ path }) => path === '/cart');
  assert.equal(line.traceparent, `00-${request!.traceId}-${request!.spanId}-01`);

  // Moved away, and a signal: what comes then is in another file. Node's own meaning of the signal does not come about.
  const inFile = (path: string) =>
    existsSync(path) ? readFileSync(path, 'utf8').trimEnd().split('\n').length : 0;
  await eventually(() => inFile(logFile) === 1);
  renameSync(logFile, `${logFile}.1`);
  ingress.kill('SIGUSR1');
  await eventually(() => existsSync(logFile));
  assert.equal((await ask()).status, 200);
  await eventually(() => inFile(logFile) === 1);
  assert.deepEqual([inFile(`${logFile}.1`), statSync(logFile).mode & 0o777], [1, 0o600]);
  assert.doesNotMatch(ingress.stderr(), /Debugger/);
  const [obtained] = named('obtain certificate');
  assert.deepEqual(
    [obtained!.kind, obtained!.status, obtained!.attributes['dstack_ingress.domains']],
    [1, undefined, domain],
  );
  const { 'service.version': version, 'service.instance.id': instance, ...resource } = collector.resource();
  assert.ok(typeof version === 'string' && typeof instance === 'string');
  assert.deepEqual(resource, { 'service.name': 'shop', 'deployment.environment.name': 'a test' });
  assert.ok(collector.requests.every(({ headers }) => headers.authorization === `Bearer ${KEY}`));

  const { body } = await askAdmin(admin, '/metrics');
  assert.ok(parseScrape(body).sum('dstack_ingress_spans_total', { result: 'exported' }) >= 3);
  assert.ok(!(await askAdmin(admin, '/config.json')).body.includes(KEY));

  await eventually(() => named(server).length === 2);
  collector.behave(manners.hangs);
  const answers = await Promise.all(Array.from({ length: 50 }, ask));
  assert.ok(answers.every(({ status }) => status === 200));
  ingress.kill('SIGTERM');
  assert.deepEqual(await ingress.exited, { code: 0, signal: null });
  const last = await ingress.waitFor('not every span has reached the collector');
  assert.equal(Number(last.failed) + Number(last.dropped), 100);
  assert.ok(!JSON.stringify(ingress.log).includes(KEY) && !ingress.stderr().includes(KEY));
});
