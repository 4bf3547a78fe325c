// What rules make of a request and of its reply: headers, content, error pages, compression, and the words for people.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { compile, compileInSteps } from '../../../proxy/rules/compile.ts';
import { parseExpires } from '../../../proxy/rules/expires.ts';
import { explain } from '../../../proxy/rules/explain.ts';
import type { HeaderEdit, Location, Policy, RuleSet } from '../../../proxy/rules/model.ts';
import { RuleSetError } from '../../../proxy/rules/scope.ts';
import { parseTemplate } from '../../../proxy/rules/template.ts';
import { isBuiltIn } from '../../../proxy/rules/variables.ts';
import { type Asked, ask, factsOf, fieldOf, fieldsOf, prefix, re, siteOf, t, toUp } from './driver.ts';

const edit = (how: 'set' | 'add' | 'default', name: string, value: string): HeaderEdit => ({
  do: how,
  name,
  value: t(value),
});

function proxied(policy: Policy, asked: Asked = {}, reply: Record<string, string> = {}, status = 200) {
  return ask(siteOf([prefix('/', { content: toUp, policy })]), '/p?q=1', asked, {
    upstream: () => ({ status, fields: fieldsOf(reply) }),
  });
}

describe('the fields of a request', () => {
  test('are set twice if rules say so, added to, given by default, and removed with those of the client', () => {
    const result = proxied(
      {
        requestHeaders: [
          edit('set', 'X-One', 'a'),
          edit('set', 'X-One', 'b'),
          edit('set', 'X-Gone', '$arg_none'),
          edit('add', 'X-More', '$arg_q'),
          edit('default', 'X-Kept', 'ours'),
          edit('default', 'X-New', 'ours'),
          { do: 'remove', name: 'Cookie' },
        ],
      },
      { headers: { 'X-Kept': 'theirs', 'X-More': '0' } },
    );
    const [forward] = result.forwarded;
    assert.deepEqual(forward?.own, [
      { name: 'X-One', value: 'a' },
      { name: 'X-One', value: 'b' },
      { name: 'X-More', value: '1' },
      { name: 'X-New', value: 'ours' },
    ]);
    assert.deepEqual([...forward!.removed].sort(), ['cookie', 'x-gone', 'x-one']);
  });

  test('carry a Host of the rules apart, and an upgrade only where rules ask for it', () => {
    const upgrade = [
      edit('set', 'Upgrade', '$http_upgrade'),
      edit('set', 'Connection', 'upgrade'),
      edit('set', 'Host', '$proxy_host'),
    ];
    const policy: Policy = { upgrades: 'if-set', requestHeaders: upgrade };
    const asked = proxied(policy, { headers: { Upgrade: 'websocket' } }).forwarded[0];
    assert.equal(asked?.upgrade, true);
    assert.equal(asked?.host, 'up');
    assert.deepEqual(asked?.own, []);
    assert.equal(proxied(policy).forwarded[0]?.upgrade, false);
    assert.equal(proxied({}).forwarded[0]?.upgrade, undefined);
  });

  test('know the client behind a proxy that is trusted, and nobody else', () => {
    const policy: Policy = {
      realIpFrom: ['10.0.0.0/8'],
      realIpHeader: 'X-Forwarded-For',
      realIpRecursive: true,
      requestHeaders: [edit('set', 'X', '$remote_addr $realip_remote_addr')],
    };
    const seen = (client: string, header: string) =>
      proxied(policy, { client, headers: { 'X-Forwarded-For': header } }).forwarded[0]?.own[0]?.value;
    assert.equal(seen('10.0.0.1', '6.6.6.6, 203.0.113.9, 10.9.9.9'), '203.0.113.9 10.0.0.1');
    assert.equal(seen('::ffff:10.0.0.1', '[2001:db8::1]:99'), '2001:db8::1 ::ffff:10.0.0.1');
    assert.equal(seen('192.0.2.1', '6.6.6.6'), '192.0.2.1 192.0.2.1');
    assert.equal(seen('10.0.0.1', 'unknown'), '10.0.0.1 10.0.0.1');
  });

  test('can hold every variable that a request has by itself', () => {
    for (const name of [
      'host',
      'http_x_y',
      'arg_a',
      'cookie_c',
      'upstream_http_x',
      'request_id',
      'ssl_client_s_dn',
      'time_iso8601',
    ]) {
      assert.ok(isBuiltIn(name), name);
    }
    for (const name of ['hots', 'http_', 'arg', '__proto__', 'constructor'])
      assert.ok(!isBuiltIn(name), name);
    const value = '$request_id|$is_args|$cookie_b|$server_port|$https|$content_length|$http_host';
    const result = proxied(
      { requestHeaders: [edit('set', 'X', value)] },
      { headers: { Cookie: 'a=1; B=2' }, contentLength: 3 },
    );
    assert.match(result.forwarded[0]!.own[0]!.value, /^[0-9a-f]{32}\|\?\|2\|443\|on\|3\|a\.test$/);
  });
});

