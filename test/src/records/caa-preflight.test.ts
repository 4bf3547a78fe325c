// CAA before an order: what stops the order, what is logged, and what must not stop it.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createStore } from '../../../acme/store.ts';
import { DnsError } from '../../../dns/error.ts';
import type { RecordType } from '../../../dns/provider.ts';
import type { Resolver } from '../../../dns/resolver.ts';
import { type Domain, parseDomain } from '../../../src/lib/domain.ts';
import { createCaaPreflight } from '../../../src/records/caa-preflight.ts';
import { seeCaa } from '../../../src/records/caa-sight.ts';
import { freshFolder, recordedLog } from '../../acme/support.ts';

const accountUrl = 'https://ca.example/acct/1';
const pin = `0 issue "ca.example;accounturi=${accountUrl};validationmethods=dns-01"`;
const app = parseDomain('app.example.com');
const signal = new AbortController().signal;

type Zone = Readonly<Record<string, readonly string[]>>;

const answering = (zone: Zone) => async (name: string, type: RecordType) => [
  ...(zone[`${type} ${name}`] ?? []),
];
const zoneServers = (zone: Zone): Pick<Resolver, 'authority'> => ({
  authority: { viewsOf: async () => [{ server: 'ns.example.com', resolve: answering(zone) }] },
});

async function stage(
  t: TestContext,
  resolver: Resolver,
  identities: readonly string[] = ['ca.example'],
  pins = false,
) {
  const { log, lines } = recordedLog();
  const directoryUrl = 'https://ca.example/dir';
  const store = await createStore({ stateDir: await freshFolder(t), directoryUrl });
  const preflight = createCaaPreflight({
    resolver,
    challenge: 'dns-01',
    pins,
    identities: async () => identities,
    store,
    log,
  });
  const check = (domains: readonly Domain[] = [app]) => preflight.check(domains, accountUrl, signal);
  return { check, lines, store, warnings: () => lines.map((line) => line.msg) };
}

const refusals: Record<string, string> = {
  'the account of somebody else': pin.replace('acct/1', 'acct/2'),
  'another method': pin.replace('dns-01', 'http-01'),
  'a semicolon after the last parameter': pin.replace('dns-01"', 'dns-01;"'),
  'another CA': '0 issue "other.example"',
};

for (const [what, record] of Object.entries(refusals)) {
  test(`a record for ${what} stops the order, and the error names it and what would let us issue`, async (t) => {
    const { check, store } = await stage(t, { resolve: answering({ 'CAA example.com': [record] }) });
    await assert.rejects(check(), (error: Error & { code: string }) => {
      assert.equal(error.code, 'caa-forbids');
      assert.match(
        error.message,
        /^CAA at example\.com forbids a certificate for app\.example\.com: issue "/,
      );
      assert.ok(error.message.endsWith(`app.example.com CAA ${pin}`), error.message);
      return true;
    });
    const verdict = (await store.readVerdicts())[app];
    assert.deepEqual([verdict?.allowed, verdict?.decidedBy], [false, 'example.com']);
  });
}

test('a bare record left beside the pin is a warning, for it undoes the pin and stops nothing', async (t) => {
  const { check, lines } = await stage(t, {
    resolve: answering({ 'CAA app.example.com': [pin, '0 issue "ca.example"'] }),
  });
  await check();
  const [line] = lines;
  assert.equal(line?.msg, 'CAA lets others issue as well');
  assert.match(String(line?.findings), /"ca\.example" lets every account/);
});

test('the pin alone, and no record at all, pass without a word', async (t) => {
  for (const zone of [{ 'CAA app.example.com': [pin] }, {}]) {
    const { check, lines } = await stage(t, { resolve: answering(zone) });
    await check();
    assert.deepEqual(lines, []);
  }
});

test('one domain that is refused is told with the others that are', async (t) => {
  const { check } = await stage(t, {
    resolve: answering({ 'CAA a.example': ['0 issue ";"'], 'CAA c.example': ['0 issue ";"'] }),
  });
  await assert.rejects(check(['a.example', 'b.example', 'c.example'].map(parseDomain)), (error: Error) => {
    assert.match(error.message, /CAA at a\.example .*; CAA at c\.example /);
    assert.doesNotMatch(error.message, /b\.example/);
    return true;
  });
});

test('resolvers that cannot be asked do not keep a certificate from being renewed', async (t) => {
  const { check, warnings } = await stage(t, {
    resolve: () => Promise.reject(new DnsError('unreachable', 'no route')),
  });
  await check();
  assert.deepEqual(warnings(), ['CAA cannot be looked up, the CA will see for itself']);
});

