// The records keeper: what is asked for, when it is asked again, and what it waits for.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DnsRecord } from '../../../dns/provider.ts';
import { parseDomain } from '../../../src/lib/domain.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { createRecordsKeeper, type RecordsKeeperOptions } from '../../../src/records/keeper.ts';

const domains = [parseDomain('app.example.com')];
const signal = new AbortController().signal;
const plain: RecordsKeeperOptions['dns'] = {
  gatewayDomain: 'gateway.example.net',
  publicPort: 443,
  appId: undefined,
  txtPrefix: '_dstack-app-address',
  setCaa: false,
  settleMs: 0,
  delegationZone: undefined,
};

function stage(options: Partial<RecordsKeeperOptions> = {}) {
  const asked: (readonly DnsRecord[])[] = [];
  const keeper = createRecordsKeeper({
    dns: plain,
    challenge: 'dns-01',
    identity: async () => ({ appId: 'aa'.repeat(20), instanceId: 'bb'.repeat(20) }),
    accountUri: async () => 'https://ca.example.com/acct/1',
    caaIdentities: async () => ['ca.example.com'],
    setup: { ensure: async (records) => void asked.push(records) },
    log: silentLog,
    ...options,
  });
  return { keeper, asked };
}

const text = (records: readonly DnsRecord[]) =>
  records.map(({ type, name, value }) => `${type} ${name} ${value}`);

test('with tls-alpn-01 the gateway is pointed at this instance, which alone can answer', async () => {
  const { keeper, asked } = stage({ challenge: 'tls-alpn-01' });
  await keeper.ensure(domains, 'https://ca.example.com/acct/1', signal);
  assert.deepEqual(text(asked[0]!), [
    'CNAME app.example.com gateway.example.net',
    `TXT _dstack-app-address.app.example.com ${'bb'.repeat(20)}:443`,
  ]);
});

test('CAA names the account and the challenge under each name of the CA', async () => {
  const { keeper, asked } = stage({
    dns: {
      ...plain,
      appId: 'cc'.repeat(20),
      setCaa: true,
    },
    identity: () => Promise.reject(new Error('the agent need not be asked')),
  });
  await keeper.ensure(domains, 'https://ca.example.com/acct/1', signal);
  assert.ok(
    text(asked[0]!).includes(
      'CAA app.example.com 0 issue "ca.example.com;accounturi=https://ca.example.com/acct/1;validationmethods=dns-01"',
    ),
    text(asked[0]!).join('\n'),
  );
});

test('an agent or a DNS that fails at start is asked again until it works, and then no more', async () => {
  let failures = 3;
  const slept: number[] = [];
  const { keeper, asked } = stage({
    identity: async () => {
      if (failures-- > 0) throw new Error('not yet');
      return { appId: 'aa'.repeat(20), instanceId: '' };
    },
    clock: { now: () => new Date(), sleep: async (ms) => void slept.push(ms) },
  });
  await keeper.keep(domains, signal);
  assert.equal(asked.length, 1);
  assert.deepEqual(slept, [10_000, 20_000, 40_000]);
});

test('without an account on disk nothing is written at start: the first order comes first', async () => {
  const { keeper, asked } = stage({ accountUri: async () => undefined });
  await keeper.keep(domains, signal);
  assert.deepEqual(asked, []);
});

test('two that want the same records take turns', async () => {
  let inside = 0;
  let most = 0;
  const { keeper } = stage({
    setup: {
      async ensure() {
        most = Math.max(most, ++inside);
        await new Promise((resolve) => setTimeout(resolve, 10));
        inside--;
      },
    },
  });
  await Promise.all([
    keeper.keep(domains, signal),
    keeper.ensure(domains, 'https://ca.example.com/acct/1', signal),
  ]);
  assert.equal(most, 1);
});
