// The configuration: what environments mean, and how their mistakes are told.

import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { rootCertificates } from 'node:tls';
import fc from 'fast-check';
import { providerKinds } from '../../../dns/providers/choice.ts';
import { NO_LIMIT } from '../../../proxy/limits.ts';
import { type Config, ConfigError, readConfig } from '../../../src/config/config.ts';
import { describeMistake } from '../../../src/config/mistake.ts';
import { retiredSettings, unsupportedSettings } from '../../../src/config/retired.ts';
import { parseFile, planFromFiles } from '../../../src/config/routing.ts';
import { settings } from '../../../src/config/settings.ts';
import { RoutesFileError } from '../../../src/routes/yaml/file.ts';

const TOKEN = 'v1.0-0123456789abcdef0123456789abcdef01234567';
const base = {
  DOMAIN: 'app.example.com',
  TARGET_ENDPOINT: 'http://app:80',
  GATEWAY_DOMAIN: 'gateway.example.net',
  CLOUDFLARE_API_TOKEN: TOKEN,
};

type Env = Record<string, string | undefined>;

const noFiles = (path: string): string => {
  throw Object.assign(new Error(`no such file: ${path}`), { code: 'ENOENT' });
};
const configOf = (changes: Env = {}, files: Record<string, string> = {}): Config =>
  readConfig({ ...base, ...changes }, (path) => files[path] ?? noFiles(path));

function problemsOf(env: Env, files: Record<string, string> = {}): string[] {
  try {
    readConfig(env, (path) => files[path] ?? noFiles(path));
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    assert.equal(error.code, 'invalid-configuration');
    return error.mistakes.map(describeMistake);
  }
  return [];
}
const mistakesOf = (changes: Env, files: Record<string, string> = {}) =>
  problemsOf({ ...base, ...changes }, files);
const warningsOf = (changes: Env) =>
  configOf(changes).warnings.map(({ variable, warning }) => `${variable}: ${warning}`);

test('five different mistakes are told together, each with its name and what it wants', () => {
  assert.deepEqual(
    problemsOf({
      DOMAIN: 'https://app.example.com',
      TARGET_ENDPOINT: 'app',
      PORT: '70000',
      TIMEOUT_CLIENT: '60',
      CHALLENGE_TYPE: 'http-02',
      GATEWAY_DOMAIN: '_.',
      CLOUDFLARE_API_TOKEN: TOKEN,
    }),
    [
      'DOMAIN: "https://app.example.com" is not a domain name: give the bare name, without scheme, port or path',
      'TARGET_ENDPOINT: "app" has no port: wants host:port',
      'PORT: "70000" is out of range: wants a whole number from 1 to 65535',
      'TIMEOUT_CLIENT: "60" has no unit: write "60s" for seconds or "60ms" for milliseconds',
      'CHALLENGE_TYPE: "http-02" is not one of dns-01, tls-alpn-01, http-01, dns-persist-01: was http-01 meant?',
      'GATEWAY_DOMAIN: "_." is not a DNS name (was DSTACK_GATEWAY_DOMAIN empty?): wants one as in gateway.dstack-prod5.phala.network',
    ],
  );
});

test('collateral is asked for at the usual services, at those named, or nowhere', () => {
  assert.equal(configOf().evidence.pccs, undefined);
  assert.deepEqual(configOf({ PCCS_URL: 'off' }).evidence.pccs, []);
  const two = 'https://a.example/, https://b.example/sgx/certification/v4/';
  assert.deepEqual(configOf({ PCCS_URL: two }).evidence.pccs, two.split(', '));
  assert.deepEqual(problemsOf({ ...base, PCCS_URL: 'http://a.example' }), [
    'PCCS_URL: "http://a.example" is not an https:// URL: wants https://…',
  ]);
});

test('the message of the error holds every mistake', () => {
  assert.throws(() => readConfig({ ...base, PORT: 'x', SET_CAA: 'maybe' }, noFiles), {
    message:
      /^2 settings are wrong:\n {2}PORT: .*\n {2}SET_CAA: "maybe" is neither true nor false: wants one of the two$/,
  });
});

test('reading a configuration opens no connection', (t) => {
  const connect = t.mock.method(Socket.prototype, 'connect', () => assert.fail('a connection was tried'));
  configOf({
    LINODE_API_TOKEN: TOKEN,
    DNS_PROVIDER: 'linode',
    DOH_RESOLVERS: 'https://dns.example/dns-query',
  });
  assert.equal(connect.mock.callCount(), 0);
});

test('a secret never reaches an error, whatever is wrong with it', () => {
  const secret = 'hunter2!hunter2!hunter2!';
  const wrong: Env[] = [
    { ACME_EAB_KID: 'kid', ACME_EAB_HMAC_KEY: secret },
    { TARGET_ENDPOINT: `http://admin:${secret}@app:80` },
    { TARGET_ENDPOINT: `admin:${secret}@app` },
    { ROUTING_MAP: `app.example.com=http://admin:${secret}@app` },
    { ROUTING_MAP: `http://admin:${secret}@app` },
    { DOH_RESOLVERS: `http://admin:${secret}@dns.example` },
    { DOH_RESOLVERS: `admin:${secret}@dns.example` },
    { ACME_DIRECTORY_URL: `https://admin:${secret}@acme.example` },
    { CLOUDFLARE_API_TOKEN: `${secret}\${REST}` },
    { CLOUDFLARE_API_TOKEN: `"${secret}"` },
    { CLOUDFLARE_API_TOKEN: `${secret}\n${secret}` },
    { DOMAIN: `https://admin:${secret}@app.example.com` },
  ];
  for (const env of wrong) {
    const problems = mistakesOf(env);
    assert.notEqual(problems.length, 0, Object.keys(env).join());
    assert.ok(!problems.join().includes('hunter2'), problems.join());
  }
});

test('an empty variable is an unset one', () => {
  const everything = [...settings, ...retiredSettings, ...unsupportedSettings].map(({ name }) => [name, '']);
  const config = configOf({ ...Object.fromEntries(everything), ...base });
  assert.deepEqual(config, configOf());
  assert.equal(configOf({ PORT: '  ' }).listen.port, 443);
});

/** As compose writes it; in pieces, so that it does not look like a template string. */
const placeholder = (inside: string) => `$${`{${inside}}`}`;

