// Rules carried out over real connections: the same from clients of HTTP/1.1 and HTTP/2 to upstreams of HTTP/1.1 and HTTP/2.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import type { Content, Location, Policy, RuleSet, Site } from '../../../proxy/rules/model.ts';
import {
  type Answer,
  type Ask,
  type Client,
  join,
  type Pairing,
  pairings,
  type Script,
  type Served,
  type Serving,
  serve,
} from '../../support/pairings.ts';
import { appCertificate, HOST } from '../../support/proxy.ts';
import { prefix, re, t } from '../rules/driver.ts';

interface Situation {
  readonly title: string;
  readonly locations: readonly Location[];
  readonly site?: Partial<Site>;
  readonly set?: Partial<RuleSet>;
  readonly upstream?: Script;
  readonly ask?: Ask;
  readonly asks?: (client: Client) => Promise<Answer>;
  readonly expect: Partial<Answer> | ((answer: Answer, seen: readonly Served[], pairing: Pairing) => void);
  /** How many requests the upstreams get, all together. */
  readonly requests?: number;
  readonly only?: (pairing: Pairing) => boolean;
}

const ok: Script = (served) =>
  void served.body.then((body) => served.reply(200, `ok ${served.path} ${body}`));

/** `up` is the upstream of the pairing, `down` is a port where nobody listens. */
function toUp({ upstream }: Pairing): Content {
  return { kind: 'proxy', upstream: 'up', protocol: upstream === 'h1' ? 'http' : 'h2c', host: 'up' };
}

const UP: Content = { kind: 'proxy', upstream: 'up', protocol: 'http', host: 'up' };
const DOWN: Content = { kind: 'proxy', upstream: 'down', protocol: 'http', host: 'down' };

/** The content that is written as UP is the upstream of the pairing, in its protocol. */
function inProtocolOf<T>(pairing: Pairing, rules: T): T {
  return JSON.parse(
    JSON.stringify(rules, (_, value) => {
      if (value?.kind === 'proxy' && value.upstream === 'up')
        return { ...value, protocol: (toUp(pairing) as { protocol: string }).protocol };
      if (value?.kind === 'forward' && value.upstream === 'up')
        return { ...value, protocol: (toUp(pairing) as { protocol: string }).protocol };
      return value;
    }),
  ) as T;
}

const timeouts: Policy = {
  connectTimeoutMs: 2_000,
  readTimeoutMs: 30_000,
  sendTimeoutMs: 30_000,
};

function ruleSet(pairing: Pairing, port: number, { locations, site, set }: Situation): RuleSet {
  return inProtocolOf<RuleSet>(pairing, {
    policy: timeouts,
    upstreams: [
      { name: 'up', servers: [{ host: '127.0.0.1', port }] },
      { name: 'down', servers: [{ host: '127.0.0.1', port: 1 }] },
    ],
    ...set,
    sites: [{ names: [{ kind: 'exact', name: HOST }], label: HOST, locations, ...site }],
  });
}

const basic = (name: string, password: string) => ({
  authorization: `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`,
});

const users = [{ name: 'ann', hash: '$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/' }];

const folder = mkdtempSync(joinPath(tmpdir(), 'ruled-'));
mkdirSync(joinPath(folder, 'www/deep'), { recursive: true });
writeFileSync(joinPath(folder, 'www/index.html'), '<p>front</p>');
writeFileSync(joinPath(folder, 'www/data.txt'), '0123456789');
writeFileSync(joinPath(folder, 'secret.txt'), 'secret');
symlinkSync(joinPath(folder, 'secret.txt'), joinPath(folder, 'www/link.txt'));

