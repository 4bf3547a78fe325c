// The rules of a routes file: what each key becomes, which hosts stay plain routes, and how mistakes are told.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Ajv } from 'ajv';
import fc from 'fast-check';
import { parse as parseYaml } from 'yaml';
import { compile } from '../../../../proxy/rules/compile.ts';
import { describeMistake } from '../../../../src/config/mistake.ts';
import { type RoutesFileOptions, readRoutesFile } from '../../../../src/routes/yaml/file.ts';
import { keys } from '../../../../src/routes/yaml/keys.ts';
import { type Asked, ask } from '../../../proxy/rules/driver.ts';
import { weakCertificate } from '../../../support/certificates.ts';

const timeouts = { connectTimeoutMs: 10_000, readTimeoutMs: 60_000, sendTimeoutMs: 30_000 };
const schema = JSON.parse(
  readFileSync(new URL('../../../../docs/routes.schema.json', import.meta.url), 'utf8'),
);
const fitsSchema = new Ajv({ allErrors: true, strict: true, strictRequired: false }).compile(schema);

const AUTHORITY = weakCertificate('ca.example.com').chain;

/** What is on the disk of these tests. */
const FILES: Readonly<Record<string, string>> = {
  '/etc/r/pages/404.html': '<h1>nothing here</h1>',
  '/etc/r/robots.txt': 'User-agent: *\nDisallow: /$\n',
  '/etc/r/users': 'ann:$2y$05$abcdefghijklmnopqrstuuO5Hc1Yw9J8l0A7bqJ9tq6s1nVZxG6Hy\n# nobody\n',
  '/etc/r/ca.pem': AUTHORITY,
};

function readFile(path: string): string {
  const text = FILES[path];
  if (text === undefined) throw Object.assign(new Error(path), { code: 'ENOENT' });
  return text;
}

function read(text: string, options: Partial<RoutesFileOptions> = {}) {
  return readRoutesFile(text, '/etc/r/routes.yaml', { timeouts, readFile, ...options });
}

function mistakesOf(text: string, options: Partial<RoutesFileOptions> = {}): string[] {
  return read(text, options).mistakes.map((mistake) => describeMistake(mistake).replaceAll('/etc/r/', ''));
}

/** What a request meets under a sound file. */
function meet(text: string, target: string, asked: Asked = {}, world: Parameters<typeof ask>[3] = {}) {
  const { rules, mistakes } = read(text);
  assert.deepEqual(mistakes.map(describeMistake), []);
  return ask(compile(rules), target, { host: 'a.example.com', ...asked }, world);
}

const route = (body: string) => `routes:\n  - host: a.example.com\n${body.replaceAll(/^/gm, '    ')}\n`;
const up = (body: string) => route(`${body}\nupstream: http://app`);

test('a host without rules is a plain route, one with any is a site with all its paths', () => {
  const { routes, rules } = read(`routes:
  - host: plain.example.com
    timeouts: { read: 5m }
    paths: [{ prefix: /v1/, upstream: "http://v1" }, { prefix: /, upstream: "app:80" }]
  - host: ruled.example.com
    paths:
      - { prefix: /v1/, upstream: "http://v1" }
      - { prefix: /, upstream: "http://app", compress: true }
`);
  assert.deepEqual(
    routes.map(({ host }) => host),
    ['plain.example.com'],
  );
  assert.deepEqual(
    rules.sites.map(({ label, locations }) => [label, locations.length]),
    [['ruled.example.com', 2]],
  );
});

test('defaults that are rules hold for every host; timeouts and health alone leave hosts plain', () => {
  const hosts = 'routes: [{ host: a.example.com, upstream: "http://a" }]\n';
  assert.equal(read(`defaults: { compress: true }\n${hosts}`).rules.sites.length, 1);
  const { routes, rules } = read(`defaults: { timeouts: { read: 1s }, health: { tcp: true } }\n${hosts}`);
  assert.deepEqual([routes.length, rules.sites.length], [1, 0]);
  assert.equal(routes[0]!.paths[0]!.upstream.readTimeoutMs, 1000);
});

