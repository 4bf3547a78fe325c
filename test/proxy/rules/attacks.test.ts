// Rules cannot be passed by: each attack is told first, then that what is forbidden was not reached.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { compile } from '../../../proxy/rules/compile.ts';
import type { Location } from '../../../proxy/rules/model.ts';
import { ask, fieldOf, fieldsOf, prefix, re, siteOf, t, toUp } from './driver.ts';

const secret = 'GET /secret/key';

/** Ways to say /secret/key. */
const attacks = [
  '/secret/key',
  '/%73ecret/key',
  '/secret%2Fkey',
  '//secret/key',
  '/./secret/key',
  '/public/../secret/key',
  '/public/%2e%2e/secret/key',
  '/public/..%2fsecret/key',
  '/public//../secret/key',
  '/public/./../secret//key',
  '/secret/../secret/key',
  '/secret/key?x=/public/',
  '/secret/key?',
  '/secret/./key',
  '/secret/%6bey',
  '/%2e/secret/key',
  '/public/x/../..//secret/key',
];

/** Ways that some servers take for /secret/key, and that are refused or are other paths here. */
const otherPaths = [
  '/%252e%252e/secret/key',
  '/public/%2e%2e/%2e%2e/secret/key',
  '/secret%00/key',
  '/public/%c0%ae%c0%ae/secret/key',
  '/%5c../secret/key',
];

const guards: readonly {
  readonly name: string;
  readonly guard: Partial<Location>;
  readonly refusal: number;
}[] = [
  { name: 'deny', guard: { policy: { addresses: [{ allow: false, range: 'all' }] } }, refusal: 403 },
  {
    name: 'a password',
    guard: { policy: { basicRealm: t('r'), basicUsers: [{ name: 'ann', hash: 'right' }] } },
    refusal: 401,
  },
  {
    name: 'a sub-request',
    guard: { policy: { authRequest: { kind: 'uri', uri: t('/auth') } } },
    refusal: 403,
  },
  {
    name: 'a service that decides',
    guard: {
      policy: {
        authRequest: {
          kind: 'forward',
          upstream: 'auth',
          protocol: 'http',
          uri: t('/verify'),
          requestHeaders: [],
          copy: [],
        },
      },
    },
    refusal: 403,
  },
  { name: 'internal', guard: { internal: true }, refusal: 404 },
  {
    name: 'a pattern that denies',
    guard: { rewrite: [{ do: 'return', status: 403 }] },
    refusal: 403,
  },
];

describe('a forbidden path', () => {
  for (const { name, guard, refusal } of guards) {
    for (const kind of ['prefix', 'segments', 'pattern'] as const) {
      const match =
        kind === 'pattern' ? { kind, pattern: re('^/secret(/|$)') } : ({ kind, path: '/secret' } as const);
      const rules = compile(
        siteOf(
          [
            prefix('/', { content: toUp }),
            prefix('/public/', { content: toUp }),
            {
              match: { kind: 'exact', path: '/auth' },
              internal: true,
              content: { ...toUp, upstream: 'auth' },
            },
            { match, content: toUp, ...guard },
          ],
          {},
          {
            upstreams: [
              { name: 'up', servers: [{ host: '127.0.0.1', port: 1 }] },
              { name: 'auth', servers: [{ host: '127.0.0.1', port: 2 }] },
            ],
          },
        ),
      );
      test(`is kept by ${name} by ${kind}, however it is written`, () => {
        for (const method of ['GET', 'POST', 'HEAD', 'get', 'OPTIONS']) {
          for (const target of attacks) {
            const result = ask(
              rules,
              target,
              { method },
              {
                upstream: ({ pool }) => ({ status: pool.name === 'auth' ? 403 : 200, fields: fieldsOf({}) }),
              },
            );
            assert.equal(result.status, refusal, `${method} ${target}`);
            assert.ok(
              result.forwarded.every(({ pool }) => pool.name === 'auth'),
              `${method} ${target}`,
            );
          }
        }
      });
      test(`is not what other writings become beside ${name} by ${kind}`, () => {
        for (const target of otherPaths) {
          const result = ask(rules, target, {});
          const reached = result.forwarded
            .filter(({ pool }) => pool.name === 'up')
            .map((one) => `GET ${one.target}`);
          assert.ok(!reached.includes(secret), target);
        }
      });
    }
  }

  test('stays so when the service that decides is away, and a client brings its own word', () => {
    const rules = compile(
      siteOf(
        [
          prefix('/', {
            content: toUp,
            policy: {
              authRequest: {
                kind: 'forward',
                upstream: 'auth',
                protocol: 'http',
                uri: t('/verify?rd=$scheme://$host$request_uri'),
                requestHeaders: [{ do: 'set', name: 'X-Original', value: t('$request_uri') }],
                copy: ['Remote-User', 'Remote-Groups'],
                copyToReply: ['Set-Cookie'],
              },
            },
          }),
        ],
        {},
        {
          upstreams: [
            { name: 'up', servers: [{ host: 'app' }] },
            { name: 'auth', servers: [{ host: 'auth' }] },
          ],
        },
      ),
    );
    const forged = { headers: { 'Remote-User': 'root', 'Remote-Groups': 'admins' } };
    const away = ask(rules, '/x', forged, { upstream: () => undefined });
    assert.equal(away.status, 503);
    assert.deepEqual(
      away.forwarded.map(({ pool }) => pool.name),
      ['auth'],
    );

    const login = ask(rules, '/x', forged, {
      upstream: () => ({ status: 302, fields: fieldsOf({ location: 'https://login.test/' }) }),
    });
    assert.equal(login.status, 302);
    assert.equal(login.last.do === 'pass' && login.last.of, 'answer');

    const let_ = ask(rules, '/x?y', forged, {
      upstream: ({ pool }) => ({
        status: 200,
        fields: fieldsOf(pool.name === 'auth' ? { 'remote-user': 'ann', 'set-cookie': 's=1' } : {}),
      }),
    });
    const [question, request] = let_.forwarded;
    assert.equal(question?.target, '/verify?rd=https://a.test/x?y');
    assert.deepEqual(question?.own, [{ name: 'X-Original', value: '/x?y' }]);
    assert.deepEqual(request?.own, [{ name: 'remote-user', value: 'ann' }]);
    assert.ok(request?.removed.has('remote-user') && request.removed.has('remote-groups'));
    assert.equal(fieldOf(let_, 'set-cookie'), 's=1');
  });

  test('is not opened by a text that is too long for its pattern', () => {
    const rules = compile(
      siteOf([
        prefix('/', { content: toUp }),
        {
          match: { kind: 'pattern', pattern: re('^(?!/public).*secret.*key.*$') },
          rewrite: [{ do: 'return', status: 403 }],
        },
      ]),
    );
    assert.equal(ask(rules, '/x/secret/key').status, 403);
    const long = ask(rules, `/x/secret/key/${'s'.repeat(4_000)}`);
    assert.equal(long.status, 414);
    assert.deepEqual(long.forwarded, []);
  });
});