const situations: readonly Situation[] = [
  {
    title: 'what is forwarded without a word more arrives with its body',
    locations: [prefix('/', { content: UP })],
    ask: { method: 'POST', path: '/a?b=c', body: 'hello' },
    expect: { status: 200, body: 'ok /a?b=c hello', cut: false },
    requests: 1,
  },
  {
    title: 'a body without a length arrives whole',
    locations: [prefix('/', { content: UP })],
    ask: { method: 'POST', path: '/a', body: 'hello', chunked: true },
    expect: { status: 200, body: 'ok /a hello' },
    requests: 1,
  },
  {
    title: 'an address that is denied gets 403, and the upstream hears nothing',
    locations: [prefix('/', { content: UP, policy: { addresses: [{ allow: false, range: 'all' }] } })],
    expect: { status: 403 },
    requests: 0,
  },
  {
    title: 'an encoded path does not lead past a denial',
    locations: [
      prefix('/', { content: UP }),
      prefix('/secret', { content: UP, policy: { addresses: [{ allow: false, range: 'all' }] } }),
    ],
    asks: async (client) => {
      for (const path of ['/%73ecret', '/a/../secret', '/a/%2e%2e/secret', '//secret', '/./secret/x'])
        assert.equal((await client.ask({ path })).status, 403, path);
      return client.ask({ path: '/secretary' });
    },
    expect: { status: 403 },
    requests: 0,
  },
  {
    title: 'what is internal does not exist for clients',
    locations: [prefix('/', { content: UP }), prefix('/inside/', { internal: true, content: UP })],
    ask: { path: '/inside/a' },
    expect: { status: 404 },
    requests: 0,
  },
  {
    title: 'without a password 401 with a challenge',
    locations: [prefix('/', { content: UP, policy: { basicRealm: ['here'], basicUsers: users } })],
    expect: ({ status, headers }) => {
      assert.equal(status, 401);
      assert.equal(headers['www-authenticate'], 'Basic realm="here"');
    },
    requests: 0,
  },
  {
    title: 'a wrong password and a name that nobody has: 401',
    locations: [prefix('/', { content: UP, policy: { basicRealm: ['here'], basicUsers: users } })],
    asks: async (client) => {
      assert.equal((await client.ask({ headers: basic('bob', 'secret') })).status, 401);
      return client.ask({ headers: basic('ann', 'wrong') });
    },
    expect: { status: 401 },
    requests: 0,
  },
  {
    title: 'the right password lets a request with its body through, again and again',
    locations: [prefix('/', { content: UP, policy: { basicRealm: ['here'], basicUsers: users } })],
    asks: async (client) => {
      assert.equal((await client.ask({ headers: basic('ann', 'secret') })).status, 200);
      return client.ask({
        method: 'POST',
        path: '/b',
        body: 'x'.repeat(100_000),
        headers: basic('ann', 'secret'),
      });
    },
    expect: { status: 200, body: `ok /b ${'x'.repeat(100_000)}` },
    requests: 2,
  },
  {
    title: 'a WebSocket passes where the password is right',
    locations: [prefix('/', { content: UP, policy: { basicRealm: ['here'], basicUsers: users } })],
    upstream: (served) => served.switch(),
    only: ({ upstream }) => upstream === 'h1',
    ask: { websocket: 'ping', headers: basic('ann', 'secret') },
    expect: ({ status, body }, _, { client }) => {
      assert.equal(status, client === 'h1' ? 101 : 200);
      assert.equal(body, 'ping');
    },
    requests: 1,
  },
  {
    title: 'a WebSocket is refused where the password is wrong',
    locations: [prefix('/', { content: UP, policy: { basicRealm: ['here'], basicUsers: users } })],
    only: ({ upstream }) => upstream === 'h1',
    ask: { websocket: 'ping', headers: basic('ann', 'wrong') },
    expect: { status: 401 },
    requests: 0,
  },
  {
    title: 'a service that lets nobody in answers the client itself',
    locations: [prefix('/', { content: UP, policy: { authRequest: forwardTo('up') } })],
    upstream: (served) =>
      served.reply(302, 'sign in', { location: 'https://login.example/', 'set-cookie': 'a=b' }),
    ask: { path: '/private' },
    expect: ({ status, headers, body }, seen) => {
      assert.equal(status, 302);
      assert.equal(headers.location, 'https://login.example/');
      assert.equal(body, 'sign in');
      assert.equal(seen[0]!.path, '/verify?from=/private');
    },
    requests: 1,
  },
  {
    title: 'a service that lets in says who it is, whatever the client says',
    locations: [prefix('/', { content: UP, policy: { authRequest: forwardTo('up') } })],
    upstream: (served) => {
      if (served.path.startsWith('/verify')) served.reply(200, 'body', { 'remote-user': 'ann' });
      else served.reply(200, String(served.headers['remote-user']));
    },
    ask: { path: '/private', headers: { 'remote-user': 'root' } },
    expect: { status: 200, body: 'ann' },
    requests: 2,
  },
  {
    title: 'a service that cannot be asked lets nobody in: 503',
    locations: [prefix('/', { content: UP, policy: { authRequest: forwardTo('down') } })],
    ask: { method: 'POST', body: 'hello' },
    expect: { status: 503 },
    requests: 0,
  },
  {
    title: 'a service that breaks off lets nobody in: 503',
    locations: [prefix('/', { content: UP, policy: { authRequest: forwardTo('up') } })],
    upstream: (served) => served.cut(),
    expect: { status: 503 },
  },
  {
    title: "nginx's sub-request: 401 and 403 pass on, 2xx lets through, and what cannot be asked is 500",
    locations: [
      prefix('/', { content: UP, policy: { authRequest: { kind: 'uri', uri: ['/auth'] } } }),
      prefix('/gone', { content: UP, policy: { authRequest: { kind: 'uri', uri: ['/nowhere'] } } }),
      { match: { kind: 'exact', path: '/auth' }, internal: true, content: UP },
      { match: { kind: 'exact', path: '/nowhere' }, internal: true, content: DOWN },
    ],
    upstream: (served) => {
      if (served.path !== '/auth') served.reply(200, 'in');
      else
        served.reply(served.headers.authorization === undefined ? 401 : 204, '', {
          'www-authenticate': 'Custom',
        });
    },
    asks: async (client) => {
      const refused = await client.ask();
      assert.equal(refused.status, 401);
      assert.equal(refused.headers['www-authenticate'], 'Custom');
      assert.equal((await client.ask({ path: '/gone' })).status, 500);
      return client.ask({ headers: { authorization: 'x' } });
    },
    expect: { status: 200, body: 'in' },
    requests: 3,
  },
  {
    title: 'a redirect and a text of ours, with fields that come twice',
    locations: [
      prefix('/old', { content: { kind: 'redirect', status: 301, to: t('https://$host/new') } }),
      prefix('/', {
        content: { kind: 'respond', status: 201, body: ['hello'], contentType: 'text/plain' },
        policy: {
          addHeaders: [
            { name: 'Set-Cookie', value: ['a=1'], always: true },
            { name: 'Set-Cookie', value: ['b=2'], always: true },
          ],
        },
      }),
    ],
    asks: async (client) => {
      const moved = await client.ask({ path: '/old', method: 'POST', body: 'ignored' });
      assert.equal(moved.status, 301);
      assert.equal(moved.headers.location, `https://${HOST}/new`);
      return client.ask();
    },
    expect: ({ status, body, headers }) => {
      assert.equal(status, 201);
      assert.equal(body, 'hello');
      assert.deepEqual(headers['set-cookie'], ['a=1', 'b=2']);
      assert.equal(headers['content-length'], '5');
    },
    requests: 0,
  },
  {
    title: 'fields are set and removed on both ways, and ours beside them stay',
    locations: [
      prefix('/', {
        content: UP,
        policy: {
          requestHeaders: [
            { do: 'set', name: 'X-Set', value: t('$request_method') },
            { do: 'remove', name: 'X-Gone' },
            { do: 'set', name: 'X-Real-IP', value: ['10.9.8.7'] },
            { do: 'set', name: 'Host', value: ['inner.example'] },
          ],
          replyHeaders: [
            { do: 'set', name: 'X-Reply', value: ['new'] },
            { do: 'remove', name: 'Server' },
          ],
        },
      }),
    ],
    upstream: (served) => served.reply(200, 'ok', { server: 'secret/1', 'x-reply': 'old', 'x-kept': 'yes' }),
    ask: { headers: { 'x-gone': '1', 'x-set': 'mine', 'x-stays': 'here' } },
    expect: ({ status, headers }, seen) => {
      assert.equal(status, 200);
      const [{ headers: sent }] = seen as [Served];
      assert.equal(sent['x-set'], 'GET');
      assert.equal(sent['x-gone'], undefined);
      assert.equal(sent['x-stays'], 'here');
      assert.equal(sent['x-real-ip'], '10.9.8.7');
      assert.equal(sent['x-forwarded-proto'], 'https');
      assert.equal(sent.host ?? sent[':authority'], 'inner.example');
      assert.equal(headers['x-reply'], 'new');
      assert.equal(headers.server, undefined);
      assert.equal(headers['x-kept'], 'yes');
    },
    requests: 1,
  },
  {
    title: 'a path is rewritten before it leaves',
    locations: [
      prefix('/', {
        content: UP,
        rewrite: [{ do: 'rewrite', pattern: re('^/api/(.*)$'), to: t('/v1/$1'), flag: 'break' }],
      }),
    ],
    ask: { path: '/api/users?x=1' },
    expect: { status: 200, body: 'ok /v1/users?x=1 ' },
    requests: 1,
  },
  {
    title: 'an error page takes the place of the reply of an upstream, with its status',
    locations: [
      prefix('/', {
        content: UP,
        policy: {
          interceptErrors: true,
          errorPages: [{ statuses: [404], target: { kind: 'uri', uri: ['/missing'] } }],
        },
      }),
      {
        match: { kind: 'exact', path: '/missing' },
        content: { kind: 'respond', status: 200, body: ['our page'] },
      },
    ],
    upstream: (served) => served.reply(404, 'theirs'),
    asks: async (client) => {
      assert.equal((await client.ask({ method: 'POST', body: 'x' })).status, 404);
      return client.ask();
    },
    expect: { status: 404, body: 'our page', cut: false },
    requests: 2,
  },
  {
    title: 'an error page comes from another upstream, which gets the request as well',
    locations: [
      prefix('/', {
        content: UP,
        policy: {
          interceptErrors: true,
          errorPages: [{ statuses: [503], status: 'target', target: { kind: 'named', name: '@other' } }],
        },
      }),
      { match: { kind: 'named', name: '@other' }, content: UP },
    ],
    upstream: (served) => {
      if (served.index === 0) return void served.body.then(() => served.reply(503, 'busy'));
      void served.body.then((body) => served.reply(200, `second ${body}`));
    },
    ask: { method: 'POST', path: '/a', body: 'again' },
    expect: { status: 200, body: 'second again' },
    requests: 2,
  },
  {
    title: 'an upstream that is down has an error page too',
    locations: [
      prefix('/', {
        content: DOWN,
        policy: { errorPages: [{ statuses: [502], target: { kind: 'uri', uri: ['/sorry'] } }] },
      }),
      {
        match: { kind: 'exact', path: '/sorry' },
        content: { kind: 'respond', status: 200, body: ['sorry'] },
      },
    ],
    expect: { status: 502, body: 'sorry' },
    requests: 0,
  },
  {
    title: 'an upstream that is down without one is told as without rules',
    locations: [prefix('/', { content: DOWN })],
    expect: ({ status, body }) => {
      assert.equal(status, 502);
      assert.equal((JSON.parse(body) as { error: string }).error, 'upstream-refused');
    },
    requests: 0,
  },
  {
    title: 'a body that is longer than its place takes: 413, by its length and by count',
    locations: [prefix('/', { content: UP, policy: { maxBodyBytes: 10 } })],
    asks: async (client) => {
      assert.equal((await client.ask({ method: 'POST', body: 'x'.repeat(11) })).status, 413);
      return client.ask({ method: 'POST', body: 'x'.repeat(11), chunked: true });
    },
    expect: { status: 413 },
  },
  {
    title: 'so many requests and not one more',
    locations: [
      prefix('/', {
        content: UP,
        policy: { requestLimits: [{ zone: 'z', burst: 2, delay: 2 }], requestLimitStatus: 429 },
      }),
    ],
    set: { requestZones: [{ name: 'z', key: t('$remote_addr'), perThousandSeconds: 1 }] },
    asks: async (client) => {
      for (let i = 0; i < 3; i++) assert.equal((await client.ask()).status, 200);
      return client.ask();
    },
    expect: { status: 429 },
    requests: 3,
  },
  {
    title: 'a seat is free again once its request is over',
    locations: [prefix('/', { content: UP, policy: { connectionLimits: [{ zone: 'c', max: 1 }] } })],
    set: { connectionZones: [{ name: 'c', key: t('$remote_addr') }] },
    asks: async (client) => {
      assert.equal((await client.ask()).status, 200);
      return client.ask();
    },
    expect: { status: 200 },
    requests: 2,
  },
  {
    title: 'a file, a part of it, and nothing that lies elsewhere',
    locations: [
      prefix('/', {
        content: { kind: 'files' },
        policy: { root: { path: [joinPath(folder, 'www')] }, index: [['index.html']] } as Policy,
      }),
    ],
    asks: async (client) => {
      for (const path of ['/link.txt', '/../secret.txt', '/%2e%2e/secret.txt', '/data.txt%00.html', '/none'])
        assert.ok([400, 403, 404].includes((await client.ask({ path })).status), path);
      const part = await client.ask({ path: '/data.txt', headers: { range: 'bytes=2-4' } });
      assert.equal(part.status, 206);
      assert.equal(part.body, '234');
      assert.equal(part.headers['content-range'], 'bytes 2-4/10');
      const whole = await client.ask({ path: '/data.txt' });
      assert.equal(whole.body, '0123456789');
      const same = await client.ask({
        path: '/data.txt',
        headers: { 'if-none-match': String(whole.headers.etag) },
      });
      assert.equal(same.status, 304);
      assert.equal((await client.ask({ path: '/data.txt', method: 'HEAD' })).headers['content-length'], '10');
      return client.ask();
    },
    expect: { status: 200, body: '<p>front</p>', cut: false },
    requests: 0,
  },
  {
    title: 'gRPC keeps its metadata and trailers, and gets what rules add',
    locations: [
      prefix('/', {
        content: UP,
        policy: { requestHeaders: [{ do: 'set', name: 'X-Tenant', value: ['blue'] }] },
      }),
    ],
    only: ({ client, upstream }) => client === 'h2' && upstream === 'h2c',
    upstream: (served) =>
      void served.body.then((body) => {
        served.begin(200, { 'content-type': 'application/grpc' });
        served.write(`${body} ${served.headers['x-tenant']} ${served.headers.my_key}`);
        served.end({ 'grpc-status': '0' });
      }),
    ask: {
      method: 'POST',
      path: '/pkg.Service/Call',
      body: 'message',
      headers: { 'content-type': 'application/grpc', te: 'trailers', my_key: 'mine' },
    },
    expect: ({ status, body, trailers }) => {
      assert.equal(status, 200);
      assert.equal(body, 'message blue mine');
      assert.equal(trailers['grpc-status'], '0');
    },
    requests: 1,
  },
  {
    title: 'gRPC is denied in its own words',
    locations: [prefix('/', { content: UP, policy: { addresses: [{ allow: false, range: 'all' }] } })],
    only: ({ client, upstream }) => client === 'h2' && upstream === 'h2c',
    ask: {
      method: 'POST',
      path: '/pkg.Service/Call',
      body: 'm',
      headers: { 'content-type': 'application/grpc' },
    },
    expect: ({ status, headers }) => {
      assert.equal(status, 200);
      assert.equal(headers['grpc-status'], '7');
    },
    requests: 0,
  },
];

