// Several servers behind rules, over real connections: who is asked, who is asked next, and who stays where.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it, type TestContext } from 'node:test';
import type {
  Balancing,
  Content,
  Policy,
  Retry,
  RuleSet,
  UpstreamServer,
} from '../../../proxy/rules/model.ts';
import { readRoutesFile } from '../../../src/routes/yaml/file.ts';
import { type Client, join, type Pairing, pairings, type Script, serve } from '../../support/pairings.ts';
import { HOST } from '../../support/proxy.ts';
import { prefix, re, t } from '../rules/driver.ts';

interface Group {
  readonly servers: readonly (Partial<UpstreamServer> & { readonly port: number })[];
  readonly balance?: Balancing;
}

interface Site {
  readonly groups: Readonly<Record<string, Group>>;
  readonly policy?: Policy;
  readonly canary?: Extract<Content, { kind: 'proxy' }>['canary'];
}

/** Where nobody listens. */
const NOBODY = 1;

function rulesOf({ upstream }: Pairing, { groups, policy, canary }: Site): RuleSet {
  const content: Content = {
    kind: 'proxy',
    upstream: 'up',
    protocol: upstream === 'h1' ? 'http' : 'h2c',
    host: 'up',
    ...(canary !== undefined && { canary }),
  };
  return {
    policy: { connectTimeoutMs: 2_000, readTimeoutMs: 30_000, sendTimeoutMs: 30_000, ...policy },
    upstreams: Object.entries(groups).map(([name, { servers, balance }]) => ({
      name,
      servers: servers.map((server) => ({ host: '127.0.0.1', ...server })),
      ...(balance !== undefined && { balance }),
    })),
    sites: [
      {
        names: [{ kind: 'exact', name: HOST }],
        label: HOST,
        locations: [prefix('/', { content })],
      },
    ],
  };
}

const named =
  (name: string): Script =>
  (served) =>
    void served.body.then((body) => served.reply(200, `${name}${body}`));

async function place(context: TestContext, pairing: Pairing, site: Site): Promise<Client> {
  const { ingress, client } = await join(context, pairing, NOBODY);
  ingress.listener.setRoutes([], rulesOf(pairing, site));
  return client();
}

async function bodies(client: Client, count: number, ask: Parameters<Client['ask']>[0] = {}) {
  const all: string[] = [];
  for (let i = 0; i < count; i++) all.push((await client.ask(ask)).body);
  return all;
}

for (const pairing of pairings)
  describe(`several servers, ${pairing.name}`, () => {
    const three = (context: TestContext) =>
      Promise.all(['a', 'b', 'c'].map((name) => serve(context, pairing.upstream, named(name))));

    it('take turns by their weights, and one that stands by is asked only without the others', async (context) => {
      const [a, b, c] = await three(context);
      const servers = [{ port: a!.port, weight: 3 }, { port: b!.port }, { port: c!.port, backup: true }];
      const up: Group = { servers, balance: { by: 'turns' } };
      const client = await place(context, pairing, { groups: { up } });
      assert.deepEqual(await bodies(client, 8), [...'aabaaaba']);
      const dead = [
        { port: NOBODY, weight: 3 },
        { port: c!.port, backup: true },
      ];
      const other = await place(context, pairing, { groups: { up: { ...up, servers: dead } } });
      assert.deepEqual(await bodies(other, 3), [...'ccc']);
    });

    it('that fail as often as their rule says get nothing for the time that it says', async (context) => {
      const cutting = await serve(context, pairing.upstream, (served) => served.cut());
      const sound = await serve(context, pairing.upstream, named('sound'));
      const fails = { maxFails: 2, failTimeoutMs: 3_600_000 };
      const client = await place(context, pairing, {
        groups: {
          up: {
            servers: [
              { port: cutting.port, ...fails },
              { port: sound.port, ...fails },
            ],
          },
        },
        policy: { retry: { on: ['error'] } },
      });
      assert.deepEqual(await bodies(client, 8), Array(8).fill('sound'));
      assert.equal(cutting.requests.length, 2);
    });

    it('keep who has been there, and a forged cookie is nothing', async (context) => {
      const [a, b, c] = await three(context);
      const up: Group = {
        servers: [a!, b!, c!].map(({ port }) => ({ port })),
        balance: { by: 'cookie', name: 'srv', secret: 'a secret of the test', maxAgeSeconds: 60 },
      };
      const client = await place(context, pairing, { groups: { up } });
      const first = await client.ask();
      const [line] = first.headers['set-cookie'] as string[];
      assert.match(line!, /^srv=[\w-]{22}; Path=\/; Max-Age=60; Secure; HttpOnly; SameSite=Lax$/);
      const cookie = `other=1; ${line!.split(';')[0]}`;
      const again = await client.ask({ headers: { cookie } });
      assert.equal(again.headers['set-cookie'], undefined, 'it has the right one');
      assert.deepEqual(new Set(await bodies(client, 8, { headers: { cookie } })), new Set([first.body]));
      // Another process with the same secret.
      const replica = await place(context, pairing, { groups: { up } });
      assert.deepEqual(new Set(await bodies(replica, 8, { headers: { cookie } })), new Set([first.body]));
      const forged = await client.ask({ headers: { cookie: 'srv=AAAAAAAAAAAAAAAAAAAAAA' } });
      assert.equal((forged.headers['set-cookie'] as string[]).length, 1);
      assert.equal(new Set(await bodies(client, 9, { headers: { cookie: 'srv=../../etc' } })).size, 3);
    });

    it('let a visitor go whose server is gone, with a new cookie', async (context) => {
      const [a] = await three(context);
      const balance: Balancing = { by: 'cookie', name: 'srv', secret: 'a secret of the test' };
      const client = await place(context, pairing, {
        groups: { up: { servers: [{ port: a!.port }], balance } },
      });
      const [line] = (await client.ask()).headers['set-cookie'] as string[];
      const cookie = line!.split(';')[0]!;
      const servers = [{ port: NOBODY }, { port: a!.port }];
      const other = await place(context, pairing, { groups: { up: { servers, balance } } });
      assert.equal((await other.ask({ headers: { cookie } })).body, 'a');
    });

    it('share visitors with a canary, by its condition and by a stable part', async (context) => {
      const [old, next] = await three(context);
      const groups = { up: { servers: [{ port: old!.port }] }, next: { servers: [{ port: next!.port }] } };
      const client = await place(context, pairing, {
        groups,
        canary: {
          upstream: 'next',
          percent: 30,
          key: t('$cookie_session'),
          when: {
            headers: [
              { name: 'X-Preview', value: { kind: 'present' } },
              { name: 'Cookie', value: { kind: 'pattern', pattern: re('(^|; )beta=1(;|$)') } },
            ],
          },
        },
      });
      assert.equal((await client.ask({ headers: { 'x-preview': '1', cookie: 'beta=1' } })).body, 'b');
      const chosen: string[] = [];
      for (let i = 0; i < 120; i++) {
        const headers = { cookie: `session=${i}` };
        chosen.push((await client.ask({ headers })).body);
        if (i % 10 === 0) assert.equal((await client.ask({ headers })).body, chosen[i]);
      }
      const share = chosen.filter((name) => name === 'b').length;
      assert.ok(share > 18 && share < 56, String(share));
    });
  });

