// Every provider with an API keeps the same promises, against a double of that API over a real socket.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { inspect } from 'node:util';
import { DnsError } from '../../../dns/error.ts';
import type { DnsProvider, DnsRecord, ProviderOptions } from '../../../dns/provider.ts';
import { cloudflareKind } from '../../../dns/providers/cloudflare.ts';
import { desecKind } from '../../../dns/providers/desec.ts';
import { digitaloceanKind } from '../../../dns/providers/digitalocean.ts';
import { gandiKind } from '../../../dns/providers/gandi.ts';
import { hetznerKind } from '../../../dns/providers/hetzner.ts';
import { linodeKind } from '../../../dns/providers/linode.ts';
import { namecheapKind } from '../../../dns/providers/namecheap.ts';
import { porkbunKind } from '../../../dns/providers/porkbun.ts';
import { route53Kind } from '../../../dns/providers/route53.ts';
import type { ApiDouble, DoubleOptions, Fault } from '../../support/api-double.ts';
import { startCloudflareDouble } from '../../support/cloudflare-double.ts';
import { MINIMUM_TTL, startDesecDouble } from '../../support/desec-double.ts';
import { startDigitaloceanDouble } from '../../support/digitalocean-double.ts';
import { startGandiDouble } from '../../support/gandi-double.ts';
import { startHetznerDouble } from '../../support/hetzner-double.ts';
import { startLinodeDouble } from '../../support/linode-double.ts';
import { startNamecheapDouble } from '../../support/namecheap-double.ts';
import { startPorkbunDouble } from '../../support/porkbun-double.ts';
import { ACCESS_KEY_ID, startRoute53Double } from '../../support/route53-double.ts';

interface Vendor {
  readonly name: string;
  readonly start: (options: DoubleOptions) => Promise<ApiDouble>;
  readonly open: (double: ApiDouble, options?: ProviderOptions) => DnsProvider;
  /** What marks the calls that read, add and remove records. */
  readonly read: Pick<Fault, 'method' | 'path' | 'content'>;
  readonly add: Pick<Fault, 'method' | 'path' | 'content'>;
  readonly remove: Pick<Fault, 'method' | 'path' | 'content'>;
  /** A success in the vendor's envelope that tells of a record nobody asked for. */
  readonly lie: string;
  /** A list in the vendor's envelope with a record cut off in the middle of its fields. */
  readonly torn: string;
  /** A list that says that it goes on for ever; absent where the API has no pages. */
  readonly endless?: Fault;
  /** CAA values cannot have parameters. */
  readonly plainCaaOnly?: boolean;
}

