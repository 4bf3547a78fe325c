// Records become true without losing anything of anybody's, through real provider packages and doubles of their APIs.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { DnsError } from '../../../dns/error.ts';
import type { DnsProvider, DnsRecord, RecordType } from '../../../dns/provider.ts';
import { cloudflareKind } from '../../../dns/providers/cloudflare.ts';
import { linodeKind } from '../../../dns/providers/linode.ts';
import { route53Kind } from '../../../dns/providers/route53.ts';
import type { Resolver } from '../../../dns/resolver.ts';
import { normalizeValue } from '../../../dns/wire/presentation.ts';
import type { Clock } from '../../../src/lib/clock.ts';
import { createLog, type Log, silentLog } from '../../../src/lib/log.ts';
import { createRecordsSetup } from '../../../src/records/setup.ts';
import type { ApiDouble, HeldRecord } from '../../support/api-double.ts';
import { startCloudflareDouble } from '../../support/cloudflare-double.ts';
import { startLinodeDouble } from '../../support/linode-double.ts';
import { ACCESS_KEY_ID, startRoute53Double } from '../../support/route53-double.ts';

const GATEWAY = 'gateway.example.net';
const alias: DnsRecord = { name: 'app.example.com', type: 'CNAME', value: GATEWAY };
const text: DnsRecord = { name: '_dstack-app-address.app.example.com', type: 'TXT', value: 'abc123:443' };
const pin: DnsRecord = {
  name: 'app.example.com',
  type: 'CAA',
  value: '0 issue "ca.example;accounturi=https://ca.example/1;validationmethods=dns-01"',
};
const all = [alias, text, pin];
const swift = { patience: { firstWaitMs: 1, attempts: 2 } };
const never = new AbortController().signal;
const line = ({ type, name, value }: DnsRecord) => `${type} ${name} ${value}`;
const held = (type: string, name: string, value: string, proxied = false) => ({ type, name, value, proxied });

const doubles: ApiDouble[] = [];
after(() => Promise.all(doubles.map((double) => double.stop())));

async function cloudflare(records: Omit<HeldRecord, 'id'>[] = []) {
  const double = await startCloudflareDouble({ zones: { 'example.com': records } });
  doubles.push(double);
  const credentials = { CLOUDFLARE_API_TOKEN: double.token, CLOUDFLARE_BASE_URL: double.url };
  return { double, provider: cloudflareKind.create(credentials, swift) };
}

async function linode(records: Omit<HeldRecord, 'id'>[] = []) {
  const double = await startLinodeDouble({ zones: { 'example.com': records } });
  doubles.push(double);
  const credentials = { LINODE_API_TOKEN: double.token, LINODE_API_URL: double.url };
  return { double, provider: linodeKind.create(credentials, swift) };
}

/** Sees what the double holds, and the gateway's addresses. */
function resolverOf(double: ApiDouble, gateway = ['192.0.2.10']): Resolver {
  return {
    async resolve(name: string, type: RecordType) {
      if (name === GATEWAY) return type === 'A' ? gateway : [];
      const records = [...double.zones.values()].flatMap((zone) => zone.records);
      return records
        .filter((one) => one.name === name && one.type === type)
        .map((one) => normalizeValue(type, one.value));
    },
  };
}

const instantClock = (): Clock => {
  let now = 0;
  return {
    now: () => new Date(now),
    sleep: async (ms) => {
      now += ms;
    },
  };
};

function setUp(
  double: ApiDouble,
  provider: DnsProvider,
  log: Log = silentLog,
  resolver = resolverOf(double),
) {
  return createRecordsSetup({
    mode: 'auto',
    provider,
    resolver,
    timeoutMs: 10_000,
    log,
    clock: instantClock(),
  });
}