test('a plain host that a wildcard of the rules would take goes to the rules too, and keeps its upstream', () => {
  const text = `routes:
  - { host: a.example.com, upstream: "http://own" }
  - { host: other.example.org, upstream: "http://other" }
  - { host: "*.example.com", upstream: "http://all", compress: true }
`;
  const { routes, rules } = read(text);
  assert.deepEqual([routes.length, rules.sites.length], [1, 2]);
  const result = meet(text, '/');
  assert.equal(result.forwarded[0]!.pool.name, 'own:80');
  const all = read(`${text}  - { host: "~^x", upstream: "http://x" }\n`);
  assert.deepEqual([all.routes.length, all.rules.sites.length], [0, 4]);
});

test('several hosts share a route, and a wildcard stands for one label', () => {
  const text = 'routes: [{ hosts: [a.example.com, "*.b.example.com"], respond: 204 }]\n';
  assert.equal(meet(text, '/').status, 204);
  assert.equal(meet(text, '/', { host: 'x.b.example.com' }).status, 204);
  assert.equal(meet(text, '/', { host: 'x.y.b.example.com' }).last.do, 'no-site');
});

test('a host by expression gives its groups to variables', () => {
  const { fields } = meet(
    'routes: [{ host: "~^(?<tenant>[a-z]+)\\\\.example\\\\.com$", redirect: "https://example.com/$tenant" }]\n',
    '/',
    { host: 'Acme.example.com' },
  );
  assert.deepEqual(fields, [{ name: 'Location', value: 'https://example.com/acme' }]);
});

test('paths are found exact first, then the longest, under by segment, then expressions', () => {
  const text = route(`paths:
  - { prefix: /, upstream: "http://root" }
  - { under: /api, upstream: "http://api" }
  - { prefix: /ap, upstream: "http://bytes" }
  - { exact: /api/ping, respond: 200 }
  - { regex: "\\\\.png$", upstream: "http://images" }`);
  const pool = (target: string) => meet(text, target).forwarded[0]?.pool.name;
  assert.deepEqual(['/', '/api', '/api/x', '/apix', '/x.png', '/api/x.png'].map(pool), [
    'root:80',
    'api:80',
    'api:80',
    'bytes:80',
    'images:80',
    'api:80',
  ]);
  assert.equal(meet(text, '/api/ping').status, 200);
});

test('method, headers and query choose between paths that are alike', () => {
  const text = route(`paths:
  - { prefix: /, upstream: "http://app" }
  - { prefix: /, when: { method: [GET], headers: { X-Beta: true }, query: { v: "~^2" } }, upstream: "http://beta" }`);
  const pool = (target: string, asked: Asked) => meet(text, target, asked).forwarded[0]!.pool.name;
  assert.equal(pool('/?v=2', { headers: { 'X-Beta': '1' } }), 'beta:80');
  assert.equal(pool('/?v=2', { method: 'HEAD', headers: { 'X-Beta': '1' } }), 'beta:80');
  assert.equal(pool('/?v=2', { method: 'POST', headers: { 'X-Beta': '1' } }), 'app:80');
  assert.equal(pool('/?v=1', { headers: { 'X-Beta': '1' } }), 'app:80');
  assert.equal(pool('/?v=2', {}), 'app:80');
});

test('a prefix is stripped, a path rewritten, and the query stays', () => {
  const text = route(`paths:
  - { under: /api, strip_prefix: true, upstream: "http://api" }
  - { prefix: /old/, rewrite: { regex: "^/old/(.*)$", to: "/new/$1" }, upstream: "http://app" }`);
  assert.equal(meet(text, '/api/a%20b?x').target, '/a%20b?x');
  assert.equal(meet(text, '/old/a?x').target, '/new/a?x');
});

test('headers of the file, the route and the path are joined, the innermost last', () => {
  const text = `defaults: { headers: { request: { set: { X-A: file, X-B: file } }, response: { remove: Server } } }
${route(`headers: { request: { set: { X-B: "$host", X-C: [1, 2] } } }
paths:
  - { prefix: /, upstream: "http://app", headers: { request: { remove: X-A, add: { X-D: d } } } }`)}`;
  const [forward] = meet(text, '/').forwarded;
  assert.deepEqual(
    forward!.own.map(({ name, value }) => `${name}: ${value}`),
    ['X-B: a.example.com', 'X-C: 1', 'X-C: 2', 'X-D: d'],
  );
  assert.ok(['x-a', 'x-b', 'x-c'].every((name) => forward!.removed.has(name)));
});