const vendors: Vendor[] = [
  {
    name: 'cloudflare',
    start: startCloudflareDouble,
    open: ({ url, token }, options) =>
      cloudflareKind.create({ CLOUDFLARE_API_TOKEN: token, CLOUDFLARE_BASE_URL: url }, options),
    endless: {
      path: /dns_records/,
      body: '{"success":true,"errors":[],"result":[],"result_info":{"total_pages":9999999}}',
    },
    read: { path: /dns_records/, method: 'GET' },
    add: { method: 'POST' },
    remove: { method: 'DELETE' },
    lie: '{"success":true,"errors":[],"result":{"id":"1","name":"other.example.com","type":"TXT","content":"\\"x\\""}}',
    torn: '{"success":true,"errors":[],"result":[{"id":"1"}],"result_info":{"total_pages":1}}',
  },
  {
    name: 'linode',
    start: startLinodeDouble,
    open: ({ url, token }, options) =>
      linodeKind.create({ LINODE_API_TOKEN: token, LINODE_API_URL: url }, options),
    endless: { path: /records/, body: '{"data":[],"page":1,"pages":9999999,"results":0}' },
    read: { path: /records/, method: 'GET' },
    add: { method: 'POST' },
    remove: { method: 'DELETE' },
    lie: '{"id":1,"type":"TXT","name":"other","target":"x"}',
    torn: '{"data":[{"id":1}],"page":1,"pages":1,"results":1}',
  },
  {
    name: 'route53',
    start: startRoute53Double,
    open: ({ url, token }, options) =>
      route53Kind.create(
        {
          AWS_ACCESS_KEY_ID: ACCESS_KEY_ID,
          AWS_SECRET_ACCESS_KEY: token,
          AWS_ENDPOINT_URL_ROUTE_53: url,
        },
        options,
      ),
    read: { path: /rrset/, method: 'GET' },
    add: { method: 'POST', content: /CREATE/ },
    remove: { method: 'POST', content: /DELETE/ },
    lie: '<ChangeResourceRecordSetsResponse></ChangeResourceRecordSetsResponse>',
    torn: '<ListResourceRecordSetsResponse><ResourceRecordSets><ResourceRecordSet><Type>TXT</Type></ResourceRecordSet></ResourceRecordSets><IsTruncated>false</IsTruncated><MaxItems>3</MaxItems></ListResourceRecordSetsResponse>',
    endless: {
      path: /rrset/,
      body: '<ListResourceRecordSetsResponse><ResourceRecordSets/><IsTruncated>true</IsTruncated><NextRecordName>_acme-challenge.app.example.com.</NextRecordName><NextRecordType>TXT</NextRecordType><MaxItems>3</MaxItems></ListResourceRecordSetsResponse>',
    },
  },
  {
    name: 'namecheap',
    start: startNamecheapDouble,
    open: ({ url, token }, options) =>
      namecheapKind.create(
        {
          NAMECHEAP_USERNAME: 'us',
          NAMECHEAP_API_KEY: token,
          NAMECHEAP_CLIENT_IP: '192.0.2.1',
          NAMECHEAP_API_URL: url,
        },
        options,
      ),
    read: { content: /getHosts/ },
    add: { content: /setHosts/ },
    remove: { content: /setHosts/ },
    lie: '<ApiResponse Status="OK"><CommandResponse><DomainDNSSetHostsResult IsSuccess="true"/></CommandResponse></ApiResponse>',
    torn: '<ApiResponse Status="OK"><DomainDNSGetHostsResult IsUsingOurDNS="true"><host Name="a"/></DomainDNSGetHostsResult></ApiResponse>',
    endless: {
      content: /getList/,
      body: '<ApiResponse Status="OK"><TotalItems>9999999</TotalItems><PageSize>1</PageSize></ApiResponse>',
    },
  },
  {
    name: 'digitalocean',
    start: startDigitaloceanDouble,
    open: ({ url, token }, options) =>
      digitaloceanKind.create({ DO_AUTH_TOKEN: token, DO_API_URL: url }, options),
    read: { path: /records/, method: 'GET' },
    add: { method: 'POST' },
    remove: { method: 'DELETE' },
    lie: '{"domain_record":{"id":1,"type":"TXT","name":"other","data":"x"}}',
    torn: '{"domain_records":[{"id":1}],"meta":{"total":1}}',
    endless: { path: /records/, body: '{"domain_records":[],"meta":{"total":9999999}}' },
    plainCaaOnly: true,
  },
  {
    name: 'hetzner',
    start: startHetznerDouble,
    open: ({ url, token }, options) =>
      hetznerKind.create({ HETZNER_API_TOKEN: token, HETZNER_API_URL: url }, options),
    read: { path: /rrsets/, method: 'GET' },
    add: { path: /add_records/ },
    remove: { path: /remove_records/ },
    lie: '{"action":{"status":"error","error":{"message":"action failed"}}}',
    torn: '{"rrset":{"name":"_acme-challenge.app","records":[]}}',
    endless: {
      path: /zones/,
      body: '{"zones":[],"meta":{"pagination":{"last_page":9999999,"total_entries":0}}}',
    },
  },
  {
    name: 'gandi',
    start: startGandiDouble,
    open: ({ url, token }, options) =>
      gandiKind.create({ GANDI_PERSONAL_ACCESS_TOKEN: token, GANDI_API_URL: url }, options),
    read: { path: /records/, method: 'GET' },
    add: { method: 'PUT' },
    remove: { method: 'DELETE' },
    lie: '{"status":"error","errors":[]}',
    torn: '{"rrset_name":"_acme-challenge.app","rrset_type":"TXT"}',
  },
  {
    name: 'desec',
    start: startDesecDouble,
    open: ({ url, token }, options) => desecKind.create({ DESEC_TOKEN: token, DESEC_API_URL: url }, options),
    read: { path: /rrsets/, method: 'GET' },
    add: { method: 'PATCH' },
    remove: { method: 'PATCH' },
    lie: '[{"subname":"other","type":"TXT","ttl":3600,"records":["x"]}]',
    torn: '{"subname":"_acme-challenge.app","type":"TXT"}',
  },
  {
    name: 'porkbun',
    start: startPorkbunDouble,
    open: ({ url, token }, options) =>
      porkbunKind.create(
        { PORKBUN_API_KEY: 'pk1_x', PORKBUN_SECRET_API_KEY: token, PORKBUN_API_URL: url },
        options,
      ),
    read: { path: /retrieveByNameType/ },
    add: { path: /create/ },
    remove: { path: /delete/ },
    lie: '{"status":"ERROR","message":"no"}',
    torn: '{"status":"SUCCESS","records":[{"id":"1"}]}',
    endless: { path: /listAll/, body: '{"status":"SUCCESS","domains":[{"domain":"other.example"}]}' },
  },
];