describe('the fields of a reply', () => {
  test('are added for the usual statuses, or always; set, kept and removed whatever the status', () => {
    const policy: Policy = {
      addHeaders: [
        { name: 'X-Usual', value: t('1') },
        { name: 'X-Always', value: t('$upstream_http_x_up'), always: true },
      ],
      replyHeaders: [
        edit('set', 'Server', 'mine'),
        edit('default', 'X-Frame-Options', 'DENY'),
        edit('default', 'X-Up', 'not this'),
        { do: 'remove', name: 'X-Powered-By' },
      ],
    };
    const bad = proxied(policy, {}, { 'X-Up': 'up', Server: 'theirs', 'X-Powered-By': 'x' }, 500);
    assert.deepEqual(bad.fields, [
      { name: 'X-Always', value: 'up' },
      { name: 'Server', value: 'mine' },
      { name: 'X-Frame-Options', value: 'DENY' },
    ]);
    assert.ok(bad.last.do === 'pass');
    assert.deepEqual(bad.last.edits.removed, ['server', 'x-powered-by']);
    assert.equal(fieldOf(proxied(policy), 'x-usual'), '1');
  });

  test('never carry what an upstream says to its proxy', () => {
    const result = proxied({ hideHeaders: ['X-Mine'], passHeaders: ['X-Accel-Expires'] });
    assert.ok(result.last.do === 'pass');
    const { hidden } = result.last.edits;
    assert.ok(hidden.has('x-accel-redirect') && hidden.has('x-mine') && !hidden.has('x-accel-expires'));
  });

  test('allow other origins what is listed, and answer their questions without asking the app or for a password', () => {
    const policy: Policy = {
      basicRealm: t('r'),
      cors: {
        origins: [{ kind: 'text', text: 'https://b.test' }],
        methods: ['GET', 'PUT'],
        credentials: true,
        maxAgeSeconds: 60,
      },
    };
    const question = {
      Origin: 'https://b.test',
      'Access-Control-Request-Method': 'PUT',
      'Access-Control-Request-Headers': 'x-a',
    };
    const preflight = proxied(policy, { method: 'OPTIONS', headers: question });
    assert.equal(preflight.status, 204);
    assert.equal(fieldOf(preflight, 'access-control-allow-origin'), 'https://b.test');
    assert.equal(fieldOf(preflight, 'access-control-allow-headers'), 'x-a');
    const other = proxied(policy, {
      method: 'OPTIONS',
      headers: { ...question, Origin: 'https://evil.test' },
    });
    assert.equal(fieldOf(other, 'access-control-allow-origin'), undefined);
    assert.equal(fieldOf(other, 'vary'), 'Origin');
    assert.equal(proxied(policy, { headers: { Origin: 'https://b.test' } }).status, 401);
  });
});

