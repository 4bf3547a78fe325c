// acme-dns takes challenges and nothing else, and holds the two that an apex and its wildcard need.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { inspect } from 'node:util';
import type { DnsRecord } from '../../../dns/provider.ts';
import { acmeDnsKind } from '../../../dns/providers/acme-dns.ts';
import { type ApiDouble, startApiDouble } from '../../support/api-double.ts';

const password = 'password-of-the-subdomain';
const subdomain = '8e5700ea-a4bf-41c7-8a77-e990661dcc6a';
const challenge = (letter: string): DnsRecord => ({
  name: '_acme-challenge.app.example.com',
  type: 'TXT',
  value: letter.repeat(43),
});
const started: ApiDouble[] = [];
after(() => Promise.all(started.map((double) => double.stop())));

/** As the server does: the newest takes the place of the older of the two. */
async function begin() {
  let texts: string[] = [];
  const double = await startApiDouble({}, ({ method, path, headers, body }) => {
    const { subdomain: asked, txt } = body as { subdomain: string; txt: string };
    if (headers['x-api-user'] !== 'us' || headers['x-api-key'] !== password || asked !== subdomain)
      return { status: 401, body: { error: 'forbidden' } };
    if (method !== 'POST' || path !== '/update' || txt.length !== 43)
      return { status: 400, body: { error: 'bad_txt' } };
    texts = [...texts, txt].slice(-2);
    return { status: 200, body: { txt } };
  });
  started.push(double);
  const open = (key = password) =>
    acmeDnsKind.create(
      {
        ACME_DNS_API_BASE: double.url,
        ACME_DNS_SUBDOMAIN: subdomain,
        ACME_DNS_USERNAME: 'us',
        ACME_DNS_PASSWORD: key,
      },
      { patience: { firstWaitMs: 1, attempts: 3 } },
    );
  return { double, open, texts: () => texts };
}

test('the challenges of apex and wildcard stand together', async () => {
  const { open, texts } = await begin();
  const provider = open();
  await provider.add(challenge('a'));
  await provider.add(challenge('b'));
  await provider.remove(challenge('a'));
  assert.deepEqual(texts(), ['a'.repeat(43), 'b'.repeat(43)]);
});

test('a failing server is asked again, a wrong password is told as that and never shown', async () => {
  const { double, open, texts } = await begin();
  double.misbehave({ status: 503, times: 2 });
  await open().add(challenge('a'));
  assert.deepEqual(texts(), ['a'.repeat(43)]);
  double.misbehave({ status: 401, body: 'not another-password' });
  await assert.rejects(open('another-password').add(challenge('a')), (error: Error & { code?: string }) => {
    return error.code === 'credentials-refused' && !inspect(error, { depth: 9 }).includes('another-password');
  });
});

test('a success that names another value is not believed', async () => {
  const { double, open } = await begin();
  double.misbehave({ body: '{"txt":"other"}' });
  await assert.rejects(open().add(challenge('a')), { code: 'unintelligible' });
});

test('other records are refused before anything is sent', async () => {
  const { double, open } = await begin();
  await assert.rejects(open().add({ ...challenge('a'), type: 'CNAME' }), { code: 'unsupported' });
  await assert.rejects(open().list('app.example.com', 'TXT'), { code: 'unsupported' });
  assert.deepEqual(double.journal, []);
});