describe('examples/canary', () => {
  it('keeps visitors at their server, and leads a part of them and whoever asks for it to the next version', async (context) => {
    const [a, b, next] = await Promise.all(
      ['a', 'b', 'next'].map((name) => serve(context, 'h1', named(name))),
    );
    const hosts = { 'app-a': a!.port, 'app-b': b!.port, 'app-next': next!.port };
    let text = readFileSync(new URL('../../../examples/canary/routes.yaml', import.meta.url), 'utf8');
    for (const [host, port] of Object.entries(hosts))
      text = text.replace(`http://${host}:8080`, `http://127.0.0.1:${port}`);
    const { rules, mistakes } = readRoutesFile(text, '/config/routes.yaml', {
      timeouts: { connectTimeoutMs: 2_000, readTimeoutMs: 30_000, sendTimeoutMs: 30_000 },
    });
    assert.deepEqual(mistakes, []);
    const { ingress, client } = await join(context, pairings[2]!, NOBODY);
    ingress.listener.setRoutes([], rules);
    const visitor = client();
    const first = await visitor.ask();
    const cookie = `${(first.headers['set-cookie'] as string[])[0]!.split(';')[0]}; session=1`;
    assert.match(first.body, /^[ab]$/);
    for (let i = 0; i < 4; i++) assert.equal((await visitor.ask({ headers: { cookie } })).body, first.body);
    assert.equal((await visitor.ask({ headers: { cookie, 'x-preview': 'yes' } })).body, 'next');
    const all: string[] = [];
    for (let i = 0; i < 300; i++)
      all.push((await visitor.ask({ headers: { cookie: `session=visitor ${i}` } })).body);
    const share = all.filter((name) => name === 'next').length;
    assert.ok(share > 2 && share < 40, String(share));
    assert.ok([a!, b!, next!].every(({ requests }) => requests.some(({ path }) => path === '/')));
  });
});

interface Trial {
  readonly title: string;
  readonly retry: Retry;
  readonly first: Script;
  readonly ask?: Parameters<Client['ask']>[0];
  readonly status: number;
  readonly body?: string;
  /** How many requests the two servers got. */
  readonly seen: readonly [first: number, second: number];
  readonly policy?: Policy;
  readonly only?: (pairing: Pairing) => boolean;
}

const failing =
  (status: number): Script =>
  (served) =>
    void served.body.then(() => served.reply(status, `sorry ${status}`));
const post = { method: 'POST', body: ' hello' };