describe('a reply', () => {
  const compress = {
    encodings: ['zstd', 'br', 'gzip'],
    types: ['text/html'],
    minBytes: 100,
    vary: true,
  } as const;
  const encoding = (accepted: string, reply: Record<string, string>, status = 200) => {
    const { last } = proxied({ compress }, { headers: { 'Accept-Encoding': accepted } }, reply, status);
    return last.do === 'pass' ? last.compression?.encoding : undefined;
  };
  const html = { 'content-type': 'text/html; charset=utf-8' };

  test('is compressed by the best that both know', () => {
    assert.equal(encoding('gzip, br', html), 'br');
    assert.equal(encoding('gzip;q=1, br;q=0.5', html), 'gzip');
    assert.equal(encoding('br;q=0, *', html), 'zstd');
    assert.equal(encoding('identity', html), undefined);
  });

  test('is not compressed where that would break or gain nothing', () => {
    assert.equal(encoding('gzip', { 'content-type': 'text/event-stream' }), undefined);
    assert.equal(encoding('gzip', { 'content-type': 'application/grpc' }), undefined);
    assert.equal(encoding('gzip', { ...html, 'content-encoding': 'br' }), undefined);
    assert.equal(encoding('gzip', { ...html, 'content-length': '99' }), undefined);
    assert.equal(encoding('gzip', { ...html, 'cache-control': 'no-transform' }), undefined);
    assert.equal(encoding('gzip', html, 206), undefined);
    assert.equal(encoding('gzip', html, 304), undefined);
  });

  test('of the upstream is passed with its status unless its errors are ours to tell', () => {
    const errorPages: Policy['errorPages'] = [
      { statuses: [404], target: { kind: 'document', html: '<p>ä', json: '{}' } },
    ];
    assert.equal(proxied({ errorPages }, {}, {}, 404).last.do, 'pass');
    const html = proxied(
      { errorPages, interceptErrors: true },
      { headers: { Accept: 'text/html' } },
      {},
      404,
    );
    assert.equal(html.status, 404);
    assert.equal(html.body, '<p>\xc3\xa4');
    assert.equal(proxied({ errorPages, interceptErrors: true }, {}, {}, 404).body, '{}');
  });

  test('that never comes is an error of ours, with its page', () => {
    const rules = siteOf([
      prefix('/', {
        content: toUp,
        policy: { errorPages: [{ statuses: [502], target: { kind: 'named', name: '@sorry' } }] },
      }),
      {
        match: { kind: 'named', name: '@sorry' },
        content: { kind: 'respond', status: 200, body: t('sorry $uri'), contentType: 'text/plain' },
      },
    ]);
    const result = ask(rules, '/x', {}, { upstream: () => undefined });
    assert.equal(result.status, 502);
    assert.equal(result.body, 'sorry /x');
  });

  test('with X-Accel-Redirect leads inside, with some of its own fields', () => {
    const rules = siteOf([
      prefix('/', { content: toUp, policy: { accelRedirect: true } }),
      prefix('/files/', { internal: true, policy: { root: { path: t('/srv') } } }),
    ]);
    const result = ask(
      rules,
      '/get',
      { method: 'POST' },
      {
        files: ['/srv/files/a b'],
        upstream: () => ({
          status: 200,
          fields: fieldsOf({
            'x-accel-redirect': '/files/a%20b',
            'content-type': 'image/x',
            'content-disposition': 'attachment',
          }),
        }),
      },
    );
    assert.ok(result.last.do === 'file');
    assert.equal(result.last.path, '/srv/files/a b');
    assert.equal(result.last.contentType, 'image/x');
    assert.equal(fieldOf(result, 'content-disposition'), 'attachment');
    assert.equal(ask(rules, '/files/a%20b', {}, { files: ['/srv/files/a b'] }).status, 404);
  });
});