test('a placeholder that nothing filled in is a mistake, not a value', () => {
  assert.deepEqual(
    mistakesOf({
      DOMAIN: placeholder('DOMAIN'),
      LOG_LEVEL: `info${placeholder('X:-')}`,
      DNS_PROVIDER: placeholder('DNS_PROVIDER:?'),
    }),
    [
      `DOMAIN: still holds the placeholder "${placeholder('DOMAIN')}": nothing filled it in: set DOMAIN where the compose file is deployed`,
      `DNS_PROVIDER: still holds the placeholder "${placeholder('DNS_PROVIDER')}": nothing filled it in: set DNS_PROVIDER where the compose file is deployed`,
      `LOG_LEVEL: still holds the placeholder "${placeholder('X')}": nothing filled it in: set X where the compose file is deployed`,
    ],
  );
});

test('quotation marks that compose left in the value are pointed out', () => {
  assert.match(
    mistakesOf({ DOMAIN: '"app.example.com"' })[0]!,
    /^DOMAIN: begins and ends with quotation marks/,
  );
});

test('no domain at all is one mistake', () => {
  assert.deepEqual(mistakesOf({ DOMAIN: undefined }), [
    'DOMAIN: no domain is set: wants DOMAIN, DOMAINS, or a ROUTES_FILE that names hosts',
  ]);
});

test('a name that URL parsers would read as another one is refused', () => {
  for (const name of [
    'app.example.com\\.evil.example',
    'app.ex%61mple.com',
    'app.example.com%2f.evil.example',
  ]) {
    assert.match(
      mistakesOf({ DOMAIN: name })[0]!,
      /^DOMAIN: .*characters that no domain name can have\): wants a name as in app\.example\.com$/,
      name,
    );
  }
});

test('every domain needs a way to go', () => {
  assert.deepEqual(mistakesOf({ TARGET_ENDPOINT: undefined }), [
    'TARGET_ENDPOINT: app.example.com has no upstream: wants TARGET_ENDPOINT, or an entry in ROUTING_MAP or the routes file',
  ]);
  assert.deepEqual(
    mistakesOf({
      TARGET_ENDPOINT: undefined,
      DOMAINS: 'api.example.com',
      ROUTING_MAP: 'app.example.com=a:1',
    }),
    [
      'ROUTING_MAP: api.example.com has no upstream: wants TARGET_ENDPOINT, or an entry in ROUTING_MAP or the routes file',
    ],
  );
});

test('a route for a name without a certificate is a mistake', () => {
  assert.deepEqual(mistakesOf({ ROUTING_MAP: 'other.example.com=a:1' }), [
    'ROUTING_MAP: other.example.com has a route, but is not among the domains: wants it in DOMAINS',
  ]);
});

const upstreamsOf = (config: Config) =>
  Object.fromEntries(
    config.routes.flatMap(({ host, paths }) =>
      paths.map(({ prefix, upstream: { protocol, addresses } }) => [
        `${host}${prefix}`,
        `${protocol} ${addresses.map((one) => `${one.host} ${one.port}`).join(', ')}`,
      ]),
    ),
  );

test('DOMAIN, DOMAINS, ROUTING_MAP, TARGET_ENDPOINT and ROUTES_FILE work at once', () => {
  const file = 'routes:\n  - host: files.example.com\n    paths: [{prefix: /a, upstream: "h2c://f"}]\n';
  const config = configOf(
    {
      DOMAINS: 'api.example.com\n  *.example.net , app.example.com # the first again\n',
      ROUTING_MAP:
        '# ours\napi.example.com=grpc://api:50051\n\nx.example.net = x:1,\n*.example.net=https://all\n',
      ROUTES_FILE: '/config/routes.yaml',
    },
    { '/config/routes.yaml': file },
  );
  assert.deepEqual(config.domains, [
    'app.example.com',
    'api.example.com',
    '*.example.net',
    'files.example.com',
  ]);
  assert.deepEqual(upstreamsOf(config), {
    'app.example.com/': 'http app 80',
    'api.example.com/': 'grpc api 50051',
    'x.example.net/': 'auto x 1',
    '*.example.net/': 'https all 443',
    'files.example.com/a': 'h2c f 80',
  });
  assert.deepEqual(config.routesFile, { path: '/config/routes.yaml', text: file });
});

test('a wildcard and its base share a certificate, all others have their own', () => {
  const { certificates } = configOf({
    DOMAINS: '*.example.com, a.example.com, example.com, *.a.example.com, example.net',
    DOMAIN: undefined,
  });
  assert.deepEqual(certificates, [
    ['*.example.com', 'example.com'],
    ['a.example.com', '*.a.example.com'],
    ['example.net'],
  ]);
});

test('an alias shares the certificate of its domain, and its route wherever that is written', () => {
  const env = { DOMAIN: 'app.example.com', ALIAS_DOMAIN: 'www.example.org', DOMAINS: 'other.example.com' };
  const config = configOf(env);
  assert.deepEqual(config.domains, ['app.example.com', 'www.example.org', 'other.example.com']);
  assert.deepEqual(config.certificates, [['app.example.com', 'www.example.org'], ['other.example.com']]);

  const mapped = configOf({ ...env, ROUTING_MAP: 'app.example.com=http://mapped:1' });
  assert.equal(upstreamsOf(mapped)['www.example.org/'], 'http mapped 1');
  const own = configOf({ ...env, ROUTING_MAP: 'app.example.com=a:1,www.example.org=http://own:2' });
  assert.equal(upstreamsOf(own)['www.example.org/'], 'http own 2');
  const file = 'routes:\n  - {host: "*.example.com", paths: [{prefix: /a, upstream: "http://f:3"}]}\n';
  const filed = configOf({ ...env, TARGET_ENDPOINT: undefined, ROUTES_FILE: 'r' }, { r: file });
  assert.equal(upstreamsOf(filed)['www.example.org/a'], 'http f 3');
});

test('an alias brings what shares its own certificate along, and is not named beside a wildcard that covers it', () => {
  const certificatesOf = (env: Env) => configOf(env).certificates;
  assert.deepEqual(
    certificatesOf({ DOMAIN: 'a.example.com', ALIAS_DOMAIN: 'example.org', DOMAINS: '*.example.org' }),
    [['a.example.com', 'example.org', '*.example.org']],
  );
  assert.deepEqual(
    certificatesOf({ DOMAIN: 'example.com', ALIAS_DOMAIN: 'www.example.com', DOMAINS: '*.example.com' }),
    [['example.com', '*.example.com']],
  );
  assert.deepEqual(certificatesOf({ DOMAIN: 'example.com', ALIAS_DOMAIN: 'example.com' }), [['example.com']]);
});