function forwardTo(upstream: string): NonNullable<Policy['authRequest']> {
  return {
    kind: 'forward',
    upstream,
    protocol: 'http',
    uri: t('/verify?from=$request_uri'),
    requestHeaders: [],
    copy: ['Remote-User'],
  };
}

async function check(t: TestContext, pairing: Pairing, situation: Situation): Promise<void> {
  const upstream: Serving = await serve(t, pairing.upstream, situation.upstream ?? ok);
  const place = await join(t, pairing, upstream.port);
  place.ingress.listener.setRoutes([], ruleSet(pairing, upstream.port, situation));
  const client = place.client();
  const answer = await (situation.asks?.(client) ?? client.ask(situation.ask));
  const { expect } = situation;
  if (typeof expect === 'function') expect(answer, upstream.requests, pairing);
  else
    for (const [name, value] of Object.entries(expect))
      assert.deepEqual(answer[name as keyof Answer], value, name);
  if (situation.requests !== undefined) assert.equal(upstream.requests.length, situation.requests);
}

for (const pairing of pairings)
  describe(`rules, ${pairing.name}`, () => {
    for (const situation of situations)
      if (situation.only?.(pairing) !== false) it(situation.title, (t) => check(t, pairing, situation));
  });

describe('rules that change', () => {
  const pairing = pairings[0]!;
  const answering = (body: string): Situation => ({
    title: '',
    locations: [prefix('/', { content: { kind: 'respond', status: 200, body: [body] } })],
    expect: {},
  });

  it('what cannot be compiled changes nothing', async (context) => {
    const place = await join(context, pairing, 1);
    const { listener } = place.ingress;
    listener.setRoutes([], ruleSet(pairing, 1, answering('before')));
    const broken: Situation = {
      title: '',
      locations: [
        prefix('/', { content: { kind: 'proxy', upstream: 'nowhere', protocol: 'http', host: 'x' } }),
      ],
      expect: {},
    };
    assert.throws(() => listener.setRoutes([], ruleSet(pairing, 1, broken)), /nowhere/);
    const client = place.client();
    assert.equal((await client.ask()).body, 'before');
    listener.setRoutes([], ruleSet(pairing, 1, answering('after')));
    assert.equal((await client.ask()).body, 'after');
    listener.setRoutes([]);
    assert.equal((await client.ask()).status, 404);
  });

  it('a request ends by the rules that it began with', async (context) => {
    const begun = Promise.withResolvers<Served>();
    const upstream = await serve(context, 'h1', begun.resolve);
    const place = await join(context, pairing, upstream.port);
    const { listener } = place.ingress;
    const editing: Situation = {
      title: '',
      locations: [
        prefix('/', {
          content: UP,
          policy: { replyHeaders: [{ do: 'set', name: 'X-Rules', value: ['old'] }] },
        }),
      ],
      expect: {},
    };
    listener.setRoutes([], ruleSet(pairing, upstream.port, editing));
    const answer = place.client().ask();
    const served = await begun.promise;
    listener.setRoutes([], ruleSet(pairing, upstream.port, answering('new')));
    served.reply(200, 'late');
    const { body, headers } = await answer;
    assert.equal(body, 'late');
    assert.equal(headers['x-rules'], 'old');
  });
});

