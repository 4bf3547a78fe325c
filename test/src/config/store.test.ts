// STORE_URL and what goes with it: what can be meant, what is refused, and that no secret is told.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rootCertificates } from 'node:tls';
import { ConfigError, readConfig } from '../../../src/config/config.ts';

const files: Readonly<Record<string, string>> = {
  '/secrets/url': 'postgres://ingress:pw%40x@db.example.net/state\n',
  '/secrets/password': 'from a file\n',
  '/secrets/ca.pem': rootCertificates[0]!,
  '/secrets/key': `${Buffer.alloc(32, 7).toString('base64')}\n`,
};
const company = {
  DOMAIN: 'app.example.com',
  TARGET_ENDPOINT: 'http://app:80',
  DNS_SETUP_MODE: 'print',
  CHALLENGE_TYPE: 'tls-alpn-01',
};

function read(values: Readonly<Record<string, string>>) {
  return readConfig(
    { ...company, ...values },
    (path) => files[path] ?? assert.fail(`${path} is not there`),
    () => [],
  );
}

function told(values: Readonly<Record<string, string>>): string {
  try {
    return read(values)
      .warnings.map(({ variable, warning }) => `${variable}: ${warning}`)
      .join('\n');
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.message;
  }
}

test('each engine is known by its scheme, with its defaults', () => {
  const placeOf = (url: string) => read({ STORE_URL: url }).store!.place;
  assert.deepEqual(placeOf('postgres://ingress@db.example.net/state'), {
    engine: 'postgres',
    host: 'db.example.net',
    port: 5432,
    database: 'state',
    user: 'ingress',
    tls: true,
  });
  assert.deepEqual(placeOf('rediss://cache.example.net/2'), {
    engine: 'redis',
    nodes: [{ host: 'cache.example.net', port: 6379 }],
    mode: 'single',
    database: 2,
    user: undefined,
    tls: true,
  });
  const sentinels = placeOf('rediss://ops@a:26379/?sentinel=main&nodes=b:26379,c:26379');
  assert.ok(sentinels.engine === 'redis');
  assert.deepEqual(sentinels.mode, { sentinel: 'main' });
  assert.deepEqual(
    sentinels.nodes.map(({ host }) => host),
    ['a', 'b', 'c'],
  );
  const cluster = placeOf('rediss://a:7000/?cluster=true&nodes=b:7000');
  assert.ok(cluster.engine === 'redis' && cluster.mode === 'cluster' && cluster.nodes.length === 2);
  assert.deepEqual(placeOf('s3://AKIA@bucket/of/ours/?endpoint=https://s3.example.net&region=auto'), {
    engine: 's3',
    endpoint: 'https://s3.example.net/',
    region: 'auto',
    bucket: 'bucket',
    prefix: 'of/ours',
    accessKeyId: 'AKIA',
    tls: true,
  });
});

test('without STORE_URL there is no store, and what goes with it is named', () => {
  assert.equal(read({}).store, undefined);
  assert.match(told({ STORE_PASSWORD: 'x' }), /STORE_PASSWORD: does nothing: STORE_URL is not set/);
});

test('address, password, roots and key come from files too', () => {
  const { store } = read({
    STORE_URL_FILE: '/secrets/url',
    STORE_CA_FILE: '/secrets/ca.pem',
    STORE_KEY_FILE: '/secrets/key',
  });
  assert.equal(store!.password, 'pw@x');
  assert.equal(store!.ca, files['/secrets/ca.pem']);
  assert.ok(store!.keys![0].equals(Buffer.alloc(32, 7)));
  const other = read({ STORE_URL: 'postgres://u@h/d', STORE_PASSWORD_FILE: '/secrets/password' });
  assert.equal(other.store!.password, 'from a file');
  assert.equal(other.store!.generation, 1);
});

test('of several keys the first seals; too short ones are refused, and not shown', () => {
  const [one, two] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
  const { store } = read({
    STORE_URL: 'postgres://u@h/d',
    STORE_KEY: `${two.toString('hex')} ${one.toString('base64')}`,
  });
  assert.ok(store!.keys![0].equals(two) && store!.keys![1]!.equals(one));
  const message = told({ STORE_URL: 'postgres://u@h/d', STORE_KEY: 'dG9vIHNob3J0' });
  assert.match(message, /STORE_KEY: does not hold keys of 32 bytes/);
  assert.doesNotMatch(message, /dG9v/);
});

test('an unverified or clear connection is refused or named, never taken in silence', () => {
  assert.match(told({ STORE_URL: 'postgres://u@h/d?sslmode=require' }), /STORE_URL: .*verify-full, disable/);
  for (const url of ['postgres://u@h/d?sslmode=disable', 'redis://h', 's3://K@bucket/?endpoint=http://h'])
    assert.match(told({ STORE_URL: url }), /STORE_URL: the connection is in the clear/, url);
});

test('what cannot be meant is a mistake with a cure, and no mistake tells the password', () => {
  const wrong = [
    ['mysql://u:hidden@h/d', /is no storage that is known/],
    ['postgres://h/d', /names no user/],
    ['postgres://u:hidden@h', /names no database/],
    ['postgres://u:hidden@h/d?pool=5', /has a parameter "pool"/],
    ['redis://h/x', /not a number/],
    ['redis://h?nodes=a:1', /has nodes/],
    ['redis://h?cluster=true&sentinel=x', /a sentinel and a cluster/],
    ['rediss://h/3?cluster=true', /database 0/],
    ['s3://K:hidden@bucket/', /names no endpoint/],
    ['s3://bucket/?endpoint=https://h', /names no access key/],
    ['s3://K@bucket/?endpoint=https://u:hidden@h', /user in its endpoint/],
    ['postgres://u:%zz@h/d', /begins no escape/],
    ['not a url', /is not a URL/],
  ] as const;
  for (const [url, why] of wrong) {
    const message = told({ STORE_URL: url });
    assert.match(message, why, url);
    assert.doesNotMatch(message, /hidden/, url);
  }
  assert.match(
    told({ STORE_URL: 'redis://h', STORE_URL_FILE: '/secrets/url' }),
    /STORE_URL_FILE: is set, and so is STORE_URL/,
  );
});