async function conflict(run: Promise<unknown>): Promise<string> {
  const error = await run.then(
    () => assert.fail('it succeeded'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof DnsError && error.code === 'conflict', String(error));
  return error.message;
}

function capture() {
  const lines: Record<string, unknown>[] = [];
  const stream = { write: (one: string) => lines.push(JSON.parse(one)) } as unknown as NodeJS.WritableStream;
  return { lines, log: createLog({ stream }) };
}

describe('writing', () => {
  test('an empty zone gets alias, address and pin, in this order', async () => {
    const { double, provider } = await cloudflare();
    await setUp(double, provider).ensure(all, never);
    assert.deepEqual(
      double.writes().map(({ body }) => (body as { type: string }).type),
      ['CNAME', 'TXT', 'CAA'],
    );
    assert.deepEqual(double.contents(), all.map(line).sort());
  });

  test('a second run with everything in place writes nothing', async () => {
    for (const start of [cloudflare, linode]) {
      const { double, provider } = await start();
      await setUp(double, provider).ensure(all, never);
      const before = double.writes().length;
      await setUp(double, provider).ensure(all, never);
      assert.equal(double.writes().length, before);
    }
  });

  test('a website’s address at the name is not taken away', async () => {
    const { double, provider } = await cloudflare([held('A', 'app.example.com', '198.51.100.1')]);
    const message = await conflict(setUp(double, provider).ensure(all, never));
    assert.match(message, /app\.example\.com has addresses.*A 198\.51\.100\.1.*remove them/);
    assert.deepEqual(double.writes(), []);
  });

  test('addresses that are the gateway’s own make place for the alias', async () => {
    const { double, provider } = await cloudflare([held('A', 'app.example.com', '192.0.2.10')]);
    await setUp(double, provider).ensure([alias], never);
    assert.deepEqual(double.contents(), [line(alias)]);
  });

  test('another alias is replaced', async () => {
    const { double, provider } = await cloudflare([
      held('CNAME', 'app.example.com', 'old-gateway.example.net'),
    ]);
    await setUp(double, provider).ensure(all, never);
    assert.deepEqual(double.contents(), all.map(line).sort());
  });

  test('an alias that cannot be written leaves the one before in its place', async () => {
    const old = held('CNAME', 'app.example.com', 'old-gateway.example.net');
    const { double, provider } = await cloudflare([old]);
    double.misbehave({
      method: 'POST',
      status: 400,
      body: '{"success":false,"errors":[{"code":9999,"message":"no"}]}',
    });
    await assert.rejects(setUp(double, provider).ensure(all, never), { code: 'refused' });
    assert.deepEqual(double.contents(), ['CNAME app.example.com old-gateway.example.net']);
  });

  test('an alias behind the provider’s own proxy is made DNS only', async () => {
    const { double, provider } = await cloudflare([held('CNAME', 'app.example.com', GATEWAY, true)]);
    await setUp(double, provider).ensure([alias], never);
    assert.equal(double.zones.get('example.com')?.records[0]?.proxied, false);
  });

  test('an older address of ours is replaced and stands alone', async () => {
    const { double, provider } = await cloudflare([
      held('TXT', text.name, 'old999:443'),
      held('TXT', text.name, 'older:8443'),
    ]);
    await setUp(double, provider).ensure([text], never);
    assert.deepEqual(double.contents(), [line(text)]);
  });

  test('a text of somebody else where the gateway looks is told of and left alone', async () => {
    const { double, provider } = await cloudflare([held('TXT', text.name, 'v=spf1 -all')]);
    assert.match(await conflict(setUp(double, provider).ensure([text], never)), /v=spf1 -all/);
    assert.deepEqual(double.writes(), []);
  });

  test('CAA records of others stay, and one that defeats the pin is warned of', async () => {
    const theirs = [
      held('CAA', 'app.example.com', '0 issue "ca.example"'),
      held('CAA', 'app.example.com', '0 issue "ca.example;accounturi=https://ca.example/2"'),
      held('CAA', 'app.example.com', '0 iodef "mailto:a@example.com"'),
      held('CAA', 'app.example.com', '0 issuewild ";"'),
    ];
    const { double, provider } = await cloudflare(theirs);
    const { lines, log } = capture();
    await setUp(double, provider, log).ensure([pin], never);
    assert.equal(double.contents().length, 5);
    const warnings = lines.filter(({ level }) => level === 'warn');
    assert.deepEqual(
      warnings.map(({ permits }) => permits),
      ['any account', 'another account'],
    );
  });

  test('a pin that we know to be outlived is removed, by its exact value, once the new one stands', async () => {
    const old = {
      ...pin,
      value: '0 issue "ca.example;accounturi=https://ca.example/0;validationmethods=dns-01"',
    };
    const { double, provider } = await cloudflare([held('CAA', pin.name, old.value)]);
    await setUp(double, provider).ensure([pin], never, [old, pin]);
    assert.deepEqual(double.contents(), [line(pin)]);
    assert.deepEqual(
      double.writes().map(({ method }) => method),
      ['POST', 'DELETE'],
    );
  });

  test('a zone that cannot be read is not written', async () => {
    const { double, provider } = await cloudflare([
      held('CNAME', 'app.example.com', 'old-gateway.example.net'),
    ]);
    double.misbehave({ path: /dns_records/, body: '{"success":true,"errors":[],"result":null}' });
    await assert.rejects(setUp(double, provider).ensure(all, never), { code: 'unintelligible' });
    assert.deepEqual(double.writes(), []);
  });

  test('a record that is written and never seen is an error after the time given', async () => {
    const { double, provider } = await cloudflare();
    const blind: Resolver = { resolve: async () => [] };
    const run = setUp(double, provider, silentLog, blind).ensure([text], never);
    await assert.rejects(run, { code: 'not-visible' });
  });

  test('a run that is given up writes nothing more', async () => {
    const { double, provider } = await cloudflare();
    await assert.rejects(
      setUp(double, provider).ensure(all, AbortSignal.abort(new Error('stopping'))),
      /stopping/,
    );
    assert.deepEqual(double.writes(), []);
  });

  test('the log of what is written holds no token', async () => {
    const { double, provider } = await cloudflare();
    const { lines, log } = capture();
    await setUp(double, provider, log).ensure(all, never);
    assert.equal(lines.filter(({ msg }) => msg === 'wrote a DNS record').length, 3);
    assert.ok(!JSON.stringify(lines).includes(double.token));
  });
});

describe('where CAA cannot stand beside a CNAME', () => {
  const addresses = ['A app.example.com 192.0.2.10', line(pin), line(text)].sort();

  test('the gateway’s addresses are written in place of the alias', async () => {
    const { double, provider } = await linode();
    await setUp(double, provider).ensure(all, never);
    assert.deepEqual(double.contents(), addresses);
  });

  test('without a pin the alias is an alias', async () => {
    const { double, provider } = await linode();
    await setUp(double, provider).ensure([alias, text], never);
    assert.deepEqual(double.contents(), [line(alias), line(text)].sort());
  });

  test('a wildcard’s alias stays one, for its pin stands at the base', async () => {
    const { double, provider } = await linode();
    const wild = { ...alias, name: '*.app.example.com' };
    await setUp(double, provider).ensure([wild, pin], never);
    assert.deepEqual(double.contents(), [line(wild), line(pin)].sort());
  });

  test('an alias from before is replaced by addresses, and comes back if they cannot be written', async () => {
    const before = [held('CNAME', 'app.example.com', GATEWAY)];
    const failing = await linode(before);
    failing.double.misbehave({ method: 'POST', status: 400, body: '{"errors":[{"reason":"no"}]}' });
    await assert.rejects(setUp(failing.double, failing.provider).ensure(all, never), { code: 'refused' });
    assert.deepEqual(failing.double.contents(), [line(alias)]);
    const working = await linode(before);
    await setUp(working.double, working.provider).ensure(all, never);
    assert.deepEqual(working.double.contents(), addresses);
  });

  test('when the gateway moves, the addresses that we wrote move with it', async () => {
    const { double, provider } = await linode();
    await setUp(double, provider).ensure(all, never);
    const moved = resolverOf(double, ['192.0.2.20']);
    await setUp(double, provider, silentLog, moved).ensure(all, never);
    assert.ok(double.contents().includes('A app.example.com 192.0.2.20'));
    assert.ok(!double.contents().includes('A app.example.com 192.0.2.10'));
  });

  test('a website’s addresses are not replaced', async () => {
    const { double, provider } = await linode([held('A', 'app.example.com', '198.51.100.1')]);
    await conflict(setUp(double, provider).ensure(all, never));
    assert.deepEqual(double.writes(), []);
  });

  test('a gateway without an address is told as that before anything is written', async () => {
    const { double, provider } = await linode();
    const run = setUp(double, provider, silentLog, resolverOf(double, [])).ensure(all, never);
    await assert.rejects(run, { code: 'not-visible' });
    assert.deepEqual(double.writes(), []);
  });
});

describe('showing', () => {
  function show(mode: 'wait' | 'print', resolver: Resolver) {
    const printed: string[] = [];
    const print = (one: string) => void printed.push(one);
    const setup = createRecordsSetup({
      mode,
      resolver,
      timeoutMs: 20_000,
      log: silentLog,
      clock: instantClock(),
      print,
    });
    return { setup, printed };
  }
  const blind: Resolver = { resolve: async () => [] };

  test('print shows a table and zone-file lines, and goes on', async () => {
    const { setup, printed } = show('print', blind);
    await setup.ensure(all, never);
    assert.match(printed.join(''), /CNAME {2}app\.example\.com +gateway\.example\.net\n/);
    assert.match(printed.join(''), /^app\.example\.com\. IN CNAME gateway\.example\.net\.$/m);
    assert.match(printed.join(''), /^_dstack-app-address\.app\.example\.com\. IN TXT "abc123:443"$/m);
    assert.match(printed.join(''), /^app\.example\.com\. IN CAA 0 issue "ca\.example;/m);
  });

  test('wait shows them and goes on once they are seen', async () => {
    const { double } = await cloudflare();
    const resolver = resolverOf(double);
    const { setup, printed } = show('wait', {
      async resolve(name, type) {
        const found = await resolver.resolve(name, type);
        // The operator creates them after the first look.
        double.zones.get('example.com')!.records = all.map((record) => ({ ...record, id: record.value }));
        return found;
      },
    });
    await setup.ensure(all, never);
    assert.equal(printed.length, 1);
  });

  test('wait shows nothing when everything is in place, and fails when it never is', async () => {
    const { double } = await cloudflare(all);
    const seen = show('wait', resolverOf(double));
    await seen.setup.ensure(all, never);
    assert.deepEqual(seen.printed, []);
    await assert.rejects(show('wait', blind).setup.ensure(all, never), { code: 'not-visible' });
  });

  test('writing without a provider is refused at once', () => {
    assert.throws(() => createRecordsSetup({ mode: 'auto', resolver: blind, timeoutMs: 1, log: silentLog }), {
      code: 'unsupported',
    });
  });
});

describe('an alias that several deployments share by weight', () => {
  async function route53(records: Omit<HeldRecord, 'id'>[]) {
    const double = await startRoute53Double({ zones: { 'example.com': records } });
    doubles.push(double);
    const credentials = {
      AWS_ACCESS_KEY_ID: ACCESS_KEY_ID,
      AWS_SECRET_ACCESS_KEY: double.token,
      AWS_ENDPOINT_URL_ROUTE_53: double.url,
      ROUTE53_INITIAL_WEIGHT: '0',
    };
    return { double, provider: route53Kind.create(credentials, swift) };
  }
  const set = { identifier: 'gateway.other.example.net', weight: '100' };
  const others = { ...alias, value: set.identifier, set };
  const aliasesOf = (double: ApiDouble) =>
    double.zones
      .get('example.com')!
      .records.filter(({ type }) => type === 'CNAME')
      .map((record) => [record.value, record.set?.weight]);
  /** The world is shown that of the others: ours has no weight yet. */
  const shown = (double: ApiDouble): Resolver => ({
    resolve: async (name, type) =>
      type === 'CNAME' ? [set.identifier] : resolverOf(double).resolve(name, type),
  });

  test('leaves those of others, and is not waited for, as the world may be shown another one', async () => {
    const { double, provider } = await route53([others]);
    await setUp(double, provider, silentLog, shown(double)).ensure([alias, text], never);
    assert.deepEqual(aliasesOf(double), [
      [set.identifier, '100'],
      [GATEWAY, '0'],
    ]);
    const writes = double.writes().length;
    await setUp(double, provider, silentLog, shown(double)).ensure([alias, text], never);
    assert.equal(double.writes().length, writes, 'everything is in place');
  });

  test('takes the place of one that stood alone', async () => {
    const { double, provider } = await route53([held('CNAME', alias.name, 'gateway.old.example.net')]);
    await setUp(double, provider, silentLog, shown(double)).ensure([alias, text], never);
    assert.deepEqual(aliasesOf(double), [[GATEWAY, '0']]);
  });
});