test('an alias of nothing stops the start', () => {
  assert.deepEqual(
    mistakesOf({ DOMAIN: undefined, DOMAINS: 'a.example.com', ALIAS_DOMAIN: 'b.example.com' }),
    [
      'ALIAS_DOMAIN: is set without DOMAIN, whose certificate and route it would share: wants DOMAIN set as well',
    ],
  );
  assert.match(mistakesOf({ ALIAS_DOMAIN: 'a.example.com,b.example.com' })[0]!, /more than one domain/);
});

test('a host of the routes file under a listed wildcard is served with the certificate of the wildcard', () => {
  const file =
    'routes:\n  - {host: a.example.com, upstream: "a:1"}\n  - {host: "*.example.net", upstream: "n:1"}\n  - {host: b.example.net, upstream: "b:1"}\n';
  const config = configOf({ DOMAIN: '*.example.com', ROUTES_FILE: 'r' }, { r: file });
  assert.deepEqual(config.domains, ['*.example.com', '*.example.net']);
});

test('a host in ROUTING_MAP and in the routes file is ambiguous', () => {
  const file = 'routes:\n  - {host: app.example.com, upstream: "a:1"}\n';
  assert.deepEqual(mistakesOf({ ROUTING_MAP: 'app.example.com=b:1', ROUTES_FILE: 'r' }, { r: file }), [
    'ROUTING_MAP: app.example.com is in ROUTING_MAP and in the routes file: wants one of them',
  ]);
});

test('mistakes in the routes file are told with the others, and a missing file too', () => {
  const file = 'routes:\n  - host: a\n    upstream: b:1\n  - host: b.example.com\n';
  assert.deepEqual(mistakesOf({ ROUTES_FILE: 'r.yaml', PORT: '0' }, { 'r.yaml': file }), [
    `ROUTES_FILE: ${resolve('r.yaml')}:2:11: "a" is not a domain name (it has only one label): wants a name as in app.example.com`,
    `ROUTES_FILE: ${resolve('r.yaml')}:4:5: this route has neither "upstream" nor "paths": wants one of them`,
    'PORT: "0" is out of range: wants a whole number from 1 to 65535',
  ]);
  assert.deepEqual(mistakesOf({ ROUTES_FILE: '/none' }), [
    'ROUTES_FILE: "/none" cannot be read: ENOENT: there is nothing of that name, is it mounted?',
  ]);
});

test('a routes file read again is joined with the environment under the same rules', () => {
  const path = '/config/routes.yaml';
  const text = (host: string) => `routes:\n  - {host: ${host}, upstream: "a:1"}\n`;
  const config = configOf(
    { ROUTES_FILE: path, TARGET_ENDPOINT: undefined },
    { [path]: text('app.example.com') },
  );
  const again = (changed: string) =>
    planFromFiles(
      config.fixedRouting,
      path,
      parseFile({ ...config.routesFile!, text: changed }, config.routesFileOptions),
      config.nginx?.first,
    );
  const plan = again(`${text('app.example.com')}  - {host: b.example.com, upstream: "b:1"}\n`);
  assert.deepEqual(plan.domains, ['app.example.com', 'b.example.com']);
  assert.throws(
    () => again(text('b.example.com')),
    (error) =>
      error instanceof RoutesFileError &&
      /^\/config\/routes\.yaml: app\.example\.com has no upstream/.test(error.message),
  );
});

test('every mistake in a list of domains or routes is told', () => {
  assert.deepEqual(
    mistakesOf({
      DOMAIN: 'a.example.com, b.example.com',
      DOMAINS: 'x y.example.com',
      ROUTING_MAP:
        'y.example.com\nz.example.com=\n=a:1\nnope=a:1\ny.example.com=ftp://a\napp.example.com=a:1\napp.example.com=a:2',
    }),
    [
      'DOMAIN: "a.example.com, b.example.com" is more than one domain: wants them in DOMAINS',
      'DOMAINS: "x" is not a domain name (it has only one label): wants a name as in app.example.com',
      'ROUTING_MAP: "y.example.com" is not an entry: wants domain=upstream, as in app.example.com=app:80',
      'ROUTING_MAP: "z.example.com=" is not an entry: wants domain=upstream, as in app.example.com=app:80',
      'ROUTING_MAP: "=a:1" is not an entry: wants domain=upstream, as in app.example.com=app:80',
      'ROUTING_MAP: "nope" is not a domain name (it has only one label): wants a name as in app.example.com',
      'ROUTING_MAP: the upstream of y.example.com: "ftp://" is not an upstream scheme: wants http://, https://, h2c://, grpc://, grpcs://, tcp:// or host:port',
      'ROUTING_MAP: app.example.com has two entries: wants one',
    ],
  );
});

test('what can be written into TARGET_ENDPOINT', () => {
  const target = (text: string, more: Env = {}) =>
    upstreamsOf(configOf({ TARGET_ENDPOINT: text, ...more }))['app.example.com/'];
  assert.equal(target('http://app'), 'http app 80');
  assert.equal(target('http://app:8080/'), 'http app 8080');
  assert.equal(target('https://App.Internal'), 'https app.internal 443');
  assert.equal(target('grpc://my_app'), 'grpc my_app 80');
  assert.equal(target('grpcs://app'), 'grpcs app 443');
  assert.equal(target('h2c://app'), 'h2c app 80');
  assert.equal(target('tcp://db:5432'), 'tcp db 5432');
  assert.equal(target('app:80'), 'auto app 80');
  assert.equal(target('[fd00::1]:80'), 'auto fd00::1 80');
  assert.equal(target('http://[FD00::1]'), 'http fd00::1 80');
  assert.equal(target('http://10.0.0.1'), 'http 10.0.0.1 80');
  assert.equal(target('app:80', { ALPN: 'h2' }), 'h2c app 80', 'with h2 alone, 2.x sent HTTP/2 to the app');
  assert.equal(target('app:80', { ALPN: 'h2,http/1.1' }), 'auto app 80');
});

test('an upstream that would not get what its writer meant is refused with the reason', () => {
  const refusals: Record<string, RegExp> = {
    app: /has no port: wants host:port/,
    'tcp://db': /has no port/,
    'http://app:80/api': /has a path: requests keep the path they came with, so wants http:\/\/host:port/,
    'http://app?x=1': /has a path/,
    'http://': /has no host/,
    ':80': /is not a host name/,
    'http://app:': /is not a number: wants a whole number from 1 to 65535/,
    'http://app:080': /"080" is out of range: wants a whole number from 1 to 65535, without a zero in front/,
    'htp://app': /"htp:\/\/" is not an upstream scheme: wants http:\/\/.*\(was http:\/\/ meant\?\)$/,
    'ws://app': /WebSockets go through http:\/\//,
    'wss://app': /WebSockets go through https:\/\//,
    'http://fd00::1': /an IPv6 address needs brackets/,
    '[fd00::g]:1': /"\[fd00::g\]" is not an IPv6 address/,
    '300.1.1.1:80': /"300.1.1.1" is not an IPv4 address/,
    'http://user:pw@app': /has a user name or password/,
    'app name:80': /"app name" is not a host name/,
    'http://app;rm -rf': /is not a host name/,
  };
  for (const [text, reason] of Object.entries(refusals)) {
    const problems = mistakesOf({ TARGET_ENDPOINT: text });
    assert.equal(problems.length, 1, text);
    assert.match(problems[0]!, reason, text);
  }
});