const trials: readonly Trial[] = [
  {
    title: 'a status that is named is tried at the next server, with its body',
    retry: { on: [503] },
    first: failing(503),
    ask: { method: 'PUT', body: ' hello' },
    status: 200,
    body: 'second hello',
    seen: [1, 1],
  },
  {
    title: 'a status that is not named passes',
    retry: { on: ['error', 502] },
    first: failing(503),
    status: 503,
    body: 'sorry 503',
    seen: [1, 0],
  },
  {
    title: 'what may have been done is not done again',
    retry: { on: ['error', 503] },
    first: failing(503),
    ask: post,
    status: 503,
    seen: [1, 0],
  },
  {
    title: 'unless the rule says so',
    retry: { on: ['error', 503], nonIdempotent: true },
    first: failing(503),
    ask: post,
    status: 200,
    body: 'second hello',
    seen: [1, 1],
  },
  {
    title: 'a lost connection is an error',
    retry: { on: ['error'] },
    first: (served) => served.cut(),
    status: 200,
    seen: [1, 1],
  },
  {
    title: 'and nothing is tried again where nothing shall be',
    retry: { on: [] },
    first: (served) => served.cut(),
    status: 502,
    seen: [1, 0],
  },
  {
    title: 'a server that does not answer in time is passed by',
    retry: { on: ['timeout'] },
    first: () => {},
    policy: { readTimeoutMs: 150 },
    status: 200,
    seen: [1, 1],
  },
  {
    title: 'but not after the time for all of it',
    retry: { on: ['timeout', 'error'] },
    first: () => {},
    policy: { totalTimeoutMs: 150 },
    status: 504,
    seen: [1, 0],
  },
  {
    title: 'nor after the time for new tries',
    retry: { on: ['timeout'], timeoutMs: 50 },
    first: () => {},
    policy: { readTimeoutMs: 200 },
    status: 504,
    seen: [1, 0],
  },
  {
    title: 'a malformed reply is one where rules say so',
    retry: { on: ['invalid-reply'] },
    first: (served) => served.odd([['content-length', '1, 2']], 'x'),
    status: 200,
    seen: [1, 1],
  },
  {
    title: 'a body that is not kept whole is not sent again',
    retry: { on: [503], nonIdempotent: true },
    first: failing(503),
    ask: { method: 'PUT', body: 'x'.repeat(200_000) },
    status: 503,
    seen: [1, 0],
  },
  {
    title: 'two tries are two',
    retry: { on: ['error', 503], tries: 2 },
    first: failing(503),
    status: 200,
    seen: [1, 1],
  },
  {
    title: 'an interim reply does not stand in the way',
    retry: { on: [503] },
    first: (served) => {
      served.interim(103, { link: '</a.css>' });
      served.reply(503, '');
    },
    status: 200,
    seen: [1, 1],
  },
];

for (const pairing of pairings)
  describe(`tried again as rules say, ${pairing.name}`, () => {
    for (const trial of trials)
      if (trial.only?.(pairing) !== false)
        it(trial.title, async (context) => {
          const first = await serve(context, pairing.upstream, trial.first);
          const second = await serve(context, pairing.upstream, named('second'));
          const servers = [{ port: first.port, weight: 100 }, { port: second.port }];
          const client = await place(context, pairing, {
            groups: { up: { servers, balance: { by: 'turns' } } },
            policy: { ...trial.policy, retry: trial.retry },
          });
          const answer = await client.ask(trial.ask);
          assert.equal(answer.status, trial.status);
          if (trial.body !== undefined) assert.equal(answer.body, trial.body);
          assert.deepEqual([first.requests.length, second.requests.length], trial.seen);
        });

    it('all fail: the last one tells', async (context) => {
      const down = await serve(context, pairing.upstream, failing(503));
      const worse = await serve(context, pairing.upstream, failing(500));
      const client = await place(context, pairing, {
        groups: {
          up: {
            servers: [{ port: down.port, weight: 9 }, { port: worse.port }, { port: NOBODY, backup: true }],
            balance: { by: 'turns' },
          },
        },
        policy: { retry: { on: ['error', 500, 503] } },
      });
      assert.equal((await client.ask()).status, 502);
      assert.deepEqual([down.requests.length, worse.requests.length], [1, 1]);
    });

    it('a server that stands alone is asked again as often as its rule says', async (context) => {
      let asked = 0;
      const moody = await serve(context, pairing.upstream, (served) => {
        asked++;
        served.reply(asked < 3 ? 503 : 200, `time ${asked}`);
      });
      const retry: Retry = { on: [503], tries: 3, sameServers: true };
      const groups = { up: { servers: [{ port: moody.port }] } };
      const client = await place(context, pairing, { groups, policy: { retry } });
      assert.equal((await client.ask()).body, 'time 3');
      asked = -9;
      assert.equal((await client.ask()).status, 503);
      assert.equal(asked, -6, 'three tries');
    });

    if (pairing.upstream === 'h1')
      it('a kept connection that has ended is no failure, whatever the rule', async (context) => {
        const up = await serve(context, 'h1', (served) => {
          if (served.index === 1) served.cut();
          else served.reply(200, `request ${served.index}`);
        });
        const groups = { up: { servers: [{ port: up.port }] } };
        const client = await place(context, pairing, { groups, policy: { retry: { on: [] } } });
        assert.equal((await client.ask()).body, 'request 0');
        assert.equal((await client.ask()).body, 'request 2');
      });
  });
