// The letter to the operator's service proves who asks, over the very bytes that are sent.

import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { after, test } from 'node:test';
import type { DnsRecord } from '../../../dns/provider.ts';
import type { Resolver } from '../../../dns/resolver.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { createRecordsSetup } from '../../../src/records/setup.ts';
import { createWebhook, type WebhookOptions } from '../../../src/records/webhook.ts';
import { type ApiDouble, startApiDouble } from '../../support/api-double.ts';

const records: DnsRecord[] = [
  { name: 'app.example.com', type: 'CNAME', value: 'gw.example.net' },
  { name: '_dstack-app-address.app.example.com', type: 'TXT', value: 'abc:443' },
  { name: 'app.example.com', type: 'CAA', value: '0 issue "ca.example"' },
  { name: '*.example.com', type: 'CNAME', value: 'gw.example.net' },
  { name: '_dstack-app-address-wildcard.example.com', type: 'TXT', value: 'abc:443' },
];
const never = new AbortController().signal;
const started: ApiDouble[] = [];
after(() => Promise.all(started.map((double) => double.stop())));

async function begin(more: Partial<WebhookOptions> = {}) {
  const double = await startApiDouble({}, () => ({ status: 204, body: '', raw: true }));
  started.push(double);
  const clock = { now: () => new Date(1_700_000_000_000), sleep: async () => {} };
  const identity = async () => ({ appId: 'abc', instanceId: 'def' });
  const webhook = createWebhook({
    url: `${double.url}/hook`,
    token: 'shared-secret',
    challenge: 'tls-alpn-01',
    identity,
    log: silentLog,
    clock,
    ...more,
  });
  return { double, webhook };
}

interface Letter {
  readonly payload: string;
  readonly hmac_sha256?: string;
  readonly attestation?: Record<string, unknown>;
}
const letters = (double: ApiDouble) => double.journal.map(({ body }) => body as Letter);

test('each domain has a letter of its own, with its records and whose they are', async () => {
  const { double, webhook } = await begin();
  await webhook.notify(records, never);
  const payloads = letters(double).map(({ payload }) => JSON.parse(payload));
  assert.deepEqual(
    payloads.map(({ domain, records: own }) => [domain, own.length]),
    [
      ['app.example.com', 3],
      ['*.example.com', 2],
    ],
  );
  const { records: own, ...rest } = payloads[0];
  assert.deepEqual(rest, {
    app_id: 'abc',
    challenge: 'tls-alpn-01',
    domain: 'app.example.com',
    instance_id: 'def',
    timestamp: 1_700_000_000,
    version: 1,
  });
  assert.deepEqual(own[1], { exact: false, name: records[1]?.name, note: '', type: 'TXT', value: 'abc:443' });
});

test('aliases into a delegation zone come in one letter for their domain', async () => {
  const { double, webhook } = await begin();
  const delegated = [
    'app.example.com',
    '_dstack-app-address.app.example.com',
    '_acme-challenge.app.example.com',
  ];
  const alias = (name: string): DnsRecord => ({ name, type: 'CNAME', value: `${name}.deleg.example.net` });
  await webhook.notify(delegated.map(alias), never);
  const [payload, ...more] = letters(double).map((letter) => JSON.parse(letter.payload));
  assert.deepEqual(more, []);
  assert.equal(payload.domain, 'app.example.com');
  assert.deepEqual(
    payload.records.map(({ name }: DnsRecord) => name),
    delegated,
  );
});

test('signature and quote are over the payload as it is sent', async () => {
  const attest = async (digest: Buffer) => ({
    quote: 'aa',
    report_data: 'padded',
    seen: digest.toString('hex'),
  });
  const { double, webhook } = await begin({ attest });
  await webhook.notify(records.slice(0, 3), never);
  const [sent] = letters(double);
  const digest = createHash('sha256').update(sent!.payload).digest('hex');
  assert.equal(sent?.hmac_sha256, createHmac('sha256', 'shared-secret').update(sent!.payload).digest('hex'));
  assert.deepEqual(sent?.attestation, { quote: 'aa', report_data: digest, seen: digest });
  assert.ok(!JSON.stringify(double.journal).includes('shared-secret'));
});

test('an agent that gives no quote does not hold back the letter', async () => {
  const attest = async () => {
    throw new Error('no agent');
  };
  const { double, webhook } = await begin({ attest });
  await webhook.notify(records.slice(0, 1), never);
  assert.deepEqual(Object.keys(letters(double)[0]!), ['payload', 'hmac_sha256']);
});

test('a failing receiver is asked again, and given up after a few tries', async () => {
  const { double, webhook } = await begin();
  double.misbehave({ status: 500, times: 2 });
  await webhook.notify(records.slice(0, 1), never);
  assert.equal(double.journal.length, 3);
  double.misbehave({ status: 403, times: 9 });
  await assert.rejects(webhook.notify(records.slice(0, 1), never), {
    code: 'webhook-refused',
    message: /403/,
  });
  assert.equal(double.journal.length, 6);
});

test('the setup shows the records, asks the webhook and waits; with all in place it asks nobody', async () => {
  const { double, webhook } = await begin();
  const printed: string[] = [];
  const resolver: Resolver = {
    resolve: async (name, type) =>
      double.journal.length === 0
        ? []
        : records.filter((one) => one.name === name && one.type === type).map(({ value }) => value),
  };
  const setup = createRecordsSetup({
    mode: 'webhook',
    webhook,
    resolver,
    timeoutMs: 10_000,
    intervalMs: 1,
    log: silentLog,
    print: (text) => void printed.push(text),
  });
  await setup.ensure(records, never);
  assert.equal(printed.length, 1);
  assert.equal(double.journal.length, 2);
  await setup.ensure(records, never);
  assert.equal(double.journal.length, 2);
});

test('a webhook that fails leaves the records to be made by hand', async () => {
  const { double, webhook } = await begin();
  double.misbehave({ status: 500, times: 99 });
  const resolver: Resolver = { resolve: async () => [] };
  const clock = (() => {
    let now = 0;
    const sleep = async (ms: number) => {
      now += ms;
    };
    return { now: () => new Date(now), sleep };
  })();
  const options = {
    mode: 'webhook',
    webhook,
    resolver,
    timeoutMs: 10_000,
    log: silentLog,
    clock,
    print: () => {},
  } as const;
  await assert.rejects(createRecordsSetup(options).ensure(records, never), { code: 'not-visible' });
  assert.throws(() => createRecordsSetup({ mode: 'webhook', resolver, timeoutMs: 1, log: silentLog }), {
    code: 'unsupported',
  });
});