test('security headers fill in what the app leaves out, and a header of the file replaces them', () => {
  const text = up(
    'security_headers: [hsts, nosniff]\nheaders: { response: { set: { X-Content-Type-Options: none } } }',
  );
  const said = meet(text, '/').fields.map(({ name, value }) => `${name}: ${value}`);
  assert.deepEqual(said, ['Strict-Transport-Security: max-age=31536000', 'X-Content-Type-Options: none']);
});

test('denied addresses stay out, allowed ones alone come in', () => {
  const text = up('allow: [10.0.0.0/8, "2001:db8::/32"]\ndeny: 10.0.0.1');
  const status = (client: string) => meet(text, '/', { client }).status;
  assert.deepEqual(['10.0.0.2', '10.0.0.1', '192.0.2.1', '2001:db8::1'].map(status), [200, 403, 403, 200]);
});

test('a path that denies more opens nothing of what its route allows, unless it says so', () => {
  const text = route(`allow: 10.0.0.0/8
deny: 10.9.9.9
paths:
  - { prefix: /, upstream: "http://app" }
  - { prefix: /a, deny: 10.0.0.1, upstream: "http://app" }
  - { prefix: /b, allow: 192.0.2.1, upstream: "http://app" }
  - { prefix: /c, allow: false, deny: false, upstream: "http://app" }`);
  const statuses = (target: string) =>
    ['10.0.0.1', '10.9.9.9', '10.0.0.2', '192.0.2.1'].map((client) => meet(text, target, { client }).status);
  assert.deepEqual(statuses('/'), [200, 403, 200, 403]);
  assert.deepEqual(statuses('/a'), [403, 200, 200, 403]);
  assert.deepEqual(statuses('/b'), [403, 403, 403, 200]);
  assert.deepEqual(statuses('/c'), [200, 200, 200, 200]);
});

test('a password is asked for, from the file or from a users file, and a path can do without', () => {
  const text = route(`basic_auth: { realm: staff, users_file: users }
paths:
  - { prefix: /, upstream: "http://app" }
  - { exact: /health, basic_auth: false, respond: 200 }`);
  const refused = meet(text, '/');
  assert.equal(refused.status, 401);
  assert.deepEqual(refused.fields, [{ name: 'WWW-Authenticate', value: 'Basic realm="staff"' }]);
  assert.equal(meet(text, '/health').status, 200);
  const headers = { Authorization: `Basic ${Buffer.from('ann:secret').toString('base64')}` };
  const passwords = (_: string, password: string) => password === 'secret';
  assert.equal(meet(text, '/', { headers }, { passwords }).status, 200);
});

test('another service is asked with method and URI, and its word goes to the app', () => {
  const text = up(
    'forward_auth: { url: "http://auth:9091/verify?rd=$host", copy: [Remote-User], copy_to_reply: [Set-Cookie] }',
  );
  const world = {
    upstream: ({ pool }: { pool: { name: string } }) => ({
      status: 200,
      fields: { all: (name: string) => (pool.name === 'auth:9091' && name === 'remote-user' ? ['ann'] : []) },
    }),
  };
  const { forwarded } = meet(text, '/x?y', { headers: { 'Remote-User': 'forged' } }, world);
  assert.deepEqual(
    forwarded.map(({ pool, target }) => `${pool.name} ${target}`),
    ['auth:9091 /verify?rd=a.example.com', 'app:80 /x?y'],
  );
  const asked = forwarded[0]!.own.map(({ name, value }) => `${name}: ${value}`);
  assert.ok(
    asked.includes('X-Forwarded-Method: GET') && asked.includes('X-Forwarded-Uri: /x?y'),
    asked.join(),
  );
  assert.ok(
    forwarded[1]!.own.some(({ name, value }) => name.toLowerCase() === 'remote-user' && value === 'ann'),
  );
  assert.equal(meet(text, '/', {}, { upstream: () => undefined }).status, 503);
});