test('a refusal seen only through an alias is no refusal, for the pin beside the alias may be hidden by it', async (t) => {
  const { check, warnings } = await stage(t, {
    resolve: answering({
      'CNAME app.example.com': ['gateway.example.net'],
      'CAA example.com': ['0 issue ";"'],
    }),
  });
  await check();
  assert.deepEqual(warnings(), ['CAA seen through an alias forbids the order, trying it all the same']);
});

test('a pin that is hidden beside an alias is told as that, with cause and cure, and the status says the same', async (t) => {
  // The gateway's own CAA shows up in place of what is beside the alias.
  const followed = answering({
    'CNAME app.example.com': ['gateway.example.net'],
    'CAA app.example.com': ['0 issue "ca.example"'],
  });
  const { check, lines, store } = await stage(t, { resolve: followed }, ['ca.example'], true);
  await check();
  const [line, ...others] = lines;
  assert.deepEqual(others, []);
  assert.deepEqual([line?.level, line?.msg], ['warn', 'CAA cannot be seen through an alias']);
  assert.match(
    String(line?.cause),
    /^app\.example\.com is an alias, and resolvers that follow it see CAA of what/,
  );
  assert.match(String(line?.cure), /port 53, or look there yourself: dig CAA app\.example\.com @/);
  assert.ok(String(line?.cure).endsWith(pin));
  const question = { domain: app, identities: ['ca.example'], accountUrl, method: 'dns-01' } as const;
  const sight = await seeCaa({ resolve: followed }, question, true);
  assert.deepEqual([sight.state, sight.cause, sight.cure], ['hidden', line?.cause, line?.cure]);
  const stored = (await store.readVerdicts())[app];
  assert.deepEqual([stored?.unsure, stored?.cure], [line?.cause, line?.cure]);
});

test('with SET_CAA, no record anywhere is told, with the one to add', async (t) => {
  const { check, lines } = await stage(t, { resolve: answering({}) }, ['ca.example'], true);
  await check();
  assert.deepEqual(
    lines.map(({ level, msg }) => [level, msg]),
    [['warn', 'CAA lets others issue as well']],
  );
  assert.equal(lines[0]?.cure, `add app.example.com CAA ${pin}`);
});

test("the zone's own servers are believed before resolvers, about a pin beside an alias and about a refusal", async (t) => {
  const resolve = answering({
    'CNAME app.example.com': ['gateway.example.net'],
    'CAA example.com': ['0 issue ";"'],
  });
  const pinned = await stage(t, { resolve, ...zoneServers({ 'CAA app.example.com': [pin] }) });
  await pinned.check();
  assert.deepEqual(pinned.lines, []);
  const refused = await stage(t, { resolve, ...zoneServers({ 'CAA example.com': ['0 issue ";"'] }) });
  await assert.rejects(refused.check(), { code: 'caa-forbids' });
});

test('where the servers of the zone do not answer, resolvers are asked', async (t) => {
  const { check } = await stage(t, {
    resolve: answering({ 'CAA example.com': ['0 issue ";"'] }),
    authority: { viewsOf: () => Promise.reject(new DnsError('unreachable', 'port 53 is closed')) },
  });
  await assert.rejects(check(), { code: 'caa-forbids' });
});

test('a CA that does not say its names cannot be judged', async (t) => {
  const { check, lines } = await stage(t, { resolve: answering({ 'CAA example.com': ['0 issue ";"'] }) }, []);
  await check();
  assert.deepEqual(lines, []);
});

test('a disk that takes no verdict stops nothing', async (t) => {
  const { check, store, warnings } = await stage(t, { resolve: answering({}) });
  store.writeVerdicts = () => Promise.reject(new Error('ENOSPC'));
  await check();
  assert.deepEqual(warnings(), ['CAA verdict not stored']);
});

test('CAA that changes after the certificate was made is found within a day, and told as an error', async (t) => {
  const zone: Record<string, string[]> = { 'CAA app.example.com': [pin] };
  const stopping = new AbortController();
  const slept: number[] = [];
  const { log, lines } = recordedLog();
  const preflight = createCaaPreflight({
    resolver: { resolve: (name, type) => answering(zone)(name, type) },
    challenge: 'dns-01',
    identities: async () => ['ca.example'],
    store: await createStore({ stateDir: await freshFolder(t), directoryUrl: 'https://ca.example/dir' }),
    log,
    clock: {
      now: () => new Date(),
      async sleep(ms) {
        slept.push(ms);
        if (slept.length === 2) stopping.abort();
        zone['CAA app.example.com'] = ['0 issue "other.example"'];
      },
    },
  });
  await preflight.watch([app], async () => accountUrl, stopping.signal);
  assert.deepEqual(slept, [86_400_000, 86_400_000]);
  assert.deepEqual(
    lines.map(({ level, msg }) => [level, msg]),
    [['error', 'CAA forbids the next renewal']],
  );
});
