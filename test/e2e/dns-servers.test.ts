// dns-01 with DNS servers of one's own: the real program writes them, the real CA asks them, and nothing is left behind.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DnsProvider, DnsRecord, RecordType } from '../../dns/provider.ts';
import { powerdnsKind } from '../../dns/providers/powerdns.ts';
import { rfc2136Kind } from '../../dns/providers/rfc2136.ts';
import { createResolver } from '../../dns/resolver.ts';
import { startKnot } from '../support/knot.ts';
import { startPowerdns } from '../support/powerdns.ts';
import { createWorld, handshake, startApp } from '../support/world.ts';

const base = 'app.example.com';
const wildcard = `*.${base}`;
const zones = ['example.com', 'example.net'];

interface DnsServer extends AsyncDisposable {
  /** "host:port" for plain DNS. */
  readonly address: string;
  /** The provider's settings for the ingress. */
  readonly env: Readonly<Record<string, string>>;
  /** The zone owner's own hand. */
  readonly owner: DnsProvider;
  /** Knot answers with no more than the alias where its target is in another zone, so there it is in the same one. */
  readonly delegationZone: string;
}

async function knot(): Promise<DnsServer> {
  const { server, key, stop } = await startKnot(zones);
  const env = {
    RFC2136_NAMESERVER: server,
    RFC2136_TSIG_KEY: key.name,
    RFC2136_TSIG_SECRET: key.secret,
    RFC2136_TSIG_ALGORITHM: key.algorithm,
  };
  return {
    address: server,
    env,
    owner: rfc2136Kind.create(env),
    delegationZone: 'deleg.example.com',
    [Symbol.asyncDispose]: stop,
  };
}

async function powerdns(): Promise<DnsServer> {
  const { server, api, key, stop } = await startPowerdns(zones);
  const env = { PDNS_API_URL: api, PDNS_API_KEY: key };
  return {
    address: server,
    env,
    owner: powerdnsKind.create(env),
    delegationZone: 'deleg.example.net',
    [Symbol.asyncDispose]: stop,
  };
}

/** The server with the gateway's address in it, and a text of somebody else where challenges are answered. */
async function prepare(start: () => Promise<DnsServer>) {
  const server = await start();
  const world = await createWorld({ dnsServer: server.address });
  await server.owner.add({ name: '_.gateway.example.net', type: 'A', value: '127.0.0.1' });
  const resolver = createResolver({ servers: [server.address] });
  const seen = (type: RecordType, name: string) => resolver.resolve(name, type);
  return {
    server,
    world,
    seen,
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

for (const [name, start] of Object.entries({ knot, powerdns })) {
  test(`${name}: apex and wildcard are proven, CAA stands, and the challenge is gone`, async () => {
    await using stage = await prepare(start);
    await using app = await startApp('hello');
    const { server, world, seen } = stage;
    const foreign: DnsRecord = { name: `_acme-challenge.${base}`, type: 'TXT', value: 'of somebody else' };
    await server.owner.add(foreign);
    const ingress = world.start({
      ...server.env,
      DOMAINS: `${base}\n${wildcard}`,
      TARGET_ENDPOINT: app.url,
      SET_CAA: 'true',
    });
    await ingress.waitFor('ready');
    await assertServed(world.port, await world.roots());

    const account = ingress.log.find(({ msg }) => msg === 'account ready')?.account;
    const pin = `127.0.0.1;accounturi=${account};validationmethods=dns-01`;
    assert.deepEqual((await seen('CAA', base)).sort(), [`0 issue "${pin}"`, `0 issuewild "${pin}"`]);
    // CAA cannot stand beside an alias here, so the base has the gateway's address and the wildcard the alias.
    assert.deepEqual(await seen('CNAME', base), []);
    assert.deepEqual(await seen('A', base), ['127.0.0.1']);
    assert.deepEqual(await seen('CNAME', `any.${base}`), ['_.gateway.example.net']);
    const address = `${world.agent.appId}:${world.port}`;
    assert.deepEqual(await seen('TXT', `_dstack-app-address.${base}`), [address]);
    assert.deepEqual(await seen('TXT', `_dstack-app-address-wildcard.${base}`), [address]);
    assert.deepEqual(await seen('TXT', foreign.name), [foreign.value]);
    assertNoSecrets(JSON.stringify(ingress.log), server.env);
  });

  test(`${name}: with a delegation zone the domain's own zone holds nothing but the aliases of its owner`, async () => {
    await using stage = await prepare(start);
    await using app = await startApp('hello');
    const { server, world, seen } = stage;
    const { delegationZone } = server;
    const ingress = world.start({
      ...server.env,
      DOMAINS: `${base}\n${wildcard}`,
      TARGET_ENDPOINT: app.url,
      DELEGATION_ZONE: delegationZone,
    });
    // The owner writes the records when the log shows them, and not before.
    await ingress.waitFor('waiting for a DNS record');
    assert.equal(world.pebble.made('order'), 0);
    const shown = [...ingress.stderr().matchAll(/^(\S+)\. IN CNAME (\S+)\.$/gm)];
    assert.deepEqual(shown.map(([, alias]) => alias).sort(), [
      wildcard,
      `_acme-challenge.${base}`,
      `_dstack-app-address-wildcard.${base}`,
      `_dstack-app-address.${base}`,
      base,
    ]);
    for (const [, alias, target] of shown) {
      await server.owner.add({ name: alias!, type: 'CNAME', value: target! });
    }
    await ingress.waitFor('ready');
    await assertServed(world.port, await world.roots());

    const account = ingress.log.find(({ msg }) => msg === 'account ready')?.account;
    const pin = `127.0.0.1;accounturi=${account};validationmethods=dns-01`;
    assert.deepEqual((await seen('CAA', base)).sort(), [`0 issue "${pin}"`, `0 issuewild "${pin}"`]);
    assert.deepEqual(await server.owner.list(base, 'CAA'), []);
    assert.deepEqual(await seen('A', base), ['127.0.0.1']);
    assert.deepEqual(await seen('A', `any.${base}`), ['127.0.0.1']);
    const address = `${world.agent.appId}:${world.port}`;
    assert.deepEqual(await seen('TXT', `_dstack-app-address.${base}`), [address]);
    assert.deepEqual(await seen('TXT', `_dstack-app-address-wildcard.${base}`), [address]);
    assert.deepEqual(await seen('TXT', `_acme-challenge.${base}.${delegationZone}`), []);
  });
}

async function assertServed(port: number, ca: string): Promise<void> {
  for (const servername of [base, `any.${base}`]) {
    const socket = await handshake({ port, servername, ca });
    socket.destroy();
  }
}

function assertNoSecrets(log: string, env: Readonly<Record<string, string>>): void {
  for (const name of ['RFC2136_TSIG_SECRET', 'PDNS_API_KEY']) {
    const secret = env[name];
    if (secret !== undefined) assert.ok(!log.includes(secret), `${name} is in the log`);
  }
}