test('limits count by address, header or cookie, and answer 429', () => {
  const text = up(
    'rate_limit: [{ rate: 2/s, by: { header: X-Api-Key } }, 100/m]\nconcurrency: { limit: 3, by: { cookie: s-id } }',
  );
  const { rules } = read(text);
  assert.deepEqual(
    rules.requestZones!.map(({ key, perThousandSeconds }) => [key, perThousandSeconds]),
    [
      [[{ name: 'http_x_api_key' }], 2000],
      [[{ name: 'remote_addr' }], 1666],
    ],
  );
  assert.deepEqual(rules.connectionZones![0]!.key, [{ name: 'cookie_s-id' }]);
  assert.equal(meet(text, '/', {}, { charge: () => 'requests' }).status, 429);
  assert.equal(meet(text, '/', {}, { charge: () => 'seats' }).status, 429);
});

test('behind a gateway that names no clients, whatever goes by address is refused with its place', () => {
  const text = `upstreams: { u: { servers: ["http://u"], balance: address } }\n${route(`rate_limit: 10/s
concurrency: 5
allow: 10.0.0.0/8
maintenance: { allow: 10.0.0.1 }
upstream: u
canary: { upstream: "http://next", percent: 1 }`)}`;
  const found = mistakesOf(text, { clientAddresses: false });
  assert.equal(found.length, 6, found.join('\n'));
  for (const mistake of found)
    assert.match(
      mistake,
      /goes by the client's address, which is not known here.*PROXY_PROTOCOL or TRUSTED_FORWARDERS/,
    );
  assert.deepEqual(
    mistakesOf(up('rate_limit: { rate: 1/s, by: { cookie: s } }'), { clientAddresses: false }),
    [],
  );
});

test('a reply of ours has status, headers and body, from the file or from a file of its own', () => {
  const text = route(`paths:
  - { exact: /a, respond: { status: 418, headers: { X-A: "$host" }, body: "hello $arg_name" } }
  - { exact: /robots.txt, respond: { file: robots.txt } }`);
  const a = meet(text, '/a?name=ann');
  assert.deepEqual([a.status, a.body], [418, 'hello ann']);
  assert.deepEqual(a.fields[1], { name: 'X-A', value: 'a.example.com' });
  assert.equal(meet(text, '/robots.txt').body, FILES['/etc/r/robots.txt']);
  assert.deepEqual(read(text).watched, ['/etc/r/routes.yaml', '/etc/r/robots.txt']);
});

test('files are served from their root, a single-page app falls back, a stripped prefix stays inside', () => {
  const text = route(`paths:
  - { prefix: /, files: { root: /srv/app, fallback: /index.html } }
  - { under: /docs, strip_prefix: true, files: /srv/docs }`);
  const world = { files: ['/srv/app/index.html', '/srv/app/a.js', '/srv/docs/b.html'] };
  const path = (target: string) => {
    const { last } = meet(text, target, {}, world);
    return last.do === 'file' ? last.path : last.do;
  };
  assert.deepEqual(['/a.js', '/deep/link', '/docs/b.html', '/docs/none'].map(path), [
    '/srv/app/a.js',
    '/srv/app/index.html',
    '/srv/docs/b.html',
    'own',
  ]);
});

test('error pages are HTML or JSON as asked, of the upstream as well if the file says so', () => {
  const text = up(
    'error_pages: { 404: { html_file: pages/404.html, json: "{}" }, 5xx: { html: sorry }, upstream: true }',
  );
  const world = { upstream: () => ({ status: 404, fields: { all: () => [] } }) };
  assert.equal(
    meet(text, '/', { headers: { Accept: 'text/html' } }, world).body,
    FILES['/etc/r/pages/404.html'],
  );
  assert.equal(meet(text, '/', { headers: { Accept: 'application/json' } }, world).body, '{}');
  assert.equal(meet(text, '/', {}, { upstream: () => undefined }).body, 'sorry');
  const own = up('error_pages: { 404: { html: mine } }');
  assert.equal(meet(own, '/', {}, world).body, undefined);
});

