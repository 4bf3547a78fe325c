// The built ingress as a stranger verifies it, with DNS and certificate logs as they should be around it: every check passes.

import assert from 'node:assert/strict';
import type { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { createResolver } from '../../dns/resolver.ts';
import { createPlainExchange } from '../../dns/wire/exchange.ts';
import type { Statement } from '../../evidence/statement.ts';
import { createCtSource } from '../../evidence/verify/ask-ct.ts';
import { type Expected, verify } from '../../evidence/verify/index.ts';
import { startDnsDouble } from '../support/dns-double.ts';
import { spkiOf } from '../support/evidence-host.ts';
import { readHttp1 } from '../support/evidence-reader.ts';
import { createWorld, startApp, type World } from '../support/world.ts';

const domain = 'app.example.com';

let world: World;
let app: Awaited<ReturnType<typeof startApp>>;

before(async () => {
  world = await createWorld();
  app = await startApp('from the app');
  const ingress = world.start({
    DOMAIN: domain,
    TARGET_ENDPOINT: app.url,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
  });
  await ingress.waitFor('ready');
});

after(async () => {
  await app?.[Symbol.asyncDispose]();
  await world?.[Symbol.asyncDispose]();
});

/** Records that the ingress asks for, held by two resolvers and the zone. */
async function startZone({ caa }: Statement) {
  const table = {
    [`CAA ${domain}`]: caa[domain]!,
    'NS example.com': ['ns.example.com'],
    'A ns.example.com': ['127.0.0.1'],
  };
  const [first, second] = [await startDnsDouble(table), await startDnsDouble(table)];
  const { views = [], authority } = createResolver({
    doh: [first.doh, second.doh],
    authoritative: { exchangeWith: () => createPlainExchange(first.server, { recursion: false }) },
  });
  return { sources: { views, authority }, stop: () => Promise.all([first.stop(), second.stop()]) };
}

/** Two indexes of logs that hold the certificate. */
async function startLogs(leaf: X509Certificate) {
  const issuance = {
    id: '1',
    dns_names: [domain],
    pubkey_sha256: spkiOf(leaf),
    not_after: leaf.validToDate.toISOString(),
  };
  const server = createServer((request, response) => {
    response.end(JSON.stringify(request.url!.includes('after=') ? [] : [issuance]));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    sources: [createCtSource(`${url}/one`), createCtSource(`${url}/two`)],
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}

test('every check passes, for a reader who knows what to expect', { timeout: 120_000 }, async () => {
  const ca = await world.roots();
  const reader = await readHttp1({ port: world.port, servername: domain, ca });
  const { statement } = JSON.parse((await reader.get('/evidences/attestation.json')).body.toString());
  reader.close();
  const { agent, port } = world;
  const zone = await startZone(statement);
  const logs = await startLogs(reader.certificate);
  try {
    const options = {
      url: `https://${domain}:${port}`,
      address: '127.0.0.1',
      dns: zone.sources,
      ct: logs.sources,
      collateral: async () => agent.collateral,
    };
    const trust: Expected = { ca, quoteRoot: agent.rootDer };
    const { seen, checks } = await verify({ ...options, expected: trust });
    const measured = (id: string) => checks.find((check) => check.id === id)!.reason;
    const [mrtd, rtmr0, rtmr1, rtmr2] = measured('os.image').match(/[0-9a-f]{96}/g)!;
    const [, provider, id] = /measured is (\S+) ([0-9a-f]+)/.exec(measured('key.provider'))!;
    assert.equal(seen.host, domain);

    const { verdict, checks: again } = await verify({
      ...options,
      expected: {
        ...trust,
        appId: agent.appId,
        composeHash: agent.composeHash,
        systems: [{ mrtd, rtmrs: { 0: rtmr0!, 1: rtmr1!, 2: rtmr2! }, image: undefined }],
        keyProviders: [{ name: provider!, id }],
      },
    });
    assert.deepEqual(
      again.filter((check) => check.verdict !== 'pass'),
      [],
    );
    assert.equal(verdict, 'pass');
  } finally {
    logs.stop();
    await zone.stop();
  }
});