test('times are read as the image that named them read them', () => {
  const timeoutsOf = (env: Env) => configOf(env).fixedRouting.timeouts;
  assert.deepEqual(timeoutsOf({}), {
    connectTimeoutMs: 10_000,
    readTimeoutMs: 86_400_000,
    sendTimeoutMs: 86_400_000,
  });
  assert.deepEqual(
    timeoutsOf({ PROXY_CONNECT_TIMEOUT: '5', PROXY_READ_TIMEOUT: '900s', PROXY_SEND_TIMEOUT: '2m' }),
    { connectTimeoutMs: 5000, readTimeoutMs: 900_000, sendTimeoutMs: 120_000 },
  );
  assert.deepEqual(timeoutsOf({ TIMEOUT_CONNECT: '500ms', TIMEOUT_SERVER: '1h' }), {
    connectTimeoutMs: 500,
    readTimeoutMs: 3_600_000,
    sendTimeoutMs: 3_600_000,
  });
  assert.equal(configOf({ TIMEOUT_CLIENT: '1d' }).listen.limits.clientIdleTimeoutMs, 86_400_000);
  assert.equal(configOf({ TIMEOUT_CLIENT: '1us' }).listen.limits.clientIdleTimeoutMs, 1);
  assert.equal(configOf({ RENEW_INTERVAL: '3600' }).acme.renewIntervalMs, 3_600_000);
  assert.equal(configOf({ DNS_SETTLE_SECONDS: '0' }).dns.settleMs, 0);
});

test('a time without a unit, of no length, or longer than a timer can carry is refused', () => {
  for (const value of [
    '10',
    '0s',
    '0',
    '25d',
    '99999999999h',
    '-1s',
    '1.5s',
    '1 s',
    '10S',
    '1w',
    's',
    'none',
  ]) {
    assert.equal(mistakesOf({ TIMEOUT_SERVER: value }).length, 1, value);
  }
  for (const value of ['0', '10d1', '1h30m', '']) {
    assert.equal(mistakesOf({ PROXY_READ_TIMEOUT: value }).length, value === '' ? 0 : 1, value);
  }
  assert.equal(mistakesOf({ RENEW_INTERVAL: '0' }).length, 1);
});

test('where the names of both images are set and differ, the newer name counts and a warning says so', () => {
  const env = {
    TIMEOUT_SERVER: '10m',
    PROXY_READ_TIMEOUT: '60s',
    TIMEOUT_CONNECT: '1s',
    PROXY_CONNECT_TIMEOUT: '2s',
    ACME_EMAIL: 'a@example.org',
    CERTBOT_EMAIL: 'b@example.org',
  };
  assert.equal(configOf(env).fixedRouting.timeouts.readTimeoutMs, 600_000);
  assert.equal(configOf(env).fixedRouting.timeouts.connectTimeoutMs, 1000);
  assert.equal(configOf(env).acme.email, 'a@example.org');
  assert.deepEqual(warningsOf(env), [
    'PROXY_READ_TIMEOUT: is not used: TIMEOUT_SERVER is set and differs',
    'PROXY_CONNECT_TIMEOUT: is not used: TIMEOUT_CONNECT is set and differs',
    'CERTBOT_EMAIL: is not used: ACME_EMAIL is set and differs',
  ]);
});

test('sizes are read as nginx reads them, and zero is no limit', () => {
  const bodyOf = (value: string) => configOf({ CLIENT_MAX_BODY_SIZE: value }).listen.limits.maxBodyBytes;
  assert.equal(bodyOf('100m'), 104_857_600);
  assert.equal(bodyOf('8K'), 8192);
  assert.equal(bodyOf('1g'), 1_073_741_824);
  assert.equal(bodyOf('1000'), 1000);
  assert.equal(bodyOf('0'), NO_LIMIT);
  assert.equal(configOf().listen.limits.maxBodyBytes, NO_LIMIT);
  for (const value of ['10mb', '-1', '1.5m', 'unlimited', '10 m']) {
    assert.equal(mistakesOf({ CLIENT_MAX_BODY_SIZE: value }).length, 1, value);
  }
  const headerOf = (env: Env) => configOf(env).listen.limits.maxHeaderBytes;
  assert.equal(headerOf({ PROXY_BUFFER_SIZE: '128k' }), 131_072);
  assert.equal(headerOf({ PROXY_BUFFER_SIZE: '4k' }), 65_536, "nginx's small buffer is no strict limit");
  assert.equal(headerOf({ MAX_HEADER_SIZE: '4k' }), 4096);
  assert.equal(mistakesOf({ MAX_HEADER_SIZE: '1g' }).length, 1);
});

test('switches take the words people use, and nothing else', () => {
  for (const word of ['true', 'TRUE', 'yes', 'on', '1'])
    assert.equal(configOf({ SET_CAA: word }).dns.setCaa, true, word);
  for (const word of ['false', 'no', 'Off', '0'])
    assert.equal(configOf({ EVIDENCE_SERVER: word }).evidence.serve, false, word);
  for (const word of ['maybe', 'truee', '2'])
    assert.equal(mistakesOf({ ACME_STAGING: word }).length, 1, word);
});

test("the staging directory is Let's Encrypt's, under either name, and does not mix with another", () => {
  const staging = 'https://acme-staging-v02.api.letsencrypt.org/directory';
  assert.equal(configOf({ CERTBOT_STAGING: 'true' }).acme.directoryUrl, staging);
  assert.equal(configOf({ ACME_STAGING: 'true', ACME_DIRECTORY_URL: staging }).acme.directoryUrl, staging);
  assert.equal(
    configOf({ ACME_STAGING: 'false' }).acme.directoryUrl,
    'https://acme-v02.api.letsencrypt.org/directory',
  );
  assert.deepEqual(mistakesOf({ ACME_STAGING: 'true', ACME_DIRECTORY_URL: 'https://ca.example/dir' }), [
    'ACME_STAGING: ACME_DIRECTORY_URL names another directory: wants one of the two unset',
  ]);
  assert.equal(mistakesOf({ ACME_DIRECTORY_URL: 'http://ca.example/dir' }).length, 1);
});