test('maintenance closes a host with all its paths, but for those who are allowed', () => {
  const text = route(`maintenance: { html: later, retry_after: 10m, allow: 192.0.2.0/24 }
paths: [{ prefix: /, upstream: "http://app" }, { exact: /status, maintenance: false, respond: 200 }]`);
  const closed = meet(text, '/', { client: '198.51.100.1', headers: { Accept: 'text/html' } });
  assert.deepEqual([closed.status, closed.body], [503, 'later']);
  assert.ok(closed.fields.some(({ name, value }) => name === 'Retry-After' && value === '600'));
  assert.equal(meet(text, '/', { client: '192.0.2.1' }).forwarded.length, 1);
  assert.equal(meet(text, '/status', { client: '198.51.100.1' }).status, 200);
});

test('upstreams have names, weights and ways to share the load; a canary takes its part', () => {
  const text = `upstreams:
  api: { servers: [{ url: "http://a", weight: 3 }, { url: "http://b", backup: true }], balance: weighted }
  sticky: { servers: ["http://c", "http://d"], balance: { cookie: server, max_age: 1d } }
  hashed: { servers: ["http://e", "http://f"], balance: { hash: "$uri", consistent: true } }
  next: http://next
${route(`paths:
  - { prefix: /, upstream: api, canary: { upstream: next, percent: 0, when: { headers: { X-Next: true } } } }
  - { exact: /s, upstream: sticky }
  - { exact: /h, upstream: hashed }`)}`;
  const { rules } = read(text, { cookieSecret: 'of this test' });
  assert.deepEqual(rules.upstreams![0]!.servers, [
    { host: 'a', port: 80, weight: 3 },
    { host: 'b', port: 80, backup: true },
  ]);
  assert.deepEqual(rules.upstreams![1]!.balance, {
    by: 'cookie',
    name: 'server',
    secret: 'of this test',
    maxAgeSeconds: 86_400,
  });
  assert.equal(meet(text, '/').forwarded[0]!.pool.name, 'api');
  assert.equal(meet(text, '/', { headers: { 'X-Next': '' } }).forwarded[0]!.pool.name, 'next');
  assert.equal(meet(text, '/h').forwarded[0]!.hashKey, '/h');
});

test('body and header limits, retries, CORS, compression and TLS on either side reach the rules', () => {
  const { rules, mistakes } = read(
    up(`body_limit: 10m
header_limit: 4k
retry: { on: [error, 503], tries: 3, timeout: 5s }
cors: { origins: ["https://b.example.com", "~^https://.*\\\\.c$"], credentials: true, max_age: 1h }
compress: [br, gzip]
client_auth: { ca: ca.pem, header: X-Client }
upstream_tls: { ca: ca.pem, name: app.internal }`),
  );
  assert.deepEqual(mistakes.map(describeMistake), []);
  const [site] = rules.sites;
  const { maxBodyBytes, maxHeaderBytes, retry, cors, compress, requestHeaders, upstreamTls } = site!.policy!;
  assert.deepEqual([maxBodyBytes, maxHeaderBytes], [10_485_760, 4096]);
  assert.deepEqual(retry, { on: ['error', 503], tries: 3, sameServers: true, timeoutMs: 5000 });
  assert.ok(cors !== false && cors?.credentials === true && cors.origins.length === 2);
  assert.deepEqual(compress ? compress.encodings : undefined, ['br', 'gzip']);
  assert.deepEqual(site!.clientAuth, { mode: 'require', authorities: AUTHORITY });
  assert.deepEqual(
    requestHeaders?.map(({ name }) => name),
    ['X-Client'],
  );
  assert.deepEqual(upstreamTls, {
    verify: true,
    sendName: true,
    authorities: AUTHORITY,
    name: 'app.internal',
  });
});

