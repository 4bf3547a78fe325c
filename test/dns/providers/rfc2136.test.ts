// A real Knot takes our signed updates, and an answer that is not signed by it is not believed.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import type { DnsProvider, DnsRecord } from '../../../dns/provider.ts';
import { rfc2136Kind } from '../../../dns/providers/rfc2136.ts';
import { createResolver, type Resolver } from '../../../dns/resolver.ts';
import { type KnotServer, knotInstalled, startKnot } from '../../support/knot.ts';

const skip = knotInstalled ? false : 'knot is not installed';
const text = (value: string, name = '_acme-challenge.app.example.com'): DnsRecord => ({
  name,
  type: 'TXT',
  value,
});

describe('rfc2136', { skip }, () => {
  let server: KnotServer;
  let provider: DnsProvider;
  let resolver: Resolver;
  const servers: Server[] = [];

  const open = (more: Record<string, string> = {}) =>
    rfc2136Kind.create(
      {
        RFC2136_NAMESERVER: server.server,
        RFC2136_TSIG_KEY: server.key.name,
        RFC2136_TSIG_SECRET: server.key.secret,
        ...more,
      },
      { timeoutMs: 2_000, patience: { attempts: 2, firstWaitMs: 1 } },
    );

  before(async () => {
    server = await startKnot(['example.com', 'deep.example.com']);
    provider = open();
    resolver = createResolver({ servers: [server.server] });
  });
  after(async () => {
    for (const one of servers) one.close();
    await server?.stop();
  });

  /** Between us and the server, with a hand on each answer. */
  async function tamper(change: (answer: Buffer, isUpdate: boolean) => Buffer): Promise<string> {
    const [host = '', port] = server.server.split(':');
    const proxy = createServer((client) => {
      const upstream = connect(Number(port), host);
      let isUpdate = false;
      client.on('data', (query: Buffer) => {
        isUpdate = ((query[4]! >> 3) & 0x0f) === 5;
        upstream.write(query);
      });
      upstream.on('data', (framed: Buffer) => {
        const changed = change(Buffer.from(framed.subarray(2)), isUpdate);
        const length = Buffer.alloc(2);
        length.writeUInt16BE(changed.length);
        client.write(Buffer.concat([length, changed]));
      });
      for (const [one, other] of [
        [client, upstream],
        [upstream, client],
      ] as const) {
        one.on('error', () => {});
        one.on('close', () => other.destroy());
      }
    });
    servers.push(proxy.listen(0, '127.0.0.1'));
    await once(proxy, 'listening');
    return `127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  }

  test('an answer whose code was changed on the way is not believed', async () => {
    const address = await tamper((answer, isUpdate) => {
      if (isUpdate) answer[3]! |= 5;
      return answer;
    });
    await assert.rejects(open({ RFC2136_NAMESERVER: address }).add(text('tampered')), {
      code: 'unintelligible',
    });
  });

  test('an answer without its signature is not believed', async () => {
    const address = await tamper((answer, isUpdate) => {
      if (!isUpdate) return answer;
      const bare = Buffer.from(answer.subarray(0, 12 + 13 + 4));
      bare.writeUInt16BE(0, 10);
      return bare;
    });
    await assert.rejects(open({ RFC2136_NAMESERVER: address }).add(text('bare')), { code: 'unintelligible' });
  });

  test('a wrong key changes nothing, is told as that and is never shown', async () => {
    const secret = randomBytes(32).toString('base64');
    await assert.rejects(
      open({ RFC2136_TSIG_SECRET: secret }).add(text('intruder')),
      (error: Error & { code?: string }) => {
        return error.code === 'credentials-refused' && !inspect(error, { depth: 9 }).includes(secret);
      },
    );
    assert.ok(!(await resolver.resolve(text('').name, 'TXT')).includes('intruder'));
  });

  test('two challenges stand side by side, beside a foreign text, and go one by one', async () => {
    const name = '_acme-challenge.two.example.com';
    await provider.add(text('of somebody else', name));
    await Promise.all([
      provider.add(text('one', name)),
      provider.add(text('two', name)),
      provider.add(text('two', name)),
    ]);
    assert.deepEqual((await resolver.resolve(name, 'TXT')).sort(), ['of somebody else', 'one', 'two']);
    await provider.remove(text('one', name));
    await provider.remove(text('never there', name));
    assert.deepEqual((await resolver.resolve(name, 'TXT')).sort(), ['of somebody else', 'two']);
  });

  test('every type comes back as it was written', async () => {
    const records: DnsRecord[] = [
      { name: 'a.example.com', type: 'A', value: '192.0.2.1' },
      { name: 'a.example.com', type: 'AAAA', value: '2001:db8::1' },
      { name: 'a.example.com', type: 'AAAA', value: '::ffff:102:304' },
      { name: '*.w.example.com', type: 'CNAME', value: 'gw.example.net' },
      text(`long "quoted" \\ ${'x'.repeat(500)}`, 'long.example.com'),
      { name: 'a.example.com', type: 'CAA', value: '0 issue "ca.example;accounturi=https://ca.example/a/1"' },
    ];
    for (const record of records) {
      await provider.add(record);
      assert.deepEqual(await provider.list(record.name, record.type), [record]);
      assert.deepEqual(await resolver.resolve(record.name, record.type), [record.value]);
      await provider.remove(record);
      assert.deepEqual(await provider.list(record.name, record.type), []);
    }
  });

  test('the deepest zone is the one that is written, and a name outside of all is told as that', async () => {
    const record = text('deep', '_x.deep.example.com');
    await provider.add(record);
    assert.deepEqual(await resolver.resolve(record.name, 'TXT'), ['deep']);
    await assert.rejects(provider.add(text('no', '_x.example.org')), { code: 'zone-not-found' });
  });

  test('an alias that the server passes over in silence is a conflict', async () => {
    await provider.add({ name: 'busy.example.com', type: 'A', value: '192.0.2.1' });
    const alias: DnsRecord = { name: 'busy.example.com', type: 'CNAME', value: 'gw.example.net' };
    await assert.rejects(provider.add(alias), { code: 'conflict' });
    assert.equal((await provider.list('busy.example.com', 'A')).length, 1);
  });

  test('a clock that is far off is told as that', async () => {
    const { create } = rfc2136Kind;
    const late = { now: () => new Date(Date.now() - 3_600_000), sleep: async () => {} };
    const options = { clock: late, patience: { attempts: 1 } };
    const credentials = {
      RFC2136_NAMESERVER: server.server,
      RFC2136_TSIG_KEY: server.key.name,
      RFC2136_TSIG_SECRET: server.key.secret,
    };
    await assert.rejects(create(credentials, options).add(text('late')), {
      code: 'credentials-refused',
      message: /clocks/,
    });
  });

  for (const algorithm of ['hmac-sha1', 'hmac-sha512']) {
    test(`${algorithm} keys work as well`, async () => {
      const other = await startKnot(['example.com'], algorithm);
      const credentials = {
        RFC2136_NAMESERVER: other.server,
        RFC2136_TSIG_KEY: other.key.name,
        RFC2136_TSIG_SECRET: other.key.secret,
        RFC2136_TSIG_ALGORITHM: `${algorithm.toUpperCase()}.`,
      };
      await rfc2136Kind.create(credentials).add(text('signed'));
      await other.stop();
    });
  }
});

test('settings that cannot be right are refused before anything is sent', () => {
  const good = {
    RFC2136_NAMESERVER: 'ns1.example.com:53',
    RFC2136_TSIG_KEY: 'k',
    RFC2136_TSIG_SECRET: 'c2VjcmV0',
  };
  rfc2136Kind.create(good);
  for (const bad of [
    { RFC2136_NAMESERVER: 'ns1:99999' },
    { RFC2136_NAMESERVER: 'a b' },
    { RFC2136_TSIG_SECRET: 'not base64!' },
    { RFC2136_TSIG_ALGORITHM: 'hmac-md5' },
  ]) {
    assert.throws(() => rfc2136Kind.create({ ...good, ...bad }), { code: 'unsupported' });
  }
});