test('an external account binding is whole or absent', () => {
  assert.deepEqual(mistakesOf({ ACME_EAB_KID: 'kid' }), [
    'ACME_EAB_HMAC_KEY: is not set, but ACME_EAB_KID is: the CA gave you both: wants both or neither',
  ]);
  assert.deepEqual(mistakesOf({ ACME_EAB_HMAC_KEY: 'a'.repeat(43) }), [
    'ACME_EAB_KID: is not set, but ACME_EAB_HMAC_KEY is: the CA gave you both: wants both or neither',
  ]);
  assert.deepEqual(configOf({ ACME_EAB_KID: 'kid', ACME_EAB_HMAC_KEY: `${'a'.repeat(42)}+=` }).acme.eab, {
    kid: 'kid',
    hmacKey: `${'a'.repeat(42)}-`,
  });
});

test('roots are read from the file named, and anything but certificates is refused', () => {
  const pem = rootCertificates[0]!;
  assert.equal(configOf({ ACME_CA_FILE: '/ca.pem' }, { '/ca.pem': pem }).acme.ca, pem);
  assert.equal(configOf({ UPSTREAM_CA_FILE: '/ca.pem' }, { '/ca.pem': pem }).upstreamCa, pem);
  for (const text of ['', 'hello', pem.replace('M', '*'), pem.slice(0, 200)]) {
    assert.deepEqual(mistakesOf({ ACME_CA_FILE: '/ca.pem' }, { '/ca.pem': text }), [
      'ACME_CA_FILE: "/ca.pem" does not hold certificates: wants a PEM file of roots',
    ]);
  }
  assert.deepEqual(mistakesOf({ ACME_CA_FILE: '/none' }), [
    'ACME_CA_FILE: "/none" cannot be read: ENOENT: there is nothing of that name, is it mounted?',
  ]);
});

test('dns-01 needs a provider with its credentials, found by name or by what is set', () => {
  const without = { ...base, CLOUDFLARE_API_TOKEN: undefined };
  assert.match(
    problemsOf(without)[0]!,
    /^DNS_PROVIDER: dns-01 needs a DNS provider: wants one of cloudflare, linode/,
  );
  assert.match(
    problemsOf({ ...without, DNS_PROVIDER: 'cloudflare' })[0]!,
    /^CLOUDFLARE_API_TOKEN: DNS_PROVIDER=cloudflare needs it/,
  );
  assert.match(
    problemsOf({ ...without, DNS_PROVIDER: 'nonesuch' })[0]!,
    /^DNS_PROVIDER: "nonesuch" is not one of cloudflare, linode/,
  );
  assert.match(
    mistakesOf({ LINODE_API_TOKEN: TOKEN })[0]!,
    /^DNS_PROVIDER: credentials of several providers are set/,
  );
  assert.equal(
    configOf({ LINODE_API_TOKEN: TOKEN, DNS_PROVIDER: 'Linode' }).dns.provider?.kind.name,
    'linode',
  );
  assert.equal(configOf().dns.provider?.credentials.CLOUDFLARE_API_TOKEN, TOKEN);
  assert.equal(problemsOf({ ...without, CLOUDFLARE_API_TOKEN: placeholder('TOKEN') }).length, 1, 'told once');
});

test('records that are written or awaited need the gateway, printed ones do not', () => {
  assert.match(mistakesOf({ GATEWAY_DOMAIN: '' })[0]!, /^GATEWAY_DOMAIN: is not set/);
  assert.match(
    mistakesOf({ GATEWAY_DOMAIN: '', CHALLENGE_TYPE: 'tls-alpn-01' })[0]!,
    /^GATEWAY_DOMAIN: is not set/,
  );
  assert.deepEqual(mistakesOf({ GATEWAY_DOMAIN: '', DNS_SETUP_MODE: 'print' }), []);
  for (const bad of [
    'https://gw.example',
    'gw',
    'gw..example',
    '10.0.0.1',
    '-gw.example',
    'gw.example:443',
  ]) {
    assert.equal(mistakesOf({ GATEWAY_DOMAIN: bad }).length, 1, bad);
  }
  assert.equal(
    configOf({ GATEWAY_DOMAIN: '_.Dstack-Prod5.phala.network.' }).dns.gatewayDomain,
    '_.dstack-prod5.phala.network',
  );
});

test('a gateway under an underscore works, and is warned of with the name that works everywhere', () => {
  assert.deepEqual(warningsOf({ GATEWAY_DOMAIN: '_.gw.example.net' }), [
    'GATEWAY_DOMAIN: "_.gw.example.net": Android and some DNS providers refuse an alias to a name with an underscore, use "gateway.gw.example.net"',
  ]);
  assert.deepEqual(warningsOf({}), []);
});

test('tls-alpn-01 needs no credentials and cannot do wildcards', () => {
  const env = { ...base, CHALLENGE_TYPE: 'tls-alpn-01', CLOUDFLARE_API_TOKEN: undefined };
  const config = readConfig(env, noFiles);
  assert.equal(config.dns.provider, undefined);
  assert.equal(config.dns.recordsMode, 'wait');
  assert.deepEqual(problemsOf({ ...env, DOMAINS: '*.example.com' }), [
    'CHALLENGE_TYPE: tls-alpn-01 cannot get a certificate for *.example.com: wants dns-01, or the single names',
  ]);
  assert.match(
    problemsOf({ ...env, DNS_SETUP_MODE: 'auto' })[0]!,
    /^DNS_PROVIDER: DNS_SETUP_MODE=auto needs a DNS provider/,
  );
  assert.match(
    warningsOf({ CHALLENGE_TYPE: 'tls-alpn-01' })[0]!,
    /^DNS_PROVIDER: credentials are set but not used/,
  );
  assert.equal(
    configOf({ CHALLENGE_TYPE: 'tls-alpn-01', DNS_SETUP_MODE: 'auto' }).dns.provider?.kind.name,
    'cloudflare',
  );
});