const swift = { patience: { firstWaitMs: 1, longestWaitMs: 50 } };
const text = (name: string, value: string): DnsRecord => ({ name, type: 'TXT', value });
const pin = '0 issuewild "ca.example;accounturi=https://ca.example/a/1"';
const challenge = text('_acme-challenge.app.example.com', 'a-token');

for (const vendor of vendors) {
  describe(vendor.name, () => {
    const started: ApiDouble[] = [];
    after(() => Promise.all(started.map((double) => double.stop())));

    async function begin(options: DoubleOptions = {}, more: ProviderOptions = swift) {
      const double = await vendor.start({ zones: { 'example.com': [] }, ...options });
      started.push(double);
      return { double, provider: vendor.open(double, more) };
    }

    async function failure(run: Promise<unknown>): Promise<DnsError> {
      const error = await run.then(
        () => assert.fail('it succeeded'),
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof DnsError, inspect(error));
      return error;
    }

    test('an error never holds the token, even if the API repeats it', async () => {
      const { double, provider } = await begin({ token: 'secret-token-of-ours' });
      const echo = `{"success":false,"errors":[{"code":1,"message":"bad secret-token-of-ours","reason":"bad secret-token-of-ours"}]}`;
      for (const status of [400, 401, 403, 500]) {
        double.misbehave({ status, body: echo, times: 10 });
        const error = await failure(provider.list('app.example.com', 'TXT'));
        assert.match(error.message, new RegExp(`status ${status}`));
        assert.ok(!inspect(error, { depth: 20, showHidden: true }).includes('secret-token-of-ours'));
        double.misbehave({ times: 0 });
        for (let call = 0; call < 10; call++) await provider.list('app.example.com', 'TXT').catch(() => {});
      }
    });

    test('apex and wildcard challenges of one name stand side by side, set at the same moment', async () => {
      const { double, provider } = await begin();
      await Promise.all([
        provider.add(text(challenge.name, 'one')),
        provider.add(text(challenge.name, 'two')),
      ]);
      assert.deepEqual(double.contents(), [`TXT ${challenge.name} one`, `TXT ${challenge.name} two`]);
      await provider.remove(text(challenge.name, 'one'));
      assert.deepEqual(double.contents(), [`TXT ${challenge.name} two`]);
    });

    test('the texts of others at the same name survive adding and removing ours', async () => {
      const theirs = { name: challenge.name, type: 'TXT', value: 'of somebody else' };
      const { double, provider } = await begin({ zones: { 'example.com': [theirs] } });
      await provider.add(challenge);
      await provider.remove(challenge);
      assert.deepEqual(double.contents(), [`TXT ${challenge.name} of somebody else`]);
    });

    test('adding what is there and removing what is not write nothing', async () => {
      const { double, provider } = await begin({ zones: { 'example.com': [{ ...challenge }] } });
      await provider.add(challenge);
      await provider.remove(text(challenge.name, 'never there'));
      assert.deepEqual(double.writes(), []);
    });

    test('a record on the last of many pages is found', async () => {
      const crowd = Array.from({ length: 23 }, (_, index) => text(challenge.name, `value ${index}`));
      const { double, provider } = await begin({ zones: { 'example.com': crowd }, pageLimit: 5 });
      assert.equal((await provider.list(challenge.name, 'TXT')).length, 23);
      await provider.add(text(challenge.name, 'value 22'));
      assert.deepEqual(double.writes(), []);
    });

    test('the zone is the longest that holds the name, under any public suffix, among many zones', async () => {
      const others = Object.fromEntries(Array.from({ length: 30 }, (_, index) => [`zone${index}.net`, []]));
      const zones = { ...others, 'co.uk': [], 'example.co.uk': [], 'sub.example.co.uk': [] };
      const { double, provider } = await begin({ zones, pageLimit: 4 });
      await provider.add(text('_x.a.sub.example.co.uk', '1'));
      await provider.add(text('_x.a.example.co.uk', '2'));
      assert.equal(double.zones.get('sub.example.co.uk')?.records.length, 1);
      assert.equal(double.zones.get('example.co.uk')?.records.length, 1);
    });

    test('a name outside of every zone is told as that', async () => {
      const { provider } = await begin();
      const error = await failure(provider.add(text('_x.example.org', '1')));
      assert.equal(error.code, 'zone-not-found');
      assert.match(error.message, /_x\.example\.org/);
    });

    test('a zone that was made anew is looked up anew', async () => {
      const { double, provider } = await begin();
      await provider.add(challenge);
      double.zones.set('example.com', { id: '77', name: 'example.com', records: [] });
      await provider.add(challenge);
      assert.equal(double.zones.get('example.com')?.records.length, 1);
    });

    test('every record type that we write comes back as it was written', async () => {
      const { provider } = await begin();
      const records: DnsRecord[] = [
        { name: 'four.example.com', type: 'A', value: '192.0.2.7' },
        { name: 'six.example.com', type: 'AAAA', value: '2001:db8::7' },
        { name: '*.example.com', type: 'CNAME', value: 'gateway.example.net' },
        { name: 'example.com', type: 'TXT', value: 'with "quotes", \\ and more'.padEnd(400, '.') },
        {
          name: 'example.com',
          type: 'CAA',
          value: vendor.plainCaaOnly ? '0 issuewild "ca.example"' : pin,
        },
      ];
      for (const record of records) {
        await provider.add(record);
        assert.deepEqual(await provider.list(record.name, record.type), [record]);
      }
      for (const record of records) await provider.remove(record);
      for (const { name, type } of records) assert.deepEqual(await provider.list(name, type), []);
    });

    test('a CNAME beside an address is refused as a conflict or in the API’s words, and nothing is lost', async () => {
      const address = { name: 'app.example.com', type: 'A', value: '192.0.2.1' };
      const { double, provider } = await begin({ zones: { 'example.com': [address] } });
      const error = await failure(
        provider.add({ name: 'app.example.com', type: 'CNAME', value: 'gw.example.net' }),
      );
      assert.ok(['conflict', 'refused'].includes(error.code));
      assert.deepEqual(double.contents(), ['A app.example.com 192.0.2.1']);
    });

    for (const [what, fault] of [
      ['malformed JSON', { body: '{"success":true,"result":[{"id' }],
      ['an empty answer', { body: '' }],
      ['a page that is not JSON', { body: '<html>busy</html>', headers: { 'content-type': 'text/html' } }],
      [
        'null in place of the list',
        { body: '{"success":true,"result":null,"data":null,"pages":1,"results":0}' },
      ],
      ['records with fields missing', { body: vendor.torn }],
    ] as const) {
      test(`${what} is an error, never an empty zone, and leads to no write`, async () => {
        const { double, provider } = await begin({ zones: { 'example.com': [{ ...challenge }] } });
        await provider.list(challenge.name, 'TXT');
        for (const act of [
          provider.list(challenge.name, 'TXT'),
          provider.add(text(challenge.name, 'b')),
          provider.remove(challenge),
        ]) {
          double.misbehave({ ...fault, ...vendor.read });
          assert.equal((await failure(act)).code, 'unintelligible');
        }
        assert.deepEqual(double.writes(), []);
      });
    }

    test('a success that describes another record, or a failure, is not believed', async () => {
      const { double, provider } = await begin();
      double.misbehave({ ...vendor.add, body: vendor.lie });
      assert.match((await failure(provider.add(challenge))).code, /unintelligible|refused/);
    });

    test('refused credentials are told as that, at once', async () => {
      const { double } = await begin();
      const stranger = vendor.open({ ...double, token: 'not-the-token' }, swift);
      const error = await failure(stranger.list('app.example.com', 'TXT'));
      assert.equal(error.code, 'credentials-refused');
      assert.ok(error.variable !== undefined && error.message.includes(error.variable), error.message);
      assert.match(error.message, /wrong, expired or revoked: make it anew at https:\/\/\S+/);
      assert.ok(!error.message.includes('not-the-token'));
      assert.equal(double.journal.length, 1);
    });

    test('a rate limit is waited out as the API asks', async () => {
      const { double, provider } = await begin();
      double.misbehave({ status: 429, headers: { 'retry-after': '0' }, times: 2 });
      await provider.add(challenge);
      assert.equal(double.contents().length, 1);
    });

    test('a rate limit longer than our patience is an error that says how long', async () => {
      const { double, provider } = await begin();
      double.misbehave({ status: 429, headers: { 'retry-after': '3000000' }, times: 9 });
      const error = await failure(provider.add(challenge));
      assert.equal(error.code, 'rate-limited');
      assert.equal(error.retryAfterMs, 3_000_000_000);
      assert.equal(double.journal.length, 1);
    });

    test('an API that stays broken is given up after a bounded number of calls', async () => {
      const { double, provider } = await begin();
      double.misbehave({ status: 503, times: 1_000 });
      assert.equal((await failure(provider.add(challenge))).code, 'unreachable');
      assert.ok(double.journal.length <= 4, String(double.journal.length));
    });

    test('a write whose answer is lost is found done and not done twice', async () => {
      const { double, provider } = await begin();
      double.misbehave({ ...vendor.add, hangUp: true, afterEffect: true });
      await provider.add(challenge);
      assert.equal(double.contents().length, 1);
      assert.equal(double.writes().length, 1);
    });

    test('a removal whose answer is lost is found done', async () => {
      const { double, provider } = await begin({ zones: { 'example.com': [{ ...challenge }] } });
      double.misbehave({ ...vendor.remove, status: 502, afterEffect: true });
      await provider.remove(challenge);
      assert.deepEqual(double.contents(), []);
    });

    test('a silent API is not waited for without end', async () => {
      const { double, provider } = await begin(
        {},
        { timeoutMs: 60, patience: { attempts: 2, firstWaitMs: 1 } },
      );
      double.misbehave({ delayMs: 60_000, times: 5 });
      assert.equal((await failure(provider.list('app.example.com', 'TXT'))).code, 'unreachable');
    });

    test('a redirect is not followed, so the token goes nowhere else', async () => {
      const { double, provider } = await begin();
      const elsewhere = await vendor.start({});
      started.push(elsewhere);
      double.misbehave({ status: 302, headers: { location: elsewhere.url } });
      assert.equal((await failure(provider.list('app.example.com', 'TXT'))).code, 'refused');
      assert.deepEqual(elsewhere.journal, []);
    });

    test('two providers with tokens of their own do not use each other’s', async () => {
      const one = await begin({ token: 'token-one-0123456789' });
      const two = await begin({ token: 'token-two-0123456789' });
      await Promise.all([
        one.provider.add(challenge),
        two.provider.add(challenge),
        one.provider.add(text('_y.example.com', '1')),
      ]);
      assert.equal(one.double.contents().length, 2);
      assert.equal(two.double.contents().length, 1);
    });

    const { endless } = vendor;
    if (endless !== undefined) {
      test('a list that claims endless pages is refused', async () => {
        const { double, provider } = await begin();
        double.misbehave({ ...endless, times: 9 });
        assert.equal((await failure(provider.list(challenge.name, 'TXT'))).code, 'unintelligible');
      });
    }
  });
}

