// Route 53 in what it has of its own: roles, atomic swaps, private zones, routing policies, and a name's own CAA.

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import type { DnsRecord } from '../../../dns/provider.ts';
import { route53Kind } from '../../../dns/providers/route53.ts';
import type { ApiDouble } from '../../support/api-double.ts';
import { ACCESS_KEY_ID, type Route53Options, startRoute53Double } from '../../support/route53-double.ts';

const text = (value: string): DnsRecord => ({ name: '_acme-challenge.app.example.com', type: 'TXT', value });
const doubles: ApiDouble[] = [];
afterEach(() => Promise.all(doubles.splice(0).map((double) => double.stop())));

async function begin(options: Route53Options = {}, more: Record<string, string> = {}) {
  const double = await startRoute53Double({ zones: { 'example.com': [] }, ...options });
  doubles.push(double);
  const credentials = {
    AWS_ACCESS_KEY_ID: ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY: double.token,
    AWS_ENDPOINT_URL_ROUTE_53: double.url,
    AWS_ENDPOINT_URL_STS: double.url,
    ...more,
  };
  return { double, provider: route53Kind.create(credentials, { patience: { attempts: 2, firstWaitMs: 1 } }) };
}

test('with a role the key is used for nothing but to assume it, once while it lasts', async () => {
  const role = { AWS_ROLE_ARN: 'arn:aws:iam::123456789012:role/dns' };
  const { double, provider } = await begin({ roleOnly: true }, role);
  await provider.add(text('one'));
  await provider.remove(text('one'));
  assert.deepEqual(double.contents(), []);
  assert.equal(double.journal.filter(({ path }) => path === '/').length, 1);
});

test('a role that may not be assumed is told as that, without the key', async () => {
  const { double, provider } = await begin({}, { AWS_ROLE_ARN: 'arn:aws:iam::123456789012:role/other' });
  await assert.rejects(provider.add(text('one')), (error: Error & { code?: string }) => {
    assert.equal(error.code, 'permission-missing');
    assert.match(error.message, /role\/other.*AccessDenied/);
    return !error.message.includes(double.token);
  });
});

test('a change is waited for until all servers have it, and goes on where asking is not permitted', async () => {
  const { double, provider } = await begin();
  await provider.add(text('one'));
  assert.equal(double.journal.filter(({ path }) => path.includes('/change/')).length, 2);
  const silent = await begin({ noGetChange: true });
  await silent.provider.add(text('one'));
  assert.equal(silent.double.contents().length, 1);
});

test('a value that somebody adds between our read and our write is not lost', async () => {
  const { double, provider } = await begin({
    zones: { 'example.com': [{ ...text('theirs') }] },
  });
  await provider.list(text('').name, 'TXT');
  const reads = () =>
    double.journal.filter(({ path, method }) => path.includes('/rrset') && method === 'GET').length;
  const before = reads();
  double.misbehave({ method: 'POST', path: /rrset/, delayMs: 50 });
  const adding = provider.add(text('ours'));
  while (reads() === before) await new Promise((resolve) => setImmediate(resolve));
  double.zones.get('example.com')!.records.push({ id: '9', ...text('theirs too') });
  await adding;
  const values = (await provider.list(text('').name, 'TXT')).map(({ value }) => value);
  assert.deepEqual(values.sort(), ['ours', 'theirs', 'theirs too']);
});

test('a private zone of the same name is passed over', async () => {
  const { double, provider } = await begin({ privateZones: ['app.example.com', 'example.com'] });
  await provider.add(text('one'));
  assert.equal(double.zones.get('example.com')?.records.length, 1);
});

test('two public zones of the same name are a conflict, not a guess', async () => {
  const { double, provider } = await begin();
  double.zones.set('twin', { id: '77', name: 'example.com', records: [] });
  await assert.rejects(provider.add(text('one')), {
    code: 'conflict',
    message: /several public hosted zones/,
  });
});