test('http-01 needs a port of its own for plain HTTP, and cannot do wildcards', () => {
  const env = { ...base, CHALLENGE_TYPE: 'http-01', CLOUDFLARE_API_TOKEN: undefined };
  const config = readConfig({ ...env, HTTP_PORT: '80' }, noFiles);
  assert.deepEqual(
    [config.listen.httpPort, config.dns.provider, config.dns.recordsMode],
    [80, undefined, 'wait'],
  );
  assert.match(problemsOf(env)[0]!, /^HTTP_PORT: is not set, but CHALLENGE_TYPE=http-01 needs it/);
  assert.deepEqual(problemsOf({ ...env, HTTP_PORT: '443' }), [
    'HTTP_PORT: is 443, and so is PORT: wants another',
  ]);
  assert.match(
    problemsOf({ ...env, HTTP_PORT: '80', DOMAINS: '*.example.com' })[0]!,
    /^CHALLENGE_TYPE: http-01 cannot get a certificate for \*\.example\.com/,
  );
});

test('dns-persist-01 is called a draft, needs no credentials, and can do wildcards', () => {
  const env = { ...base, CHALLENGE_TYPE: 'dns-persist-01', CLOUDFLARE_API_TOKEN: undefined };
  const config = readConfig({ ...env, DOMAINS: '*.example.com' }, noFiles);
  assert.deepEqual([config.dns.recordsMode, config.dns.provider], ['wait', undefined]);
  assert.match(config.warnings.map(({ warning }) => warning).join(), /dns-persist-01 is a draft/);
  assert.match(
    mistakesOf({ CHALLENGE_TYPE: 'dns-persist-01', DELEGATION_ZONE: 'deleg.example.net' }).join(),
    /DELEGATION_ZONE: does not go with dns-persist-01/,
  );
  assert.match(
    problemsOf({ ...env, DNS_SETUP_MODE: 'print', GATEWAY_DOMAIN: '' })[0]!,
    /^GATEWAY_DOMAIN: is not set/,
  );
});

test('without HTTP_PORT plain HTTP is not listened for', () => {
  assert.equal(configOf({}).listen.httpPort, undefined);
  assert.equal(configOf({ HTTP_PORT: '8080' }).listen.httpPort, 8080);
});

test('a delegation zone is written with CAA, and its aliases are awaited unless said otherwise, under either name', () => {
  for (const name of ['DELEGATION_ZONE', 'ACME_CHALLENGE_ALIAS']) {
    const { delegationZone, recordsMode, setCaa, provider } = configOf({ [name]: 'Deleg.example.net.' }).dns;
    assert.deepEqual([delegationZone, recordsMode, setCaa], ['deleg.example.net', 'wait', true]);
    assert.equal(provider?.kind.name, 'cloudflare');
  }
  const zone = { DELEGATION_ZONE: 'deleg.example.net' };
  assert.equal(configOf({ ...zone, DNS_SETUP_MODE: 'print' }).dns.recordsMode, 'print');
  assert.match(mistakesOf({ ...zone, DNS_SETUP_MODE: 'auto' })[0]!, /^DNS_SETUP_MODE: auto does not go with/);
  assert.match(mistakesOf({ ...zone, DNS_SETUP_MODE: 'print', GATEWAY_DOMAIN: '' })[0]!, /^GATEWAY_DOMAIN: /);
  assert.match(warningsOf({ ...zone, SET_CAA: 'false' })[0]!, /^SET_CAA: is off/);
  const without = { ...base, ...zone, CLOUDFLARE_API_TOKEN: undefined, CHALLENGE_TYPE: 'tls-alpn-01' };
  assert.match(problemsOf(without)[0]!, /^DNS_PROVIDER: DELEGATION_ZONE needs a DNS provider/);
  for (const bad of ['net', 'a..example.net', 'https://a.example.net', '10.0.0.1', '-a.example.net']) {
    assert.equal(mistakesOf({ DELEGATION_ZONE: bad }).length, 1, bad);
  }
});

test('a webhook needs its address, which is not told again, and says when it is not used', () => {
  const hook = { DNS_SETUP_MODE: 'webhook', CHALLENGE_TYPE: 'tls-alpn-01', CLOUDFLARE_API_TOKEN: '' };
  assert.match(mistakesOf(hook)[0]!, /^DNS_WEBHOOK_URL: is not set/);
  const whole = { ...hook, DNS_WEBHOOK_URL: 'http://hook:8080/records', DNS_WEBHOOK_TOKEN: 'shared' };
  assert.deepEqual(configOf(whole).dns.webhook, { url: 'http://hook:8080/records', token: 'shared' });
  assert.equal(configOf({ ...whole, DNS_WEBHOOK_TOKEN: '' }).dns.webhook?.token, undefined);
  for (const bad of ['ftp://hook/s3cret', 's3cret', 'https://me:s3cret@hook/']) {
    const [problem, ...more] = mistakesOf({ ...whole, DNS_WEBHOOK_URL: bad });
    assert.match(problem!, /^DNS_WEBHOOK_URL: /);
    assert.doesNotMatch(problem!, /s3cret/);
    assert.deepEqual(more, []);
  }
  assert.match(warningsOf({ DNS_WEBHOOK_URL: 'https://hook/' })[0]!, /^DNS_WEBHOOK_URL: does nothing/);
});

test('a start that needs more than its provider can hold is refused', () => {
  const env = { CLOUDFLARE_API_TOKEN: undefined };
  const plain = { ...env, DO_AUTH_TOKEN: TOKEN };
  assert.match(mistakesOf({ ...plain, SET_CAA: 'true' })[0]!, /^SET_CAA: digitalocean cannot hold/);
  assert.match(mistakesOf({ ...plain, DELEGATION_ZONE: 'deleg.example.net' })[0]!, /^SET_CAA: digitalocean/);
  assert.deepEqual(mistakesOf(plain), []);
  assert.deepEqual(mistakesOf({ ...plain, SET_CAA: 'true', DNS_SETUP_MODE: 'wait' }), []);
  const challenges = { ...env, HTTPREQ_ENDPOINT: 'https://hook.example/' };
  const [problem, ...more] = mistakesOf(challenges);
  assert.match(problem!, /^DNS_SETUP_MODE: httpreq can write challenges only/);
  assert.deepEqual(more, []);
  assert.match(
    mistakesOf({ ...challenges, DELEGATION_ZONE: 'deleg.example.net' })[0]!,
    /^DELEGATION_ZONE: httpreq can write challenges only/,
  );
  assert.deepEqual(mistakesOf({ ...challenges, DNS_SETUP_MODE: 'wait' }), []);
});

test('what would have silently changed where records or certificates go stops the start', () => {
  for (const [name, value] of [['DETERMINISTIC_TLS_KEY', 'true']] as const) {
    const problems = mistakesOf({ [name]: value });
    assert.equal(problems.length, 1, name);
    assert.match(problems[0]!, new RegExp(`^${name}: .*not supported`), name);
  }
  assert.deepEqual(mistakesOf({ DETERMINISTIC_TLS_KEY: 'false' }), []);
});

