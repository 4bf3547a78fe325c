// The routes file: what it may say, and how its mistakes are told.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Ajv } from 'ajv';
import fc from 'fast-check';
import { parse as parseYaml } from 'yaml';
import { RoutesFileError } from '../../../../src/routes/yaml/file.ts';
import { parseRoutesFile } from '../../../support/plain-routes.ts';

const timeouts = { connectTimeoutMs: 10_000, readTimeoutMs: 60_000, sendTimeoutMs: 30_000 };
const read = (text: string) => parseRoutesFile(text, 'routes.yaml', timeouts);

function mistakesOf(text: string): string[] {
  try {
    read(text);
  } catch (error) {
    assert.ok(error instanceof RoutesFileError, String(error));
    return error.message.split('\n');
  }
  return [];
}

test('hosts, paths, several addresses and own timeouts become routes', () => {
  const routes = read(`
routes:
  - host: App.Example.com
    upstream: http://app:80
  - host: "*.api.example.com"
    timeouts: { connect: 2s, read: 15m }
    paths:
      - prefix: /v1/
        upstream: [http://api-a:8080, "http://[fd00::1]"]
        timeouts: { read: 1h }
      - prefix: /
        upstream: grpc://api:50051
`);
  assert.deepEqual(routes, [
    {
      host: 'app.example.com',
      paths: [
        { prefix: '/', upstream: { protocol: 'http', addresses: [{ host: 'app', port: 80 }], ...timeouts } },
      ],
    },
    {
      host: '*.api.example.com',
      paths: [
        {
          prefix: '/v1/',
          upstream: {
            protocol: 'http',
            addresses: [
              { host: 'api-a', port: 8080 },
              { host: 'fd00::1', port: 80 },
            ],
            connectTimeoutMs: 2000,
            readTimeoutMs: 3_600_000,
            sendTimeoutMs: 30_000,
          },
        },
        {
          prefix: '/',
          upstream: {
            protocol: 'grpc',
            addresses: [{ host: 'api', port: 50051 }],
            connectTimeoutMs: 2000,
            readTimeoutMs: 900_000,
            sendTimeoutMs: 30_000,
          },
        },
      ],
    },
  ]);
});

test('a total time and health checks hold for a route, and a path may say otherwise', () => {
  const [{ paths } = { paths: [] }] = read(`
routes:
  - host: api.example.com
    timeouts: { total: 5m }
    health: { path: "/healthz?deep", host: api.internal, interval: 5s, healthy: 1 }
    paths:
      - { prefix: /, upstream: "http://api:80" }
      - { prefix: /a, upstream: "http://api:80", timeouts: { total: 1h }, health: false }
      - { prefix: /b, upstream: "grpc://api:80", health: { grpc: "" } }
      - { prefix: /c, upstream: "api:80", health: { tcp: true, timeout: 500ms, unhealthy: 10 } }
`);
  const usual = { intervalMs: 10_000, timeoutMs: 2_000, unhealthyAfter: 3, healthyAfter: 2 };
  assert.deepEqual(
    paths.map(({ upstream }) => [upstream.totalTimeoutMs, upstream.health]),
    [
      [
        300_000,
        {
          ...usual,
          probe: { type: 'http', path: '/healthz?deep', host: 'api.internal' },
          intervalMs: 5_000,
          healthyAfter: 1,
        },
      ],
      [3_600_000, undefined],
      [300_000, { ...usual, probe: { type: 'grpc', service: '' } }],
      [300_000, { ...usual, probe: { type: 'tcp' }, timeoutMs: 500, unhealthyAfter: 10 }],
    ],
  );
});

test('an upstream that cannot be asked the way its route asks is a mistake with its place', () => {
  assert.deepEqual(
    mistakesOf(`routes:
  - host: a.example.com
    health: { path: /healthz }
    paths:
      - { prefix: /, upstream: "http://a" }
      - { prefix: /rpc, upstream: "grpc://a" }
`),
    ['routes.yaml:6:35: speaks grpc, and its "health" asks by "path": that wants http, https, h2c, auto'],
  );
});

