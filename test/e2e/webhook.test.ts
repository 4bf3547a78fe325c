// Records made by a service of the operator's: the real program asks, proves who it is, waits, and only then orders.

import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { test } from 'node:test';
import type { DnsRecord } from '../../dns/provider.ts';
import { parseQuote } from '../../evidence/quote.ts';
import { startApiDouble } from '../support/api-double.ts';
import { createWorld, get, startApp, type World } from '../support/world.ts';

const domain = 'app.example.com';
const token = 'secret-shared-with-the-receiver';

interface Letter {
  readonly payload: string;
  readonly hmac_sha256: string;
  readonly attestation: { readonly quote: string };
}

test('a webhook is asked for the missing records with a signature and a quote, and the order waits for them', async () => {
  await using world = await createWorld();
  await using app = await startApp('made by a hook');
  const receiver = await startApiDouble({}, () => ({ status: 204, body: '', raw: true }));
  try {
    const ingress = world.start({
      DOMAIN: domain,
      TARGET_ENDPOINT: app.url,
      CHALLENGE_TYPE: 'tls-alpn-01',
      SET_CAA: 'true',
      DNS_SETUP_MODE: 'webhook',
      DNS_WEBHOOK_URL: `${receiver.url}/records`,
      DNS_WEBHOOK_TOKEN: token,
    });
    await ingress.waitFor('asked the webhook for DNS records');
    await ingress.waitFor('waiting for a DNS record');
    assert.equal(world.pebble.made('order'), 0);

    const letter = receiver.journal[0]!.body as Letter;
    assert.equal(letter.hmac_sha256, createHmac('sha256', token).update(letter.payload).digest('hex'));
    const digest = createHash('sha256').update(letter.payload).digest('hex');
    const quote = parseQuote(letter.attestation.quote);
    assert.equal(quote.reportData.slice(0, 64), digest);
    const { records, app_id: appId, instance_id: instanceId, ...rest } = JSON.parse(letter.payload);
    assert.deepEqual([appId, rest.domain, rest.challenge], [world.agent.appId, domain, 'tls-alpn-01']);
    // Only the instance that placed the order can answer the challenge.
    const text = records.find(({ type }: DnsRecord) => type === 'TXT');
    assert.equal(text.value, `${instanceId}:${world.port}`);
    await make(records, world);

    await ingress.waitFor('ready');
    const reply = await get({ port: world.port, servername: domain, ca: await world.roots() });
    assert.equal(reply.body, 'made by a hook');
    assert.ok(!JSON.stringify(ingress.log).includes(token), 'the token is in the log');
  } finally {
    await receiver.stop();
  }
});

async function make(records: readonly DnsRecord[], { pebble }: World): Promise<void> {
  for (const { type, name, value } of records) {
    if (type === 'CNAME') await pebble.dns.setCname(name, value);
    if (type === 'TXT') await pebble.dns.setTxt(name, [value]);
    const [, tag, policy] = /^0 (\S+) "(.*)"$/.exec(value) ?? [];
    if (type === 'CAA') await pebble.dns.addCaa(name, [{ tag: tag!, value: policy! }]);
  }
}