test('a weight of Route 53 goes without CAA, which cannot stand beside an alias', () => {
  const route53 = { DNS_PROVIDER: 'route53', AWS_ACCESS_KEY_ID: 'AKID', AWS_SECRET_ACCESS_KEY: 'secret' };
  const weighted = { ...route53, ROUTE53_INITIAL_WEIGHT: '100', SET_CAA: 'false' };
  assert.equal(configOf(weighted).dns.provider?.credentials.ROUTE53_INITIAL_WEIGHT, '100');
  assert.match(
    mistakesOf({ ...weighted, SET_CAA: 'true' })[0]!,
    /^SET_CAA: route53 takes no CAA beside an alias/,
  );
  assert.match(
    mistakesOf({ ...weighted, ROUTE53_INITIAL_WEIGHT: '300' })[0]!,
    /^ROUTE53_INITIAL_WEIGHT: "300" is no weight/,
  );
});

test('upstreams of the environment are announced to where that is asked for, and nowhere else', () => {
  const announced = (env: Env) =>
    configOf(env).routes.flatMap(({ paths }) => paths.map(({ upstream }) => upstream.announced));
  const both = { DOMAINS: 'api.example.com', ROUTING_MAP: 'api.example.com=tcp://api:1' };
  assert.deepEqual(announced({ ...both, SEND_PROXY_PROTOCOL: 'true' }), [true, true]);
  for (const env of [both, { ...both, SEND_PROXY_PROTOCOL: 'false' }])
    assert.deepEqual(announced(env), [undefined, undefined]);
  assert.deepEqual(mistakesOf({ SEND_PROXY_PROTOCOL: 'true', TARGET_ENDPOINT: 'https://app' }), [
    'TARGET_ENDPOINT: "https://app" would get a PROXY header in front of TLS: wants an upstream without TLS, or SEND_PROXY_PROTOCOL=false',
  ]);
  assert.deepEqual(
    mistakesOf(
      { SEND_PROXY_PROTOCOL: 'true', ROUTES_FILE: '/r.yaml' },
      { '/r.yaml': 'routes: [{ host: more.example.com, upstream: http://more }]' },
    ),
    [
      'SEND_PROXY_PROTOCOL: is for TARGET_ENDPOINT and ROUTING_MAP, and there is a routes file beside them: wants all upstreams in ROUTING_MAP, or apps that read X-Forwarded-For',
    ],
  );
});

test('a setting that no longer does anything is named in a warning', () => {
  for (const { name } of retiredSettings) {
    const [warning, ...more] = warningsOf({ [name]: '1' });
    assert.match(warning ?? '', new RegExp(`^${name}: no longer does anything: `));
    assert.deepEqual(more, []);
  }
});

test('a wrong value that is near a right one is told which', () => {
  assert.deepEqual(
    mistakesOf({
      DNS_PROVIDER: 'cloudfare',
      LOG_LEVEL: 'inof',
      SET_CAA: 'ture',
      TARGET_ENDPOINT: 'htps://app',
    })
      .map((text) => text.slice(text.lastIndexOf('was ')))
      .sort(),
    ['was cloudflare meant?', 'was https:// meant?)', 'was info meant?', 'was true meant?)'].sort(),
  );
});

test('a misspelt setting is named beside the mistake that it makes, and its value is not', () => {
  assert.throws(() => readConfig({ ...base, DOMAIN: undefined, DOMIAN: 'app.example.com' }, noFiles), {
    message:
      /^a setting is wrong:\n {2}DOMAIN: no domain is set: .*\nlook at this too:\n {2}DOMIAN: is not a setting: was DOMAIN meant\?$/,
  });
  const { CLOUDFLARE_API_TOKEN: _, ...others } = base;
  assert.throws(
    () => readConfig({ ...others, CLOUDFLARE_TOKEN: TOKEN }, noFiles),
    (error: Error) => {
      assert.match(
        error.message,
        /^ {2}CLOUDFLARE_TOKEN: is not a setting: was CLOUDFLARE_API_TOKEN meant\?$/m,
      );
      assert.ok(!error.message.includes(TOKEN));
      return true;
    },
  );
  assert.deepEqual(warningsOf({ TARGET_ENDPOIN: 'x', CLOUDFLARE_KEY: 'x', API_TOKEN: 'x', APP_PORT: '1' }), [
    'TARGET_ENDPOIN: is not a setting: was TARGET_ENDPOINT meant?',
    'CLOUDFLARE_KEY: is not a setting: was CLOUDFLARE_API_TOKEN meant?',
  ]);
});

test('a misspelt setting is named with what was meant, and variables of other programs are left alone', () => {
  assert.deepEqual(warningsOf({ TARGET_ENDPONT: 'x', DOMIAN: 'x', SETCAA: 'x', CLOUDFLARE_API_TOKNE: 'x' }), [
    'TARGET_ENDPONT: is not a setting: was TARGET_ENDPOINT meant?',
    'DOMIAN: is not a setting: was DOMAIN meant?',
    'SETCAA: is not a setting: was SET_CAA meant?',
    'CLOUDFLARE_API_TOKNE: is not a setting: was CLOUDFLARE_API_TOKEN meant?',
  ]);
  const ordinary = [
    'PATH',
    'HOME',
    'HOSTNAME',
    'NODE_VERSION',
    'YARN_VERSION',
    'TERM',
    'SHLVL',
    'PWD',
    'LANG',
    'TZ',
    'NODE_OPTIONS',
    'SSL_CERT_FILE',
    'DSTACK_APP_ID',
    'DSTACK_GATEWAY_DOMAIN',
    'DSTACK_APP_DOMAIN',
    'HTTPS_PROXY',
    'NO_PROXY',
    'USER',
    'LOGNAME',
    'MAIL',
    'OLDPWD',
    'POSTGRES_PASSWORD',
    'REDIS_PORT',
    'HOST',
    'npm_config_cache',
  ];
  assert.deepEqual(warningsOf(Object.fromEntries(ordinary.map((name) => [name, 'x']))), []);
});

