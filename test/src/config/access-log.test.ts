// The settings of the access log and of request ids.

import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { ConfigError, readConfig } from '../../../src/config/config.ts';
import { describeMistake } from '../../../src/config/mistake.ts';

const base = {
  DOMAIN: 'app.example.com',
  TARGET_ENDPOINT: 'app:80',
  GATEWAY_DOMAIN: 'gateway.example.net',
  CHALLENGE_TYPE: 'tls-alpn-01',
};
const read = (env: Record<string, string>) => readConfig({ ...base, ...env });

test('there is none unless it is asked for, and what needs it is told to do nothing', () => {
  const { accessLog, requestIds, warnings } = read({ ACCESS_LOG_FORMAT: 'ecs' });
  assert.deepEqual([accessLog, requestIds], [undefined, false]);
  assert.deepEqual(warnings, [
    { variable: 'ACCESS_LOG_FORMAT', warning: 'does nothing: there is no access log' },
  ]);
});

test('requests have ids where they are logged, unless REQUEST_ID says otherwise', () => {
  assert.equal(read({ ACCESS_LOG: 'on' }).requestIds, true);
  assert.equal(read({ ACCESS_LOG: 'on', REQUEST_ID: 'off' }).requestIds, false);
  assert.equal(read({ REQUEST_ID: 'on' }).requestIds, true);
});

test('all of it is read', () => {
  const { accessLog } = read({
    ACCESS_LOG: 'on',
    ACCESS_LOG_FORMAT: 'Caddy',
    ACCESS_LOG_QUERY: 'on',
    ACCESS_LOG_HEADERS: 'Referer, X-Tenant',
    ACCESS_LOG_REDACT: 'Email',
    ACCESS_LOG_SAMPLE: '.05',
    ACCESS_LOG_SLOW: '5s',
  });
  assert.deepEqual(accessLog, {
    format: 'caddy',
    query: true,
    headers: ['referer', 'x-tenant'],
    redact: ['email'],
    sample: 0.05,
    slowMs: 5_000,
    toStdout: true,
    file: undefined,
  });
});

test('a file goes beside stdout, or alone; and then requests have ids as well', () => {
  const places = (env: Record<string, string>) => {
    const { accessLog, requestIds } = read(env);
    return [accessLog?.toStdout, accessLog?.file, requestIds];
  };
  assert.deepEqual(places({ ACCESS_LOG_FILE: '/var/log/a.log' }), [false, '/var/log/a.log', true]);
  assert.deepEqual(places({ ACCESS_LOG: 'on', ACCESS_LOG_FILE: 'a.log' }), [true, resolve('a.log'), true]);
});

test('what cannot be read is told with what is wanted', () => {
  try {
    read({
      ACCESS_LOG: 'on',
      ACCESS_LOG_FORMAT: 'ecss',
      ACCESS_LOG_HEADERS: 'a:b',
      ACCESS_LOG_SAMPLE: '2',
      ACCESS_LOG_REDACT: Array.from({ length: 21 }, (_, i) => `a${i}`).join(),
    });
    assert.fail('it was taken');
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    assert.deepEqual(error.mistakes.map(describeMistake).sort(), [
      'ACCESS_LOG_FORMAT: "ecss" is not one of json, caddy, ecs, common: was ecs meant?',
      'ACCESS_LOG_HEADERS: "a:b" is not a name: wants names as in referer,x-tenant',
      'ACCESS_LOG_REDACT: names 21: wants 20 at most',
      'ACCESS_LOG_SAMPLE: "2" is not a part of one: wants a number from 0 to 1, as in 0.01',
    ]);
  }
});