test('included files bring routes and upstreams, and their mistakes name them', () => {
  const files: Record<string, string> = {
    '/etc/r/more/b.yaml': 'include: ["../c.yaml"]\nroutes: [{ host: b.example.com, upstream: api }]\n',
    '/etc/r/c.yaml': 'upstreams: { api: "http://api" }\n',
  };
  const options = { readFile: (path: string) => files[path] ?? readFile(path) };
  const text = 'include: more/b.yaml\nroutes: [{ host: a.example.com, upstream: api }]\n';
  const { routes, mistakes, watched } = read(text, options);
  assert.deepEqual(mistakes.map(describeMistake), []);
  assert.deepEqual(
    routes.map(({ host, paths }) => [host, paths[0]!.upstream.addresses[0]!.host]),
    [
      ['a.example.com', 'api'],
      ['b.example.com', 'api'],
    ],
  );
  assert.deepEqual(watched, ['/etc/r/routes.yaml', '/etc/r/more/b.yaml', '/etc/r/c.yaml']);
  files['/etc/r/c.yaml'] =
    'include: more/b.yaml\nroutes: [{ host: a.example.com, upstream: "x" }]\nupstreams: { api: "http://api", 9: a }\n';
  assert.deepEqual(mistakesOf(text, options), [
    'c.yaml:1:10: "more/b.yaml" includes itself: take this include away',
    'c.yaml:2:18: host "a.example.com" is already in routes.yaml:2: wants it once',
    'c.yaml:2:43: there is no upstream "x": wants one of "upstreams", a URL or host:port',
    'c.yaml:3:33: "9" is no name of an upstream: wants letters, digits, - and _, as in api',
  ]);
  assert.deepEqual(mistakesOf('include: none.yaml\n', options), [
    'routes.yaml:1:10: "none.yaml" cannot be read: ENOENT: there is nothing of that name, is it mounted?',
  ]);
});

test('a mistake in a rule has its place, its subject and its cure, and what was meant', () => {
  for (const [body, said] of [
    [
      'compres: true',
      '"compres" is not a key of a route: wants host, upstream, paths, timeouts, health (was compress meant?)',
    ],
    ['headers: { request: { set: { X-A: "$hots" } } }', 'there is no variable $hots: was $host meant?'],
    [
      'headers: { request: { set: { X-A: "5$" } } }',
      "a $ without a variable's name after it: $: write the name, as in $host; for a $ itself use a variable that holds one",
    ],
    [
      'headers: { response: { set: { Content-Length: 1 } } }',
      '"Content-Length" belongs to a connection, not to what goes through it: take it away',
    ],
    [
      'basic_auth: { users: { ann: secret } }',
      'the password of "ann" is not a hash: wants a hash of it, as `htpasswd -nB name` prints one',
    ],
    ['rate_limit: 10', '"rate" is a number: wants text, as in "10/s"'],
    ['rate_limit: 1/h', '"1/h" is less than can be counted: wants 4/h at least'],
    ['security_headers: strct', '"strct" is no preset of "security_headers": was strict meant?'],
    [
      'error_pages: { 200: { html: a } }',
      '"200" is no status of an error: wants 404, 502-504, 4xx or 5xx, or "upstream"',
    ],
    ['strip_prefix: api', '"api" is not a path: wants true, or a prefix as in /api'],
    ['rewrite: { regex: "(", to: /a }', undefined],
    [
      'client_auth: { ca: none.pem }',
      '"/etc/r/none.pem" cannot be read: ENOENT: there is nothing of that name, is it mounted?',
    ],
    [
      'cors: { origins: "*", credentials: true }',
      'any origin could ask with the visitor\'s credentials: wants the origins that may, or no "credentials"',
    ],
    ['redirect: /x', '"upstream" and "redirect" are both given: wants one of them'],
  ] as const) {
    const found = read(up(body)).mistakes;
    assert.equal(found.length, 1, `${body}: ${found.map(describeMistake).join('\n')}`);
    const { place, subject, cure } = found[0]!;
    assert.ok(place.file === '/etc/r/routes.yaml' && place.line === 3 && place.column! >= 5, body);
    if (said !== undefined) assert.equal(`${subject}: ${cure}`, said);
  }
});

test('files are not stripped of a prefix by bytes, which would lead out of their root', () => {
  assert.deepEqual(mistakesOf(route('paths: [{ prefix: /st, strip_prefix: true, files: /srv }]')), [
    'routes.yaml:3:42: files could be reached beside the root: wants true, at a path with "under", or with a "prefix" that ends with /',
  ]);
});

test('raw TCP has no rules', () => {
  assert.deepEqual(mistakesOf(route('compress: true\nupstream: tcp://db:5432')), [
    'routes.yaml:4:15: tcp:// takes whole connections, which have no rules, and "a.example.com" has some: wants a host of its own, without rules',
  ]);
  const { routes } = read(`defaults: { compress: true }\n${route('upstream: tcp://db:5432')}`);
  assert.equal(routes[0]!.paths[0]!.upstream.protocol, 'tcp');
});