describe('TLS to an upstream', () => {
  it('is verified where rules do not say otherwise, and by the authorities and the name that they say', async (context) => {
    const server = createTlsServer(
      { cert: appCertificate.chain, key: appCertificate.key },
      (_, response) => void response.end('inside'),
    );
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    context.after(() => server.close());
    const { port } = server.address() as AddressInfo;
    const to = (path: string, tls?: Policy['upstreamTls']): Location =>
      prefix(path, {
        content: { kind: 'proxy', upstream: 'secure', protocol: 'https', host: 'secure' },
        policy: tls === undefined ? {} : { upstreamTls: tls },
      });
    const place = await join(context, pairings[0]!, port);
    const authorities = appCertificate.chain;
    place.ingress.listener.setRoutes([], {
      policy: timeouts,
      upstreams: [{ name: 'secure', servers: [{ host: '127.0.0.1', port }] }],
      sites: [
        {
          names: [{ kind: 'exact', name: HOST }],
          label: HOST,
          locations: [
            to('/usual'),
            to('/lax', { verify: false }),
            to('/named', { verify: true, authorities, name: HOST }),
            to('/other', { verify: true, authorities, name: 'other.test' }),
          ],
        },
      ],
    });
    const client = place.client();
    // What an unverified connection has left open must not serve the places that verify.
    for (const path of ['/lax', '/usual', '/named', '/other', '/lax'])
      assert.equal((await client.ask({ path })).status, ['/lax', '/named'].includes(path) ? 200 : 502, path);
  });
});

