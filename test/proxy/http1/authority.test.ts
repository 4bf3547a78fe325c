// The host that is asked for: in all the ways of writing one, and two that are the same.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { after, describe, it } from 'node:test';
import { parseHost, sameAuthority } from '../../../proxy/http1/authority.ts';
import {
  answering,
  HOST,
  type Ingress,
  request,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

describe('a host', () => {
  for (const [value, host] of [
    ['A.Example', 'a.example'],
    ['a.example:8443', 'a.example'],
    ['a.example.', 'a.example'],
    ['[::1]:443', '[::1]'],
    ['a.example:', 'a.example'],
    ['a.example.:', 'a.example'],
    ['[::1]:', '[::1]'],
    ['127.0.0.1', '127.0.0.1'],
  ] as const) {
    it(`${value} is ${host}`, () => assert.equal(parseHost(value), host));
  }
  for (const value of [
    '',
    'a@b',
    'a/b',
    'a?b',
    'a b',
    'a.example:65536',
    'a.example:1:2',
    'a,b',
    '.a',
    'a%2eb',
    '[::1',
    'a\tb',
  ]) {
    it(`${JSON.stringify(value)} is none`, () => assert.equal(parseHost(value), undefined));
  }
});

const SAME: readonly (readonly [string, string, 'http' | 'https'])[] = [
  ['h', 'h:443', 'https'],
  ['h', 'h:', 'https'],
  ['h:', 'h:443', 'https'],
  ['H.', 'h:00443', 'https'],
  ['h', 'h:80', 'http'],
  ['h:8443', 'H.:8443', 'https'],
  ['[::1]', '[::1]:443', 'https'],
];
const DIFFERENT: readonly (readonly [string, string, 'http' | 'https'])[] = [
  ['h', 'h:80', 'https'],
  ['h', 'h:443', 'http'],
  ['h', 'h:8443', 'https'],
  ['h', 'i', 'https'],
  ['h', 'h:x', 'https'],
  ['h', '', 'https'],
  ['h', 'h:65536', 'https'],
];

describe('two authorities', () => {
  for (const [one, other, scheme] of SAME) {
    it(`${one} and ${other} are the same under ${scheme}`, () => {
      assert.equal(sameAuthority(one, other, scheme), true);
      assert.equal(sameAuthority(other, one, scheme), true);
    });
  }
  for (const [one, other, scheme] of DIFFERENT) {
    it(`${one} and ${JSON.stringify(other)} are not, under ${scheme}`, () => {
      assert.equal(sameAuthority(one, other, scheme), false);
      assert.equal(sameAuthority(other, one, scheme), false);
    });
  }
});

describe('a request', async () => {
  const heads: string[] = [];
  const upstream = await startUpstream(
    answering((head) => {
      heads.push(head);
      return 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
    }),
  );
  const ingress = await startIngress([routeTo(settingsFor(upstream.port))]);
  after(async () => {
    await ingress.close();
    await upstream.close();
  });
  const named = (text: string) => text.replace(/^h\b/i, HOST);

  for (const [expected, pairs] of [
    [200, SAME],
    [400, DIFFERENT],
  ] as const) {
    for (const [one, other, scheme] of pairs) {
      if (!/^h\b/i.test(one)) continue;
      it(`for ${scheme}://${one}/ at the host ${JSON.stringify(other)} gets ${expected}, and the reverse, over each protocol`, async () => {
        for (const [target, host] of [
          [named(one), named(other)],
          [named(other), named(one)],
        ] as const) {
          if (target === '') continue;
          const client = await ingress.connect();
          const reply = await client.request(`GET ${scheme}://${target}/x HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
          assert.equal(reply.status, expected);
          assert.equal(await http2Status(ingress, target, host, scheme), expected);
        }
      });
    }
  }

  it('with an empty port in Host, or a final dot, is for the host', async () => {
    for (const host of [`${HOST}:`, `${HOST}.`, `${HOST}.:`, `${HOST}.:443`]) {
      const client = await ingress.connect();
      assert.equal((await client.request(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`)).status, 200, host);
      assert.equal(await http2Status(ingress, host, undefined, 'https'), 200, host);
    }
  });

  it('of HTTP/1.0 without Host is for the name in the handshake, and the upstream is told it', async () => {
    for (const servername of [HOST, `${HOST}.`, HOST.toUpperCase()]) {
      const client = await ingress.connect({ servername });
      assert.equal((await client.request('GET /old HTTP/1.0\r\nX-A: 1\r\n\r\n')).status, 200);
      const head = heads.at(-1)!;
      assert.match(head, /^GET \/old HTTP\/1\.1\r\n/);
      assert.equal(head.match(new RegExp(`\r\nHost: ${HOST}\r\n`, 'gi'))?.length, 1);
      assert.match(head, new RegExp(`\r\nx-forwarded-host: ${HOST}\r\n`));
    }
  });

  it('of HTTP/1.0 without Host in absolute form is for the host that it names, if that is ours', async () => {
    const ours = await ingress.connect();
    assert.equal((await ours.request(`GET https://${HOST}/old HTTP/1.0\r\n\r\n`)).status, 200);
    const foreign = await ingress.connect();
    assert.equal((await foreign.request('GET https://foreign.example/ HTTP/1.0\r\n\r\n')).status, 421);
  });

  it('of HTTP/1.1 without Host, or with an empty one, is refused all the same', async () => {
    for (const text of [
      'GET / HTTP/1.1\r\n\r\n',
      'GET / HTTP/1.1\r\nHost:\r\n\r\n',
      'GET / HTTP/1.0\r\nHost:\r\n\r\n',
    ]) {
      const client = await ingress.connect();
      assert.equal((await client.request(text)).status, 400);
    }
  });

  it('to a name with a final dot in the handshake is served, over each protocol and version of TLS', async () => {
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      const client = await ingress.connect({ servername: `${HOST}.`, maxVersion });
      assert.equal((await client.request(request('GET /'))).status, 200);
      assert.equal(
        await http2Status(ingress, HOST, undefined, 'https', { servername: `${HOST}.`, maxVersion }),
        200,
      );
    }
  });
});

async function http2Status(
  ingress: Ingress,
  authority: string,
  host: string | undefined,
  scheme: string,
  options: Parameters<Ingress['connect']>[0] = {},
): Promise<number | undefined> {
  const { socket } = await ingress.connect({ ...options, ALPNProtocols: ['h2'] });
  const session = connectHttp2(`https://${HOST}`, { createConnection: () => socket });
  const stream = session.request({
    ':path': '/x',
    ':scheme': scheme,
    ':authority': authority,
    ...(host !== undefined && { host }),
  });
  const [headers] = (await once(stream, 'response')) as [{ ':status': number }];
  session.destroy();
  return headers[':status'];
}