// The schema

const SHAPES: Readonly<Record<string, string>> = {
  respond: 'respond',
  files: 'files',
  redirect: 'redirect',
  rewrite: 'rewrite',
  balance: 'balance',
};

/** The properties of the mapping that a definition describes, alone or among other forms. */
function propertiesOf(definition: unknown): string[] {
  const {
    properties,
    anyOf = [],
    items,
  } = definition as { properties?: object; anyOf?: unknown[]; items?: unknown };
  if (properties !== undefined) return Object.keys(properties);
  return [...anyOf, ...(items === undefined ? [] : [items])].flatMap((one) => propertiesOf(one));
}

test('the published schema has the keys of the program, and no others', () => {
  for (const [name, known] of Object.entries(keys)) {
    const definition = name === 'file' ? schema : schema.definitions[SHAPES[name] ?? name];
    assert.ok(definition !== undefined, name);
    assert.deepEqual([...new Set(propertiesOf(definition))].sort(), [...known].sort(), name);
  }
});

/** Bodies of a route with an upstream: what the schema and the program agree on. */
const samples: readonly (readonly [good: boolean, body: string])[] = [
  ...[
    'headers: { request: { set: { A: 1, B: true, C: [a, b] }, add: { D: x }, remove: [E, F] } }',
    'security_headers: false',
    'security_headers: [hsts, nosniff]',
    'cors: { origins: "*", methods: [GET, PUT], headers: X-A, expose: [X-B], max_age: 1h }',
    'compress: { encodings: [gzip], types: [text/html], min_size: 4k }',
    'allow: any',
    'deny: false',
    'basic_auth: { users: { ann: "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=" } }',
    'forward_auth: { url: "http://a/b", headers: { set: { X: y } }, copy: A, timeout: 5s }',
    'rate_limit: 10/s',
    'rate_limit: { rate: 10/s, burst: 0, by: all }',
    'concurrency: 3',
    'body_limit: false',
    'body_limit: 1048576',
    'header_limit: 8k',
    'retry: false',
    'retry: { on: [error, timeout, invalid, 429, 503], non_idempotent: true }',
    'upstream_tls: { verify: false }',
    'error_pages: { 404: { html: a }, 500-504: { json: b }, 4xx: { html: c }, upstream: false }',
    'maintenance: true',
    'maintenance: { status: 503, json: "{}" }',
    'strip_prefix: /api',
    'rewrite: { regex: ^/a, to: /b }',
    'canary: { upstream: "http://b", percent: 0.5, key: $cookie_a, when: { method: GET } }',
  ].map((body) => [true, body] as const),
  ...[
    'headers: { set: { A: 1 } }',
    'headers: { request: { set: {} } }',
    'headers: { request: { remove: [] } }',
    'headers: { request: { set: { "a b": 1 } } }',
    'security_headers: true',
    'security_headers: none',
    'cors: true',
    'cors: { methods: [get], origins: "*" }',
    'compress: [deflate]',
    'compress: []',
    'allow: []',
    'deny: { a: b }',
    'basic_auth: {}',
    'basic_auth: { users: { ann: secret } }',
    'forward_auth: http://a',
    'forward_auth: { url: "ftp://a" }',
    'rate_limit: 10/d',
    'rate_limit: { burst: 1 }',
    'rate_limit: { rate: 10/s, by: { header: a, cookie: b } }',
    'concurrency: 0',
    'concurrency: { by: all }',
    'body_limit: 10x',
    'header_limit: false',
    'retry: true',
    'retry: { on: [200] }',
    'upstream_tls: { certificate: a }',
    'error_pages: { 200: { html: a } }',
    'error_pages: { 404: {} }',
    'maintenance: { status: 100 }',
    'strip_prefix: false',
    'rewrite: /b',
    'rewrite: []',
    'canary: { percent: 1 }',
    'canary: { upstream: "http://b", percent: 101 }',
    'redirect: /x',
    'client_auth: { mode: require }',
    'hosts: [b.example.com]',
    'when: { method: GET }',
  ].map((body) => [false, body] as const),
];