test('every mistake is told at once, in order, with file, line, column and what is wanted', () => {
  assert.deepEqual(
    mistakesOf(`routes:
  - host: app.example.com
    upstrem: http://app:80
  - host: app.example.com
    upstream: http://app:80/base
  - upstream: app
    paths: []
  - host: api.example.com
    timeouts: { read: 60 }
    paths:
      - prefix: v1
        upstream: [http://a:1, grpc://b:2]
      - prefix: /x
        upstream: ftp://a
`),
    [
      'routes.yaml:2:5: this route has neither "upstream" nor "paths": wants one of them',
      'routes.yaml:3:5: "upstrem" is not a key of a route: wants host, upstream, paths, timeouts, health (was upstream meant?)',
      'routes.yaml:4:11: host "app.example.com" is already on line 2: wants it once',
      'routes.yaml:5:15: "http://app:80/base" has a path: requests keep the path they came with, so wants http://host:port',
      'routes.yaml:6:5: this route has no "host": wants one, as in host: app.example.com',
      'routes.yaml:7:12: this route has "upstream" and "paths": wants one of them',
      'routes.yaml:9:23: "60" has no unit: write "60s" for seconds or "60ms" for milliseconds',
      'routes.yaml:11:17: "v1" is not a path: wants what requests\' paths start with, as in "/v1/"',
      'routes.yaml:12:32: speaks grpc, the first one http: wants one protocol',
      'routes.yaml:14:19: "ftp://" is not an upstream scheme: wants http://, https://, h2c://, grpc://, grpcs://, tcp:// or host:port',
    ],
  );
});

test('an empty or truncated file is refused, whatever is left of it', () => {
  const whole = `routes:\n  - host: app.example.com\n    upstream: http://app:80\n  - host: api.example.com\n    upstream: http://api:80\n`;
  assert.equal(read(whole).length, 2);
  for (const text of ['', '\n', '# nothing yet\n', 'routes:', 'routes: []', '---\n', 'null', 'routes: {']) {
    assert.equal(mistakesOf(text).length, 1, JSON.stringify(text));
  }
});

test('YAML that is not sound is refused with its place', () => {
  assert.match(
    mistakesOf('routes:\n  - host: a.example.com\n    host: b.example.com\n    upstream: a:1\n')[0]!,
    /^routes\.yaml:3:5: is not sound YAML/,
  );
  assert.match(mistakesOf('routes:\n\t- host: a.example.com\n')[0]!, /^routes\.yaml:2:1: is not sound YAML/);
  assert.match(
    mistakesOf('routes:\n  - host: !!js/function "x"\n    upstream: a:1\n')[0]!,
    /^routes\.yaml:2:11: is not sound YAML/,
  );
  assert.match(
    mistakesOf('routes: [{host: a.example.com, upstream: "a:1"}]\n---\nroutes: []\n')[0]!,
    /^routes\.yaml:2:1: a second YAML document/,
  );
});

test('a wildcard without quotes, which YAML takes for an alias, is told its cure, and what else is wrong too', () => {
  assert.deepEqual(mistakesOf('routes:\n  - host: *.x.example.com\n    upstrem: a:1\n    upstream: app\n'), [
    'routes.yaml:2:11: *.x.example.com is an alias: wants quotes: "*.x.example.com"',
    'routes.yaml:3:5: "upstrem" is not a key of a route: wants host, upstream, paths, timeouts, health (was upstream meant?)',
    'routes.yaml:4:15: "app" has no port: wants host:port',
  ]);
  assert.deepEqual(mistakesOf('routes: [{host: *.x.example.com, upstream: "a:1"}]\n'), [
    'routes.yaml:1:17: *.x.example.com is an alias: wants quotes: "*.x.example.com"',
  ]);
});

test('a time without a unit is told its cure wherever it stands, with its place', () => {
  assert.deepEqual(
    mistakesOf(`routes:
  - host: a.example.com
    upstream: http://a
    timeouts: { read: 15, total: 1.5 }
    health: { path: /, interval: 5 }
`),
    [
      'routes.yaml:4:23: "15" has no unit: write "15s" for seconds or "15ms" for milliseconds',
      'routes.yaml:4:34: "1.5" is not a duration: wants a number and a unit (ms, s, m, h, d), as in 10s',
      'routes.yaml:5:34: "5" has no unit: write "5s" for seconds or "5ms" for milliseconds',
    ],
  );
});

test('whatever YAML itself refuses is told its cure', () => {
  const cures: Record<string, RegExp> = {
    'routes:\n\t- host: a\n': /:2:1: .*: wants spaces$/,
    'routes: @x\n': /:1:9: .*: wants quotes around/,
    'routes: !x y\n': /:1:9: .*: wants quotes around/,
    'routes: []\nroutes: []\n': /:2:1: .*: wants each key once$/,
    'routes: a: b\n': /:1:9: .*: wants one key on a line/,
    'routes: "x\n': /: wants every quote and bracket closed/,
    'routes: [1\n': /: wants what belongs together to begin in the same column, and every bracket closed$/,
  };
  for (const [text, cure] of Object.entries(cures)) assert.match(mistakesOf(text)[0]!, cure, text);
});