describe('content', () => {
  test('under maintenance is there for those who are let in', () => {
    const rules = siteOf([
      prefix('/', {
        content: {
          kind: 'maintenance',
          retryAfterSeconds: 60,
          html: '<p>soon',
          except: { addresses: [{ allow: true, range: '10.0.0.0/8' }], content: toUp },
        },
      }),
    ]);
    const outside = ask(rules, '/');
    assert.deepEqual([outside.status, outside.body, fieldOf(outside, 'retry-after')], [503, '<p>soon', '60']);
    assert.equal(ask(rules, '/', { client: '10.1.1.1' }).target, '/');
  });

  test('of a single-page app is its first page where no file is, with that page’s type', () => {
    const rules = siteOf([prefix('/', { content: { kind: 'files', fallback: 'index.html' } })], {
      policy: { root: { path: t('/srv') } },
    });
    const files = ['/srv/index.html', '/srv/app.js'];
    const page = ask(rules, '/any/route.js', {}, { files });
    assert.ok(page.last.do === 'file');
    assert.deepEqual([page.last.path, page.last.contentType], ['/srv/index.html', 'text/html']);
    const script = ask(rules, '/app.js', {}, { files });
    assert.equal(script.last.do === 'file' && script.last.path, '/srv/app.js');
    assert.equal(ask(rules, '/', {}, { files }).status, 200);
  });

  test('goes to the canary for its share of the clients, always the same ones, and for whom rules say', () => {
    const canary = (percent: number, client: string, headers = {}) =>
      ask(
        siteOf(
          [
            prefix('/', {
              content: {
                ...toUp,
                canary: {
                  upstream: 'new',
                  percent,
                  when: { headers: [{ name: 'X-New', value: { kind: 'present' } }] },
                },
              },
            }),
          ],
          {},
          {
            upstreams: [
              { name: 'up', servers: [{ host: 'a' }] },
              { name: 'new', servers: [{ host: 'b' }] },
            ],
          },
        ),
        '/',
        { client, headers },
      ).forwarded[0]?.pool.name;
    const clients = Array.from({ length: 200 }, (_, i) => `192.0.2.${i}`);
    const share = clients.filter((client) => canary(25, client) === 'new');
    assert.ok(share.length > 25 && share.length < 75, `${share.length} of 200`);
    assert.deepEqual(
      clients.filter((client) => canary(25, client) === 'new'),
      share,
    );
    assert.ok(clients.every((client) => canary(0, client) === 'up' && canary(100, client) === 'new'));
    assert.equal(canary(0, clients[0]!, { 'X-New': '1' }), 'new');
  });

  test('closes the connection for 444', () => {
    const rules = siteOf([prefix('/', { rewrite: [{ do: 'return', status: 444 }] })]);
    assert.equal(ask(rules, '/').last.do, 'close');
  });

  test('of one group is one pool, however many places forward to it, and another where timeouts differ', () => {
    const rules = compile(
      siteOf([
        prefix('/a', { content: toUp }),
        prefix('/b', { content: toUp, policy: { addHeaders: [] } }),
        prefix('/c', { content: toUp, policy: { readTimeoutMs: 1 } }),
        prefix('/d', { content: { kind: 'proxy-to', url: t('http://$arg_to/x') } }),
      ]),
    );
    const pool = (target: string) => ask(rules, target).forwarded[0]?.pool;
    assert.equal(pool('/a'), pool('/b'));
    assert.notEqual(pool('/a'), pool('/c'));
    assert.equal(pool('/c')?.readTimeoutMs, 1);
    assert.equal(pool('/d?to=up'), pool('/a'));
    assert.equal(pool('/d?to=h:99'), pool('/d?to=h:99'));
    assert.equal(pool('/d?to=h:99')?.addresses[0]?.port, 99);
    assert.equal(ask(rules, '/d?to=h:99999').status, 500);
    assert.equal(ask(rules, '/d?to=').status, 500);
    assert.equal(rules.pools.length, 2);
  });
});

describe('a client without the certificate that is asked for', () => {
  const clientAuth = { mode: 'require', authorities: '' } as const;
  const rules = siteOf([prefix('/', { content: toUp })], { clientAuth });
  const tls = { protocol: 'TLSv1.3', cipher: 'x', serverName: 'a.test', resumed: false, clientAuth };
  const certificate = {
    fault: undefined,
    validFrom: '',
    validTo: '',
    subject: 'CN=ann',
    issuer: 'CN=ca',
    serial: '01',
    fingerprint: 'ab',
    certificate: '',
  };

  test('is refused, and so is one whose certificate is not good', () => {
    assert.equal(ask(rules, '/', { tls: { ...tls, client: undefined } }).status, 400);
    assert.equal(
      ask(rules, '/', {
        tls: { ...tls, client: { ...certificate, fault: 'CERT_HAS_EXPIRED', verify: 'FAILED:expired' } },
      }).status,
      400,
    );
    assert.equal(
      ask(rules, '/', { tls: { ...tls, client: { ...certificate, verify: 'SUCCESS' } } }).status,
      200,
    );
  });

  test('is refused what was shown under another name, or to other authorities', () => {
    const client = { ...certificate, verify: 'SUCCESS' };
    for (const asked of [undefined, { ...clientAuth, authorities: 'others' }])
      assert.equal(ask(rules, '/', { tls: { ...tls, clientAuth: asked, client } }).status, 421);
  });
});