test('Cloudflare: a proxied record is told as such, and adding it makes it DNS only', async () => {
  const alias = { name: 'app.example.com', type: 'CNAME', value: 'gw.example.net' } as const;
  const double = await startCloudflareDouble({ zones: { 'example.com': [{ ...alias, proxied: true }] } });
  const provider = cloudflareKind.create({
    CLOUDFLARE_API_TOKEN: double.token,
    CLOUDFLARE_BASE_URL: double.url,
  });
  assert.deepEqual(await provider.list(alias.name, 'CNAME'), [{ ...alias, proxied: true }]);
  await provider.add(alias);
  assert.deepEqual(await provider.list(alias.name, 'CNAME'), [alias]);
  await double.stop();
});

test('Cloudflare: a time to live below the least is raised to it', async () => {
  const double = await startCloudflareDouble({ zones: { 'example.com': [] } });
  const provider = cloudflareKind.create({
    CLOUDFLARE_API_TOKEN: double.token,
    CLOUDFLARE_BASE_URL: double.url,
  });
  await provider.add(challenge, 5);
  const [write] = double.writes();
  assert.equal((write!.body as { ttl: number }).ttl, 60);
  await double.stop();
});

test('Namecheap: an answer cut off anywhere never leads to a rewrite, for that would delete what was cut off', async () => {
  const others = [
    { name: 'example.com', type: 'MX', value: 'mx.example.org' },
    { name: 'www.example.com', type: 'A', value: '192.0.2.80' },
    { name: 'shop.example.com', type: 'URL301', value: 'https://shop.example.org/?a=1&b="2"' },
  ];
  const double = await startNamecheapDouble({ zones: { 'example.com': others } });
  const credentials = {
    NAMECHEAP_USERNAME: 'us',
    NAMECHEAP_API_KEY: double.token,
    NAMECHEAP_CLIENT_IP: '192.0.2.1',
  };
  const provider = namecheapKind.create({ ...credentials, NAMECHEAP_API_URL: double.url }, swift);
  const whole = await fetch(double.url, {
    method: 'POST',
    body: new URLSearchParams({
      ApiKey: double.token,
      Command: 'namecheap.domains.dns.getHosts',
      SLD: 'example',
      TLD: 'com',
    }),
  }).then((reply) => reply.text());
  const before = double.contents();
  for (let length = 0; length < whole.length; length += 7) {
    double.misbehave({ content: /getHosts/, body: whole.slice(0, length) });
    await assert.rejects(provider.add(challenge), { code: 'unintelligible' });
  }
  assert.deepEqual(double.contents(), before);
  assert.deepEqual(double.writes(), []);
  await provider.add(challenge);
  assert.deepEqual(double.contents(), [...before, `TXT ${challenge.name} a-token`].sort());
  await provider.remove(challenge);
  assert.deepEqual(double.contents(), before);
  await double.stop();
});