test('an alias bomb is refused without being expanded', () => {
  const levels = Array.from({ length: 30 }, (_, i) => `l${i + 1}: &l${i + 1} [${`*l${i},`.repeat(9)}]`);
  const mistakes = mistakesOf(`l0: &l0 [x]\n${levels.join('\n')}\nroutes: *l30\n`);
  assert.match(mistakes[0]!, /\*l0 is an alias: wants the value itself/);
});

test('nesting by the ten thousand is refused and does not end the process', () => {
  for (const text of ['['.repeat(50_000), `routes: ${'{a: '.repeat(20_000)}`, '- '.repeat(50_000)]) {
    assert.match(
      mistakesOf(text)[0]!,
      /is not sound YAML: it is nested too deeply: wants YAML 1\.2 in the shape that docs\/routes.md shows$/,
    );
  }
});

test('a file of more than 256 KiB is refused unread', () => {
  assert.deepEqual(mistakesOf(`# ${'x'.repeat(256 * 1024)}`), [
    'routes.yaml: is larger than 256 KiB: wants fewer routes, a wildcard in place of many hosts, say',
  ]);
});

test('a file full of mistakes names the first fifty', () => {
  assert.equal(mistakesOf(`routes:\n${'  - nonsense\n'.repeat(200)}`).length, 50);
});

test('the password of an upstream never reaches the message', () => {
  const [mistake] = mistakesOf(
    'routes:\n  - host: a.example.com\n    upstream: http://admin:hunter2@app:80\n',
  );
  assert.equal(mistake, 'routes.yaml:3:15: has a user name or password: upstreams are given without');
});

