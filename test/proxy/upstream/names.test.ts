// Names of upstreams: who may say what their addresses are, and for how long.

import assert from 'node:assert/strict';
import { Resolver } from 'node:dns/promises';
import { after, describe, it } from 'node:test';
import { encodeMessage, typeNumbers } from '../../../dns/wire/message.ts';
import { createNames, type NamesOptions } from '../../../proxy/upstream/names.ts';
import { encodeData, startDnsDouble } from '../../support/dns-double.ts';

const dns = await startDnsDouble();
after(() => dns.stop());
const HOST = 'app.internal';

/** The name servers' answer to A questions; `undefined`: no answer at all. */
function answerWith(records: readonly (readonly [address: string, ttl: number])[] | undefined) {
  dns.misanswer(({ query, question }) => {
    if (records === undefined) return [];
    const answers = records
      .filter(() => question.type === typeNumbers.A)
      .map(([address, ttl]) => ({
        name: question.name,
        type: typeNumbers.A,
        class: 1,
        ttl,
        data: encodeData('A', address),
      }));
    const flags = 0x8580 | (records.length === 0 ? 3 : 0);
    return [
      encodeMessage({
        id: query.readUInt16BE(),
        flags,
        questions: [question],
        answers,
        authority: [],
        additional: [],
      }),
    ];
  });
}

/** The system's lookup says `addresses`, or that there are none; the name servers are the double's. */
function namesWith(addresses: readonly string[], options: NamesOptions = {}) {
  const looked: string[] = [];
  const names = createNames({
    async lookup(name) {
      looked.push(name);
      if (addresses.length === 0) throw Object.assign(new Error('not found'), { code: 'ENOTFOUND' });
      return addresses.map((address) => ({ address }));
    },
    createResolver() {
      const resolver = new Resolver({ timeout: 500, tries: 1 });
      resolver.setServers([dns.server]);
      return resolver;
    },
    hasIpv6: () => true,
    ...options,
  });
  return { names, looked };
}

describe('the addresses of a name', () => {
  it('in /etc/hosts are those, whatever a name server would make of it', async () => {
    answerWith([['203.0.113.66', 3600]]);
    const { names } = namesWith(['10.0.0.5']);
    assert.deepEqual(await names.resolve(HOST), { addresses: ['10.0.0.5'], lifetimeMs: 5_000 });
  });

  it('that only a search domain makes whole are found, for a short time', async () => {
    answerWith([]);
    const { names } = namesWith(['10.0.0.6', '10.0.0.7']);
    assert.deepEqual(await names.resolve('app'), {
      addresses: ['10.0.0.6', '10.0.0.7'],
      lifetimeMs: 5_000,
    });
  });

  for (const [what, ttl, lifetimeMs] of [
    ['last as long as their TTL says', 7, 7_000],
    ['last a second at least', 0, 1_000],
    ['last half a minute at most', 600, 30_000],
  ] as const) {
    it(what, async () => {
      answerWith([
        ['10.0.0.1', ttl],
        ['10.0.0.2', 3600],
      ]);
      const { names } = namesWith(['10.0.0.2', '10.0.0.1']);
      assert.deepEqual(await names.resolve(HOST), { addresses: ['10.0.0.2', '10.0.0.1'], lifetimeMs });
    });
  }

  it('are those of the name servers where the system’s lookup fails', async () => {
    answerWith([['10.0.0.3', 9]]);
    const { names } = namesWith([]);
    assert.deepEqual(await names.resolve(HOST), { addresses: ['10.0.0.3'], lifetimeMs: 9_000 });
  });

  it('do not wait for name servers that keep silent', async () => {
    answerWith(undefined);
    const { names } = namesWith(['10.0.0.4']);
    assert.deepEqual(await names.resolve(HOST), { addresses: ['10.0.0.4'], lifetimeMs: 5_000 });
  });

  it('that do not exist give the system’s error', async () => {
    answerWith([]);
    const { names } = namesWith([]);
    await assert.rejects(names.resolve(HOST), { code: 'ENOTFOUND' });
  });

  it('are without IPv6 where that leads nowhere, unless there is nothing else', async () => {
    answerWith([]);
    const without = { hasIpv6: () => false };
    const both = ['10.0.0.8', '2001:db8::8'];
    assert.deepEqual((await namesWith(both).names.resolve(HOST)).addresses, both);
    assert.deepEqual((await namesWith(both, without).names.resolve(HOST)).addresses, ['10.0.0.8']);
    const only = ['2001:db8::8'];
    assert.deepEqual((await namesWith(only, without).names.resolve(HOST)).addresses, only);
    const loopback = ['127.0.0.1', '::1'];
    assert.deepEqual((await namesWith(loopback, without).names.resolve(HOST)).addresses, loopback);
  });
});

describe('questions', () => {
  it('for one name at one time are one', async () => {
    answerWith([['10.0.0.1', 60]]);
    const { names, looked } = namesWith(['10.0.0.1']);
    const before = dns.asked.length;
    const answers = await Promise.all(Array.from({ length: 50 }, () => names.resolve(HOST)));
    assert.equal(new Set(answers).size, 1);
    assert.deepEqual(looked, [HOST]);
    assert.equal(dns.asked.length - before, 2);
    await names.resolve(HOST);
    assert.deepEqual(looked, [HOST, HOST]);
  });

  it('for localhost never leave the machine', async () => {
    answerWith([['203.0.113.66', 60]]);
    const before = dns.asked.length;
    const { names } = namesWith(['127.0.0.1']);
    for (const name of ['localhost', 'app.localhost']) await names.resolve(name);
    assert.equal(dns.asked.length, before);
  });
});
