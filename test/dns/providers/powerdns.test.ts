// A real PowerDNS takes what we write and says so over DNS.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { DnsProvider, DnsRecord } from '../../../dns/provider.ts';
import { powerdnsKind } from '../../../dns/providers/powerdns.ts';
import { createResolver, type Resolver, waitForRecords } from '../../../dns/resolver.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { createRecordsSetup } from '../../../src/records/setup.ts';
import { type PowerdnsServer, powerdnsInstalled, startPowerdns } from '../../support/powerdns.ts';

const skip = powerdnsInstalled ? false : 'pdns-server is not installed';

describe('powerdns', { skip }, () => {
  let server: PowerdnsServer;
  let provider: DnsProvider;
  let resolver: Resolver;
  before(async () => {
    server = await startPowerdns(['example.com', 'deep.example.com', 'example.net']);
    provider = powerdnsKind.create({ PDNS_API_URL: server.api, PDNS_API_KEY: server.key });
    resolver = createResolver({ servers: [server.server] });
  });
  after(() => server?.stop());

  const text = (value: string, name = '_acme-challenge.app.example.com'): DnsRecord => ({
    name,
    type: 'TXT',
    value,
  });
  const seen = (record: DnsRecord) => resolver.resolve(record.name, record.type);

  test('two challenges of one name stand side by side, beside a foreign text, and go one by one', async () => {
    await provider.add(text('of somebody else'));
    await Promise.all([provider.add(text('one')), provider.add(text('two')), provider.add(text('two'))]);
    assert.deepEqual((await seen(text(''))).sort(), ['of somebody else', 'one', 'two']);
    await provider.remove(text('one'));
    await provider.remove(text('never there'));
    assert.deepEqual((await seen(text(''))).sort(), ['of somebody else', 'two']);
    await provider.remove(text('two'));
    await provider.remove(text('of somebody else'));
    assert.deepEqual(await seen(text('')), []);
  });

  test('every type comes back over the API and over DNS as it was written', async () => {
    const records: DnsRecord[] = [
      { name: 'a.example.com', type: 'A', value: '192.0.2.1' },
      { name: 'a.example.com', type: 'AAAA', value: '2001:db8::1' },
      { name: '*.w.example.com', type: 'CNAME', value: 'gw.example.net' },
      text(`long "quoted" \\ ${'x'.repeat(500)}`),
      { name: 'a.example.com', type: 'CAA', value: '0 issue "ca.example;accounturi=https://ca.example/a/1"' },
    ];
    for (const record of records) {
      await provider.add(record);
      assert.deepEqual(await provider.list(record.name, record.type), [record]);
      assert.deepEqual(await seen(record), [record.value]);
      await provider.remove(record);
    }
  });

  test('the deepest zone is the one that is written', async () => {
    const record = text('deep', '_x.deep.example.com');
    await provider.add(record);
    assert.deepEqual(await seen(record), ['deep']);
    await assert.rejects(provider.add(text('no', '_x.example.org')), { code: 'zone-not-found' });
  });

  test('an alias cannot stand beside other records, and says so', async () => {
    await provider.add({ name: 'busy.example.com', type: 'A', value: '192.0.2.1' });
    const alias: DnsRecord = { name: 'busy.example.com', type: 'CNAME', value: 'gw.example.net' };
    await assert.rejects(provider.add(alias), { code: 'conflict' });
    assert.deepEqual(await provider.list('busy.example.com', 'A'), [
      { ...alias, type: 'A', value: '192.0.2.1' },
    ]);
  });

  test('a wrong key is told as that, and never shown', async () => {
    const stranger = powerdnsKind.create({ PDNS_API_URL: server.api, PDNS_API_KEY: 'a-wrong-key' });
    await assert.rejects(stranger.add(text('x')), (error: Error & { code?: string }) => {
      return error.code === 'credentials-refused' && !error.message.includes('a-wrong-key');
    });
  });

  test('the records of a domain are made and seen, with the gateway’s address where the pin needs it', async () => {
    await provider.add({ name: 'gw.example.net', type: 'A', value: '192.0.2.77' });
    const wanted: DnsRecord[] = [
      { name: 'app.example.com', type: 'CNAME', value: 'gw.example.net' },
      { name: '_dstack-app-address.app.example.com', type: 'TXT', value: 'abc:443' },
      { name: 'app.example.com', type: 'CAA', value: '0 issue "ca.example"' },
    ];
    const setup = createRecordsSetup({
      mode: 'auto',
      provider,
      resolver,
      timeoutMs: 5_000,
      intervalMs: 50,
      log: silentLog,
    });
    await setup.ensure(wanted, new AbortController().signal);
    await setup.ensure(wanted, new AbortController().signal);
    assert.deepEqual(await resolver.resolve('app.example.com', 'A'), ['192.0.2.77']);
    await waitForRecords(wanted.slice(1), { resolver, timeoutMs: 0 });
  });
});