const ONE = 'host: a.example.com';
/** Each is the body of one route; the schema and the program agree on every one of them. */
const samples: readonly { good: boolean; routes: string }[] = [
  ...[
    'http://app:80',
    'http://app',
    'http://app/',
    'https://app.internal',
    'h2c://app',
    'grpc://my_app:1',
    'grpcs://a',
  ].map(good),
  ...['tcp://db:5432', 'app:80', '10.0.0.1:80', '"[::1]:80"', 'http://[fd00::1]:8080', 'http://app.:80'].map(
    good,
  ),
  ...['[http://a, http://b]', '[a:1, b:1]', '["tcp://a:1"]', '[grpc://a, grpc://b:50051]'].map(good),
  ...[
    'app',
    'http://',
    'http://app:0',
    'http://app:65536',
    'http://app:080',
    'http://app/x',
    'http://app?x',
    '1.2.3:80',
  ].map(bad),
  ...[
    '256.1.1.1:80',
    'tcp://db',
    'ftp://a',
    'HTTP://a',
    'ws://a',
    'http://a b',
    '""',
    '[]',
    '8080',
    '~',
    '{}',
    'true',
  ].map(bad),
  ...[
    '[http://a, grpc://b]',
    '[a:1, a:1]',
    '[a:1, [b:1]]',
    'http://u:p@a',
    '":80"',
    '"a:"',
    'http://-a',
    '//a:80',
  ].map(bad),
  ...[
    'app.example.com',
    'APP.example.com',
    '"*.example.com"',
    'localhost',
    'xn--mnchen-3ya.example',
    'münchen.example',
    'a.b.',
  ].map(goodHost),
  ...[
    'example',
    '"*"',
    'a.*.example.com',
    '-a.example.com',
    'a_b.example.com',
    'a..b',
    '10.0.0.1',
    'a%2eb.example.com',
    'app.a\\example.com',
    ' app.example.com',
    'https://a.example.com',
  ].map(badHost),
  ...[
    'a.example.com:443',
    '""',
    '80',
    '[a.example.com]',
    `${'a'.repeat(64)}.example.com`,
    '"a.example.com/x"',
  ].map(badHost),
  ...['/', '/v1/', '/a%20b', "/~x/!$&'()*+,;=:@", '/v1'].map((prefix) =>
    goodPaths(`[{prefix: "${prefix}", upstream: "a:1"}]`),
  ),
  ...['', 'v1', '/a b', '/a%2', '/a?b', '/a#b', '/ü', '*'].map((prefix) =>
    badPaths(`[{prefix: "${prefix}", upstream: "a:1"}]`),
  ),
  goodPaths('[{prefix: /, upstream: "tcp://a:1"}]'),
  goodPaths(
    '[{prefix: /, upstream: "a:1", timeouts: {}}, {prefix: /a, upstream: ["a:1"], timeouts: {send: 1s}}]',
  ),
  badPaths('[{prefix: /a, upstream: "tcp://a:1"}]'),
  badPaths('[{prefix: /, upstream: ["tcp://a:1"]}, {prefix: /a, upstream: "a:1"}]'),
  badPaths('[]'),
  badPaths('[{prefix: /}]'),
  badPaths('[{upstream: "a:1"}]'),
  badPaths('[{prefix: /, upstream: "a:1", rewrite: /b}]'),
  badPaths('{prefix: /, upstream: "a:1"}'),
  badPaths('["/"]'),
  ...['{connect: 10s}', '{read: 500ms, send: 5m}', '{connect: 1h, read: 1d, send: 100us}'].map(goodTimeouts),
  ...[
    '{connect: 10}',
    '{connect: "10"}',
    '{connect: 0s}',
    '{connect: ""}',
    '{connect: 1w}',
    '{idle: 1s}',
    '[1s]',
    '1s',
    '{connect: -1s}',
  ].map(badTimeouts),
  goodTimeouts('{total: 5m}'),
  badTimeouts('{total: 300}'),
  ...[
    '{path: /}',
    '{path: "/healthz?deep=1", host: "app.internal:8080"}',
    '{tcp: true}',
    '{tcp: true, interval: 1s, timeout: 100ms, unhealthy: 1, healthy: 100}',
    'false',
  ].map((value) => withHealth(true, 'http://a', value)),
  ...[
    '{}',
    'true',
    '[]',
    '~',
    '"/healthz"',
    '{path: healthz}',
    '{path: "/a b"}',
    '{path: "/a#b"}',
    '{path: /, tcp: true}',
    '{tcp: false}',
    '{tcp: true, host: a}',
    '{path: /, host: "a b"}',
    '{path: /, host: ""}',
    '{path: /, port: 80}',
    '{path: /, interval: 10}',
    '{path: /, timeout: 0s}',
    '{path: /, unhealthy: 0}',
    '{path: /, healthy: "2"}',
    '{path: /, healthy: 1.5}',
    '{path: /, healthy: 101}',
    '{grpc: my.Service}',
  ].map((value) => withHealth(false, 'http://a', value)),
  withHealth(true, 'grpc://a', '{grpc: my.Service}'),
  withHealth(true, 'grpcs://a', '{grpc: ""}'),
  withHealth(true, 'h2c://a', '{grpc: ""}'),
  withHealth(true, 'h2c://a', '{path: /}'),
  withHealth(true, 'tcp://a:1', '{tcp: true}'),
  withHealth(false, 'grpc://a', '{grpc: "my service"}'),
  withHealth(false, 'grpc://a', '{grpc: true}'),
  withHealth(false, 'grpc://a', '{path: /}'),
  withHealth(false, 'tcp://a:1', '{path: /}'),
  withHealth(false, 'tcp://a:1', '{grpc: ""}'),
  goodPaths('[{prefix: /, upstream: "a:1", health: {path: /}}]'),
  badPaths('[{prefix: /, upstream: "a:1", health: {grpc: ""}}]'),
  { good: false, routes: `[{${ONE}}]` },
  { good: false, routes: `[{${ONE}, upstream}]` },
  { good: false, routes: `[{${ONE}, upstream: "a:1", paths: [{prefix: /, upstream: "a:1"}]}]` },
  { good: false, routes: '[{upstream: "a:1"}]' },
  { good: false, routes: `[{${ONE}, upstream: "a:1", Host: b.example.com}]` },
  { good: false, routes: `{${ONE}, upstream: "a:1"}` },
  { good: false, routes: '[]' },
  { good: false, routes: '[null]' },
  { good: false, routes: '[[]]' },
];