test('the published schema and the program agree on every sample of a rule', () => {
  for (const [good, body] of samples) {
    const text = up(body);
    assert.equal(mistakesOf(text).length === 0, good, `${body}: ${mistakesOf(text)}`);
    assert.equal(fitsSchema(parseYaml(text)), good, `${body}: ${JSON.stringify(fitsSchema.errors)}`);
  }
});

const word = fc.constantFrom(
  ...new Set(Object.values(keys).flat()),
  ...['404', '5xx', 'upstream', 'ann', 'X-A'],
);
const leaf = fc.constantFrom<unknown>(
  ...[
    'a.example.com',
    '*.b.example.com',
    '~^(?<x>a+)$',
    'http://app',
    'tcp://db:1',
    'app',
    'api',
    '/a',
    '/a/',
    '^/a(.*)$',
    '$host',
  ],
  ...[
    '$x',
    '$',
    '10/s',
    '10m',
    '5s',
    'GET',
    'basic',
    'gzip',
    'address',
    'all',
    'error',
    'robots.txt',
    'none',
    '',
    '10.0.0.0/8',
  ],
  ...[
    '{SHA}a',
    'https://a',
    'weighted',
    'more.yaml',
    true,
    false,
    null,
    0,
    1,
    5,
    200,
    301,
    404,
    503,
    1.5,
    -1,
  ],
);
const anything = fc.letrec((tie) => ({
  node: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    leaf,
    fc.array(tie('node'), { maxLength: 3 }),
    fc.dictionary(word, tie('node'), { maxKeys: 4 }),
  ),
})).node;

/** As deep as real files, each key with what may or may not belong there. */
const routeLike = fc.record(
  {
    host: leaf,
    upstream: leaf,
    paths: fc.array(fc.dictionary(word, anything, { maxKeys: 4 }), { maxLength: 2 }),
    more: fc.dictionary(word, anything, { maxKeys: 3 }),
  },
  { requiredKeys: [] },
);
const fileLike = fc.record(
  {
    routes: fc.array(
      routeLike.map(({ more, ...rest }) => ({ ...rest, ...more })),
      { maxLength: 2 },
    ),
    upstreams: fc.dictionary(fc.constantFrom('api', 'b', '9'), anything, { maxKeys: 2 }),
    defaults: fc.dictionary(word, anything, { maxKeys: 2 }),
    include: leaf,
  },
  { requiredKeys: ['routes'] },
);

test('whatever a file holds, it is rules that compile or a list of mistakes with their places, and the schema agrees', () => {
  fc.assert(
    fc.property(fileLike, (file) => {
      const text = JSON.stringify(file);
      const { routes, rules, mistakes } = read(text);
      for (const { place, subject, cure } of mistakes) assert.ok(place.file && subject && cure, text);
      if (mistakes.length > 0) return;
      compile(rules);
      assert.ok(routes.length + rules.sites.length > 0, text);
      assert.ok(fitsSchema(file), `${text}\n${JSON.stringify(fitsSchema.errors)}`);
    }),
    { numRuns: 2000 },
  );
});

test('each rule that is taken on its own is taken with any value of another in its place, or refused', () => {
  const bodies = samples
    .filter(([good]) => good)
    .map(([, body]) => parseYaml(body) as Record<string, unknown>);
  const spoiled = fc
    .tuple(fc.constantFrom(...bodies), fc.constantFrom(...bodies), anything)
    .map(([a, b, node]) => ({ ...a, [Object.keys(b)[0]!]: node }));
  let sound = 0;
  fc.assert(
    fc.property(spoiled, (body) => {
      const file = { routes: [{ host: 'a.example.com', upstream: 'http://app', ...body }] };
      const { rules, mistakes } = read(JSON.stringify(file));
      if (mistakes.length > 0) return;
      sound++;
      compile(rules);
      assert.ok(fitsSchema(file), `${JSON.stringify(file)}\n${JSON.stringify(fitsSchema.errors)}`);
    }),
    { numRuns: 2000 },
  );
  assert.ok(sound > 50, `${sound} were sound`);
});

test('any text at all is routes or mistakes', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 200, unit: 'grapheme' }), (text) => {
      read(text);
      read(`routes:\n  - host: ${text}`);
    }),
    { numRuns: 500 },
  );
});