describe('a line break', () => {
  test('in a decoded path begins no field and no request of its own', () => {
    const rules = compile(
      siteOf([
        prefix('/to', { rewrite: [{ do: 'return', status: 302, location: t('https://b.test$uri') }] }),
        {
          match: { kind: 'pattern', pattern: re('(?s)^/up/(.*)$') },
          content: { kind: 'proxy-to', url: t('http://127.0.0.1:1/$1') },
        },
        prefix('/', {
          content: toUp,
          policy: {
            requestHeaders: [{ do: 'set', name: 'X-Path', value: t('$uri') }],
            addHeaders: [{ name: 'X-Path', value: t('$uri') }],
          },
        }),
      ]),
    );
    const redirect = ask(rules, '/to/a%0d%0aSet-Cookie:%20x=1');
    assert.equal(fieldOf(redirect, 'location'), 'https://b.test/to/a%0D%0ASet-Cookie:%20x=1');
    assert.equal(ask(rules, '/up/a%20HTTP/1.1%0d%0aX:%20y').target, '/a%20HTTP/1.1%0D%0AX:%20y');
    const field = ask(rules, '/x%0d%0aX-Evil:%20y');
    assert.deepEqual(field.forwarded[0]?.own, [{ name: 'X-Path', value: '/x%0D%0AX-Evil: y' }]);
    assert.equal(fieldOf(field, 'x-path'), '/x%0D%0AX-Evil: y');
  });
});

describe('framing', () => {
  test('is not for rules to set: no length, no coding, no connection of their own', () => {
    const names = ['Transfer-Encoding', 'Content-Length', 'Connection', 'TE', 'Upgrade', 'Trailer', 'Expect'];
    const rules = siteOf([
      prefix('/', {
        content: toUp,
        policy: { requestHeaders: names.map((name) => ({ do: 'set' as const, name, value: t('1') })) },
      }),
    ]);
    assert.deepEqual(ask(rules, '/').forwarded[0]?.own, []);
  });
});

test('a stripped prefix leads nowhere that the rules have not judged', () => {
  const rules = siteOf([
    { match: { kind: 'segments', path: '/api' }, content: { ...toUp, stripPrefix: '/api' } },
    { match: { kind: 'segments', path: '/api/admin' }, rewrite: [{ do: 'return', status: 403 }] },
  ]);
  const targets: readonly [string, string | undefined][] = [
    ['/api/x?y=%2F', '/x?y=%2F'],
    ['/api', '/'],
    ['/api?q', '/?q'],
    ['/api/a%2Fb', '/a%2Fb'],
    ['/%61pi/x%20y', '/x%20y'],
    ['/api/%2e%2e/api/x', '/x'],
    ['/api/x/../admin', undefined],
    ['/api/x/%2e%2e%2fadmin', undefined],
    ['/apix', undefined],
  ];
  for (const [target, expected] of targets) assert.equal(ask(rules, target).target, expected, target);
});