function good(upstream: string) {
  return {
    good: true,
    routes: `[{${ONE}, upstream: ${upstream.startsWith('[') ? upstream : quoted(upstream)}}]`,
  };
}
function bad(upstream: string) {
  return {
    good: false,
    routes: `[{${ONE}, upstream: ${/^(\[|""|\d+$|~|\{|true)/.test(upstream) ? upstream : quoted(upstream)}}]`,
  };
}
function goodHost(host: string) {
  return { good: true, routes: `[{host: ${quoted(host)}, upstream: "a:1"}]` };
}
function badHost(host: string) {
  return {
    good: false,
    routes: `[{host: ${/^(\[|""|80$)/.test(host) ? host : quoted(host)}, upstream: "a:1"}]`,
  };
}
function goodPaths(paths: string) {
  return { good: true, routes: `[{${ONE}, paths: ${paths}}]` };
}
function badPaths(paths: string) {
  return { good: false, routes: `[{${ONE}, paths: ${paths}}]` };
}
function goodTimeouts(value: string) {
  return { good: true, routes: `[{${ONE}, upstream: "a:1", timeouts: ${value}}]` };
}
function withHealth(good: boolean, upstream: string, health: string) {
  return { good, routes: `[{${ONE}, upstream: ["${upstream}"], health: ${health}}]` };
}
function badTimeouts(value: string) {
  return { good: false, routes: `[{${ONE}, upstream: "a:1", timeouts: ${value}}]` };
}
function quoted(text: string): string {
  return JSON.stringify(text.replace(/^"(.*)"$/, '$1'));
}

const schema = JSON.parse(
  readFileSync(new URL('../../../../docs/routes.schema.json', import.meta.url), 'utf8'),
);
const fitsSchema = new Ajv({ allErrors: true, strict: true, strictRequired: false }).compile(schema);

test('every mistake of every sample has place, subject and cure', () => {
  for (const { routes } of samples.filter(({ good }) => !good)) {
    try {
      read(`routes: ${routes}\n`);
    } catch (error) {
      assert.ok(error instanceof RoutesFileError);
      for (const { place, subject, cure } of error.mistakes) {
        assert.ok(place.file === 'routes.yaml' && place.line! > 0 && place.column! > 0, routes);
        assert.ok(subject !== '' && cure !== '', routes);
      }
    }
  }
});

test('the published schema and the program agree on every sample', () => {
  for (const { good, routes } of samples) {
    const text = `routes: ${routes}\n`;
    assert.deepEqual(
      [mistakesOf(text), good].map((x) => (Array.isArray(x) ? x.length === 0 : x)),
      [good, good],
      `${text} ${mistakesOf(text)}`,
    );
    assert.equal(fitsSchema(parseYaml(text)), good, `${text} ${JSON.stringify(fitsSchema.errors)}`);
  }
  for (const text of [
    '{}',
    'routes: [{host: a.example.com, upstream: "a:1"}]\nversion: 1',
    '[]',
    '"routes"',
  ]) {
    assert.notEqual(mistakesOf(text).length, 0, text);
    assert.equal(fitsSchema(parseYaml(text)), false, text);
  }
});

test('what a schema cannot say is refused by the program', () => {
  for (const routes of [
    `[{${ONE}, upstream: "a:1"}, {host: A.EXAMPLE.COM., upstream: "a:1"}]`,
    `[{${ONE}, paths: [{prefix: /, upstream: "a:1"}, {prefix: /, upstream: "b:1"}]}]`,
    `[{${ONE}, upstream: ["http://a", "http://A:80"]}]`,
    `[{${ONE}, upstream: "[:::1]:80"}]`,
    `[{${ONE}, upstream: "a:1", timeouts: {read: 25d}}]`,
  ]) {
    const text = `routes: ${routes}\n`;
    assert.equal(fitsSchema(parseYaml(text)), true, text);
    assert.equal(mistakesOf(text).length, 1, text);
  }
});

test('however a file is damaged, it is whole routes or a list of mistakes, and the schema agrees on the shape', () => {
  const whole = `routes:
  - host: app.example.com
    upstream: [http://app:80, http://b]
    timeouts: { read: 5m }
  - host: "*.api.example.com"
    paths:
      - prefix: /v1/
        upstream: grpc://api:50051
`;
  const damage = fc.record({
    at: fc.nat(whole.length),
    length: fc.nat(20),
    instead: fc.oneof(
      fc.constant(''),
      fc.string({ maxLength: 4 }),
      fc.constantFrom('\n', ': ', '- ', '[', '{', '&a ', '*a', '"', '|\n'),
    ),
  });
  fc.assert(
    fc.property(fc.array(damage, { minLength: 1, maxLength: 3 }), (damages) => {
      const text = damages.reduce(
        (was, { at, length, instead }) => was.slice(0, at) + instead + was.slice(at + length),
        whole,
      );
      if (mistakesOf(text).length > 0) return;
      assert.ok(fitsSchema(parseYaml(text)), `${text}\n${JSON.stringify(fitsSchema.errors)}`);
    }),
    { numRuns: 1000 },
  );
});