test('an alias or a routing policy is seen, and never changed', async () => {
  const name = 'app.example.com';
  const alias = `<ResourceRecordSet><Name>${name}.</Name><Type>A</Type><AliasTarget><HostedZoneId>Z</HostedZoneId><DNSName>lb.example.org.</DNSName><EvaluateTargetHealth>false</EvaluateTargetHealth></AliasTarget></ResourceRecordSet>`;
  const weighted = `<ResourceRecordSet><Name>${name}.</Name><Type>CNAME</Type><SetIdentifier>blue</SetIdentifier><Weight>1</Weight><TTL>60</TTL><ResourceRecords><ResourceRecord><Value>a.example.net.</Value></ResourceRecord></ResourceRecords></ResourceRecordSet>`;
  const { double, provider } = await begin({
    special: { [`A ${name}`]: alias, [`CNAME ${name}`]: weighted },
  });
  assert.deepEqual(await provider.list(name, 'A'), [{ name, type: 'A', value: 'alias of lb.example.org' }]);
  assert.deepEqual(await provider.list(name, 'CNAME'), [
    { name, type: 'CNAME', value: 'a.example.net', shared: true },
  ]);
  await assert.rejects(provider.add({ name, type: 'A', value: '192.0.2.1' }), { code: 'conflict' });
  await assert.rejects(provider.remove({ name, type: 'CNAME', value: 'a.example.net' }), {
    code: 'conflict',
  });
  assert.deepEqual(double.writes(), []);
});

test('CAA with the account is written at the name itself, and nothing at the apex of the zone', async () => {
  const { double, provider } = await begin();
  const pin: DnsRecord = {
    name: 'app.example.com',
    type: 'CAA',
    value: '0 issue "ca.example;accounturi=https://ca.example/a/1;validationmethods=dns-01"',
  };
  await provider.add(pin);
  assert.deepEqual(double.contents(), [`CAA app.example.com ${pin.value}`]);
});

test('nothing of the machine’s own Amazon settings is used', async () => {
  const before = { ...process.env };
  Object.assign(process.env, {
    AWS_PROFILE: 'nobody',
    AWS_ENDPOINT_URL: 'http://127.0.0.1:9',
    AWS_REGION: 'mars-1',
  });
  try {
    const { double, provider } = await begin();
    await provider.add(text('one'));
    assert.match(double.journal[0]!.headers.authorization!, /\/us-east-1\/route53\//);
  } finally {
    for (const name of ['AWS_PROFILE', 'AWS_ENDPOINT_URL', 'AWS_REGION']) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
});

const alias = (value: string): DnsRecord => ({ name: 'app.example.com', type: 'CNAME', value });
const shared = (value: string) => ({ ...alias(value), shared: true });
const setsOf = (double: ApiDouble) =>
  double.zones.get('example.com')!.records.map(({ value, set }) => [value, set?.identifier, set?.weight]);

test('with a weight each deployment makes an alias of its own beside those of others', async () => {
  const { double, provider } = await begin({}, { ROUTE53_INITIAL_WEIGHT: '100' });
  await provider.add(alias('gateway.one.example.net'));
  await provider.add(alias('gateway.two.example.net'));
  assert.deepEqual(setsOf(double), [
    ['gateway.one.example.net', 'gateway.one.example.net', '100'],
    ['gateway.two.example.net', 'gateway.two.example.net', '100'],
  ]);
  assert.deepEqual(await provider.list('app.example.com', 'CNAME'), [
    shared('gateway.one.example.net'),
    shared('gateway.two.example.net'),
  ]);
});

test('a weight that its operator has changed stays, and so does a set of another identifier that leads to the same', async () => {
  const { double, provider } = await begin({}, { ROUTE53_INITIAL_WEIGHT: '0' });
  const set = { identifier: 'auto-1700000000', weight: '7' };
  double.zones.get('example.com')!.records.push({ id: '9', ...alias('gateway.one.example.net'), set });
  await provider.add(alias('gateway.one.example.net'));
  assert.deepEqual(setsOf(double), [['gateway.one.example.net', 'auto-1700000000', '7']]);
  assert.deepEqual(double.writes(), []);
});

test('a weight is of aliases alone: texts are as without', async () => {
  const { double, provider } = await begin({}, { ROUTE53_INITIAL_WEIGHT: '255' });
  await provider.add(text('one'));
  await provider.remove(text('one'));
  assert.deepEqual(setsOf(double), []);
});

test('an alias of one alone is not made one of several behind the back of its owner', async () => {
  const { double, provider } = await begin({}, { ROUTE53_INITIAL_WEIGHT: '1' });
  double.zones.get('example.com')!.records.push({ id: '9', ...alias('elsewhere.example.net') });
  await assert.rejects(provider.add(alias('gateway.one.example.net')), { code: 'conflict' });
  assert.deepEqual(setsOf(double), [['elsewhere.example.net', undefined, undefined]]);
});

test('what is no weight is refused before anybody is asked', async () => {
  for (const wrong of ['-1', '256', '1.5', 'heavy', '1e2'])
    await assert.rejects(begin({}, { ROUTE53_INITIAL_WEIGHT: wrong }), {
      code: 'unsupported',
      variable: 'ROUTE53_INITIAL_WEIGHT',
    });
});