test('Namecheap: a domain that somebody changes at the same moment is read again before it is written', async () => {
  const double = await startNamecheapDouble({ zones: { 'example.com': [] } });
  const credentials = {
    NAMECHEAP_USERNAME: 'us',
    NAMECHEAP_API_KEY: double.token,
    NAMECHEAP_CLIENT_IP: '192.0.2.1',
  };
  const provider = namecheapKind.create({ ...credentials, NAMECHEAP_API_URL: double.url }, swift);
  await provider.list('example.com', 'TXT');
  const reads = () => double.journal.filter(({ body }) => String(body).includes('getHosts')).length;
  const start = reads();
  const adding = provider.add(challenge);
  while (reads() === start) await new Promise((resolve) => setImmediate(resolve));
  double.zones
    .get('example.com')!
    .records.push({ id: '5', name: 'new.example.com', type: 'A', value: '192.0.2.5' });
  await adding;
  assert.deepEqual(double.contents(), ['A new.example.com 192.0.2.5', `TXT ${challenge.name} a-token`]);
  await double.stop();
});

test('DigitalOcean: a pin that it cannot hold is refused before anything is sent, and says why', async () => {
  const double = await startDigitaloceanDouble({ zones: { 'example.com': [] } });
  const provider = digitaloceanKind.create({ DO_AUTH_TOKEN: double.token, DO_API_URL: double.url });
  const record: DnsRecord = { name: 'example.com', type: 'CAA', value: pin };
  await assert.rejects(provider.add(record), { code: 'unsupported', message: /accounturi/ });
  assert.deepEqual(double.writes(), []);
  await double.stop();
});

test('deSEC: a time to live below the least of the zone is raised to it', async () => {
  const double = await startDesecDouble({ zones: { 'example.com': [] } });
  const provider = desecKind.create({ DESEC_TOKEN: double.token, DESEC_API_URL: double.url }, swift);
  await provider.add(challenge, 60);
  const [write] = double.writes();
  assert.equal((write!.body as { ttl: number }[])[0]!.ttl, MINIMUM_TTL);
  await double.stop();
});
