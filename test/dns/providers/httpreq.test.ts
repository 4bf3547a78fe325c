// lego's protocol: what is presented is cleaned up, with the credentials given, and nothing but challenges is promised.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { inspect } from 'node:util';
import type { DnsRecord } from '../../../dns/provider.ts';
import { httpreqKind } from '../../../dns/providers/httpreq.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { createRecordsSetup } from '../../../src/records/setup.ts';
import { type ApiDouble, startApiDouble } from '../../support/api-double.ts';

const challenge: DnsRecord = { name: '_acme-challenge.app.example.com', type: 'TXT', value: 'a-token' };
const started: ApiDouble[] = [];
after(() => Promise.all(started.map((double) => double.stop())));

async function begin() {
  const double = await startApiDouble({}, () => ({ status: 200, body: {} }));
  started.push(double);
  const credentials = {
    HTTPREQ_ENDPOINT: `${double.url}/dns/`,
    HTTPREQ_USERNAME: 'us',
    HTTPREQ_PASSWORD: 'pass-word-1',
  };
  return { double, provider: httpreqKind.create(credentials, { patience: { firstWaitMs: 1, attempts: 3 } }) };
}

test('a challenge is presented and cleaned up by its name and value', async () => {
  const { double, provider } = await begin();
  await provider.add(challenge);
  await provider.remove(challenge);
  const body = { fqdn: '_acme-challenge.app.example.com.', value: 'a-token' };
  assert.deepEqual(
    double.journal.map((call) => ({ path: call.path, body: call.body })),
    [
      { path: '/dns/present', body },
      { path: '/dns/cleanup', body },
    ],
  );
  assert.equal(
    double.journal[0]?.headers.authorization,
    `Basic ${Buffer.from('us:pass-word-1').toString('base64')}`,
  );
});

test('a failing server is asked again, a refusing one is not, and no error shows the password', async () => {
  const { double, provider } = await begin();
  double.misbehave({ status: 503, times: 2 });
  await provider.add(challenge);
  assert.equal(double.journal.length, 3);
  const basic = Buffer.from('us:pass-word-1').toString('base64');
  double.misbehave({ status: 401, body: `no pass-word-1 ${basic}` });
  await assert.rejects(provider.add(challenge), (error: Error & { code?: string }) => {
    const all = inspect(error, { depth: 9, showHidden: true });
    return error.code === 'credentials-refused' && !all.includes('pass-word-1') && !all.includes(basic);
  });
  assert.equal(double.journal.length, 4);
});

test('other records are refused before anything is sent, and so is the setup of a domain', async () => {
  const { double, provider } = await begin();
  await assert.rejects(provider.add({ ...challenge, type: 'CNAME' }), { code: 'unsupported' });
  await assert.rejects(provider.list(challenge.name, 'TXT'), { code: 'unsupported' });
  const options = {
    mode: 'auto',
    provider,
    resolver: { resolve: async () => [] },
    timeoutMs: 1,
    log: silentLog,
  } as const;
  assert.throws(() => createRecordsSetup(options), { code: 'unsupported', message: /DNS_SETUP_MODE=wait/ });
  assert.deepEqual(double.journal, []);
});