describe('a model', () => {
  const faulty: readonly [string, RuleSet, RegExp][] = [
    [
      'an unknown upstream',
      siteOf([{ ...prefix('/'), content: { ...toUp, upstream: 'none', origin: 'a.conf:3:5' } }]),
      /^a\.conf:3:5: there is no upstream none$/,
    ],
    [
      'an unknown zone',
      siteOf([prefix('/', { policy: { requestLimits: [{ zone: 'none' }] } })]),
      /no zone none/,
    ],
    [
      'a bad range',
      siteOf([prefix('/', { policy: { addresses: [{ allow: true, range: '10.0.0.0/33' }] } })]),
      /10\.0\.0\.0\/33 is neither/,
    ],
    [
      'maps that ask each other',
      siteOf(
        [],
        {},
        {
          maps: [
            { variable: 'a', source: t('$b'), entries: [] },
            { variable: 'b', source: t('$a'), entries: [] },
          ],
        },
      ),
      /depends on itself/,
    ],
  ];
  for (const [name, rules, message] of faulty) {
    test(`with ${name} is refused`, () => {
      assert.throws(
        () => compile(rules),
        (error) => error instanceof RuleSetError && message.test(error.message),
      );
    });
  }

  test('is compiled in steps of one site, so that traffic goes on in between', () => {
    const { sites } = siteOf([prefix('/')]);
    let steps = 0;
    for (const _ of compileInSteps({ sites: [...sites, ...sites, ...sites] })) steps++;
    assert.equal(steps, 3);
  });

  test('has templates of names, braces and captures, and none of a lone dollar', () => {
    assert.deepEqual(parseTemplate(`a$Host-$${'{uri}'}b$1`), [
      'a',
      { name: 'host' },
      '-',
      { name: 'uri' },
      'b',
      { name: '1' },
    ]);
    for (const text of ['$', 'a$ b', '$-', '$!']) assert.ok('fault' in parseTemplate(text), text);
  });

  test('has times of expiry as nginx writes them', () => {
    assert.deepEqual(parseExpires('1h30m'), { kind: 'after', seconds: 5_400 });
    assert.deepEqual(parseExpires('-1'), { kind: 'after', seconds: -1 });
    assert.deepEqual(parseExpires('@15h30m'), { kind: 'daily', seconds: 55_800 });
    assert.equal(parseExpires('soon'), undefined);
  });
});

describe('an explanation', () => {
  test('names site, locations, rules, questions and upstream, each where it is written', () => {
    const location = (path: string, line: number, more: Partial<Location>): Location => ({
      ...prefix(path),
      origin: `a.conf:${line}:3`,
      ...more,
    });
    const rules = compile(
      siteOf(
        [
          location('/', 2, { content: toUp }),
          location('/api', 4, {
            content: toUp,
            rewrite: [
              {
                do: 'rewrite',
                pattern: re('^/api/(.*)$'),
                to: t('/v1/$1'),
                flag: 'break',
                origin: 'a.conf:5:5',
              },
            ],
            policy: {
              authRequest: { kind: 'uri', uri: t('/auth') },
              requestHeaders: [edit('set', 'X-Real-IP', '$remote_addr')],
            },
          }),
          {
            match: { kind: 'pattern', pattern: re('\\.php$') },
            origin: 'a.conf:9:3',
            rewrite: [{ do: 'return', status: 404 }],
          },
          location('/auth', 8, { internal: true, rewrite: [{ do: 'return', status: 204 }] }),
        ],
        { origin: 'a.conf:1:1' },
      ),
    );
    const said = explain(rules, factsOf('/api/x?y', {}), () => false);
    assert.deepEqual(
      said.map(
        ({ text, origin, depth }) =>
          `${' '.repeat(depth)}${text}${origin === undefined ? '' : ` [${origin}]`}`,
      ),
      [
        'site a.test takes a.test [a.conf:1:1]',
        'location ~ \\.php$ does not fit [a.conf:9:3]',
        'location /api [a.conf:4:3]',
        'rewrite ^/api/(.*)$ /v1/$1 break [a.conf:5:5]',
        'asks whether it may go on:',
        ' location ~ \\.php$ does not fit [a.conf:9:3]',
        ' location /auth [a.conf:8:3]',
        ' return 204',
        ' answers 204 itself',
        'forwards GET /v1/x?y to http://up (127.0.0.1:8080)',
        '  X-Real-IP: 192.0.2.7',
        "  of the client's fields these stay behind: x-real-ip",
      ],
    );
    assert.match(
      explain({ ...rules, find: () => undefined }, factsOf('/', {}), () => false)[0]!.text,
      /no site takes a\.test/,
    );
  });
});