test('the PROXY header is believed of private networks unless said otherwise, and of nobody when off', () => {
  assert.deepEqual(configOf().listen.trustedProxies, []);
  assert.ok(configOf({ ACCEPT_PROXY_PROTOCOL: 'true' }).listen.trustedProxies.includes('10.0.0.0/8'));
  assert.deepEqual(
    configOf({ PROXY_PROTOCOL: 'on', TRUSTED_PROXIES: '10.1.0.0/16, 192.0.2.1 2001:DB8::/32' }).listen
      .trustedProxies,
    ['10.1.0.0/16', '192.0.2.1/32', '2001:db8::/32'],
  );
  assert.deepEqual(configOf({ PROXY_PROTOCOL: 'on', TRUSTED_PROXIES: 'any' }).listen.trustedProxies, [
    '0.0.0.0/0',
    '::/0',
  ]);
  for (const bad of ['10/8', '10.0.0.0/33', 'gateway', '10.0.0.0/8/8', '0x0a.0.0.0/8', ',']) {
    assert.equal(mistakesOf({ PROXY_PROTOCOL: 'on', TRUSTED_PROXIES: bad }).length, 1, bad);
  }
  assert.match(warningsOf({ TRUSTED_PROXIES: 'any' })[0]!, /does nothing/);
});

test('fields about other clients are believed only of named forwarders, whatever holds for PROXY headers', () => {
  for (const values of [{}, { PROXY_PROTOCOL: 'on' }, { PROXY_PROTOCOL: 'on', TRUSTED_PROXIES: 'any' }]) {
    assert.deepEqual(configOf(values).listen.trustedForwarders, []);
  }
  assert.deepEqual(configOf({ TRUSTED_FORWARDERS: '192.0.2.10 2001:DB8::/32' }).listen.trustedForwarders, [
    '192.0.2.10/32',
    '2001:db8::/32',
  ]);
  assert.equal(mistakesOf({ TRUSTED_FORWARDERS: 'proxy' }).length, 1);
  assert.match(warningsOf({ TRUSTED_FORWARDERS: 'any' })[0]!, /every address/);
});

test('the port in the TXT record is the port listened on unless a mapping moves it', () => {
  assert.equal(configOf({ PORT: '8443' }).dns.publicPort, 8443);
  assert.equal(configOf({ PORT: '8443', PUBLIC_PORT: '443' }).dns.publicPort, 443);
});

test('every example in the table of settings is one that works', () => {
  const pem = rootCertificates[0]!;
  const files = {
    '/config/routes.yaml': 'routes:\n  - {host: other.example.com, upstream: "a:1"}\n',
    '/config/acme-root.pem': pem,
    '/config/upstream-root.pem': pem,
    '/run/secrets/store-url': 'postgres://ingress@db.example.net/ingress',
    '/run/secrets/store-password': 'correct-horse',
    '/run/secrets/store-ca.pem': pem,
    '/run/secrets/store-key': Buffer.alloc(32, 1).toString('base64'),
  };
  const binding = Object.fromEntries(
    settings.filter(({ name }) => name.startsWith('ACME_EAB')).map(({ name, example }) => [name, example]),
  );
  for (const { name, aliases = [], example } of settings) {
    for (const each of [name, ...aliases]) {
      const company = each.startsWith('ACME_EAB') ? binding : { DOMAINS: 'api.example.com' };
      assert.deepEqual(mistakesOf({ ...company, [each]: example }, files), [], `${each}=${example}`);
    }
  }
});

test('every setting of the table is read, and its default is the one the program uses', () => {
  const readers = globSync('config/*.ts', { cwd: new URL('../../../src/', import.meta.url).pathname })
    .map((file) => file.replace(/\.ts$/, ''))
    .filter((name) => !name.startsWith('config/setting'));
  const source = [...readers, 'routes/plan']
    .map((file) => readFileSync(new URL(`../../../src/${file}.ts`, import.meta.url), 'utf8'))
    .join();
  for (const { name, aliases = [] } of settings) {
    for (const each of [name, ...aliases]) {
      // Of those for a collector each has two names, which are put together.
      const spelled = each.replace(/^OTEL_EXPORTER_OTLP_(TRACES_)?/, '');
      assert.ok(
        source.includes(`'${each}'`) || source.includes(`'${spelled}'`),
        `${each} is in the table but never read`,
      );
    }
  }
  const stated = settings.filter(({ byDefault }) => /^[a-z0-9_./,-]+$/.test(byDefault));
  assert.ok(stated.length > 20);
  const defaults = configOf(Object.fromEntries(stated.map(({ name, byDefault }) => [name, byDefault])));
  const { trustedProxies: _, ...listen } = defaults.listen;
  const { trustedProxies: __, ...usual } = configOf().listen;
  assert.deepEqual(listen, usual);
  for (const part of [
    'dns',
    'acme',
    'evidence',
    'stateDir',
    'logLevel',
    'fixedRouting',
    'accessLog',
  ] as const) {
    assert.deepEqual(defaults[part], configOf()[part], part);
  }
});

test('the credentials of every provider are known names', () => {
  for (const { name, aliases = [] } of providerKinds.flatMap(({ variables }) => variables)) {
    for (const each of [name, ...aliases]) {
      assert.match(
        mistakesOf({ [each]: placeholder('UNFILLED') }).join(),
        new RegExp(`${each}: still holds`),
        each,
      );
    }
  }
});

test('whatever is set, the answer is a whole configuration or a list of mistakes', () => {
  const names = [...settings, ...retiredSettings, ...unsupportedSettings].map(({ name }) => name);
  const values = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom(...settings.map(({ example }) => example)),
    fc.stringMatching(/^[a-z*.]{0,9}[:=/@,#[\]%$'" -]{0,3}[a-z0-9.]{0,9}$/),
  );
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom(...names), values, { maxKeys: 12 }), (env) => {
      try {
        const config = readConfig({ ...base, ...env }, noFiles);
        assert.ok(config.domains.length > 0 && config.routes.length > 0);
      } catch (error) {
        assert.ok(error instanceof ConfigError && error.mistakes.length > 0, String(error));
        for (const mistake of error.mistakes) {
          const text = describeMistake(mistake);
          assert.ok(mistake.place.variable && mistake.subject !== '' && mistake.cure !== '', text);
          assert.doesNotMatch(text, /[\n\0]/);
        }
      }
    }),
    { numRuns: 500 },
  );
});

test('a name that is none of the insides of Node that are used stops the start, and is told with those that are', () => {
  assert.deepEqual(mistakesOf({ DSTACK_INGRESS_NODE_INSIDES: 'off' }), []);
  assert.deepEqual(mistakesOf({ DSTACK_INGRESS_NODE_INSIDES: 'allocator,last-words' }), []);
  const [mistake] = mistakesOf({ DSTACK_INGRESS_NODE_INSIDES: 'alocator' });
  assert.match(mistake!, /"alocator" is none of Node's insides.* allocator/);
});