describe('rules cannot be passed by', () => {
  const guarded: Situation = {
    title: '',
    locations: [
      prefix('/', { content: UP }),
      prefix('/secret', { content: UP, policy: { addresses: [{ allow: false, range: 'all' }] } }),
      prefix('/inside', { internal: true, content: UP }),
    ],
    expect: {},
  };
  const HANDSHAKE =
    'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n';
  const attacks: readonly (readonly [what: string, head: string])[] = [
    ['in absolute form', `GET https://${HOST}/secret HTTP/1.1\r\nHost: ${HOST}\r\n`],
    [
      'in absolute form, of another host',
      `GET https://other.example.com/secret HTTP/1.1\r\nHost: ${HOST}\r\n`,
    ],
    ['with two hosts', `GET /secret HTTP/1.1\r\nHost: ${HOST}\r\nHost: other.example.com\r\n`],
    ['of a host in upper case', `GET /secret HTTP/1.1\r\nHost: ${HOST.toUpperCase()}\r\n`],
    ['of a host with a port', `GET /secret HTTP/1.1\r\nHost: ${HOST}:443\r\n`],
    ['of a host with a final dot', `GET /secret HTTP/1.1\r\nHost: ${HOST}.\r\n`],
    ['that asks for an upgrade', `GET /secret HTTP/1.1\r\nHost: ${HOST}\r\n${HANDSHAKE}`],
    ['of a method in odd case', `gEt /secret HTTP/1.1\r\nHost: ${HOST}\r\n`],
    ['of HTTP/1.0 without a host', 'GET /secret HTTP/1.0\r\n'],
    ['with an encoded slash and dots', `GET /a/..%2fsecret HTTP/1.1\r\nHost: ${HOST}\r\n`],
    ['encoded letter by letter', `GET /%73%65%63%72%65%74 HTTP/1.1\r\nHost: ${HOST}\r\n`],
    ['with a NUL', `GET /secret%00.html HTTP/1.1\r\nHost: ${HOST}\r\n`],
    ['with a backslash', `GET /a\\..\\..\\secret/../secret HTTP/1.1\r\nHost: ${HOST}\r\n`],
    ['of what is inside', `GET /inside/x HTTP/1.1\r\nHost: ${HOST}\r\n`],
    [
      'that names an internal redirect itself',
      `GET /inside HTTP/1.1\r\nHost: ${HOST}\r\nX-Accel-Redirect: /inside\r\n`,
    ],
    [
      'for what its upstream would take for a path',
      `GET /secret;x=y HTTP/1.1\r\nHost: ${HOST}\r\nX-Original-URL: /\r\n`,
    ],
  ];
  for (const [what, head] of attacks)
    it(`by a request ${what}`, async (context) => {
      const upstream = await serve(context, 'h1', ok);
      const place = await join(context, pairings[0]!, upstream.port);
      place.ingress.listener.setRoutes([], ruleSet(pairings[0]!, upstream.port, guarded));
      const client = await place.ingress.connect();
      client.send(`${head}Connection: close\r\n\r\n`);
      const { text } = await client.rest();
      assert.match(text, /^HTTP\/1\.1 4\d\d /);
      assert.equal(upstream.requests.length, 0);
    });

  it('by what is sent behind the head of a request that is answered here', async (context) => {
    const upstream = await serve(context, 'h1', ok);
    const place = await join(context, pairings[0]!, upstream.port);
    place.ingress.listener.setRoutes([], ruleSet(pairings[0]!, upstream.port, guarded));
    const client = await place.ingress.connect();
    const hidden = `GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`;
    client.send(
      `POST /secret HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: ${hidden.length + 1}\r\n\r\n${hidden}`,
    );
    const { text } = await client.rest();
    assert.match(text, /^HTTP\/1\.1 403 /);
    assert.equal(text.match(/HTTP\/1\.1 /g)!.length, 1);
    assert.equal(upstream.requests.length, 0);
  });

  it('by a client that leaves while it is asked whether it may pass', async (context) => {
    const asked = Promise.withResolvers<Served>();
    const upstream = await serve(context, 'h1', asked.resolve);
    const place = await join(context, pairings[0]!, upstream.port);
    const questioned: Situation = {
      title: '',
      locations: [prefix('/', { content: UP, policy: { authRequest: forwardTo('up') } })],
      expect: {},
    };
    place.ingress.listener.setRoutes([], ruleSet(pairings[0]!, upstream.port, questioned));
    const client = await place.ingress.connect();
    client.send(`GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`);
    const question = await asked.promise;
    client.socket.destroy();
    // Nobody waits for the answer any more.
    await question.gone;
    assert.equal(upstream.requests.length, 1);
  });
});

for (const pairing of pairings)
  it(`what has the same key goes to the same server, ${pairing.name}`, async (context) => {
    const named =
      (name: string): Script =>
      (served) =>
        served.reply(200, name);
    const [one, two] = [
      await serve(context, pairing.upstream, named('one')),
      await serve(context, pairing.upstream, named('two')),
    ];
    const place = await join(context, pairing, one.port);
    const hashed: Situation = {
      title: '',
      locations: [prefix('/', { content: UP })],
      set: {
        upstreams: [
          {
            name: 'up',
            servers: [one, two].map(({ port }) => ({ host: '127.0.0.1', port })),
            balance: { by: 'hash', key: t('$arg_k') },
          },
        ],
      },
      expect: {},
    };
    place.ingress.listener.setRoutes([], ruleSet(pairing, one.port, hashed));
    const client = place.client();
    const serverOf = async (key: number) => (await client.ask({ path: `/?k=${key}` })).body;
    const servers: string[] = [];
    for (let key = 0; key < 24; key++) servers.push(await serverOf(key));
    assert.deepEqual(new Set(servers), new Set(['one', 'two']));
    for (let key = 0; key < 24; key++) assert.equal(await serverOf(key), servers[key]);
  });
