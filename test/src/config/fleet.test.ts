// FLEET=derived: what cannot go with it is told at once, each mistake with its cure.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, readConfig } from '../../../src/config/config.ts';

const good = {
  DOMAIN: 'app.example.com',
  TARGET_ENDPOINT: 'http://app:80',
  GATEWAY_DOMAIN: 'gateway.example.net',
  CLOUDFLARE_API_TOKEN: 'a-token-of-the-test',
  NGINX_CONF_DIR: 'none',
  FLEET: 'derived',
};

test('it is read with its port, and the account key is derived as well', () => {
  assert.deepEqual(readConfig({ ...good, FLEET_PORT: '8443' }).fleet, { kind: 'derived', port: 8443 });
  assert.equal(readConfig(good).acme.accountKey, 'kms');
});

test('everything that cannot go with it is told together', () => {
  const wrong = {
    ...good,
    CHALLENGE_TYPE: 'tls-alpn-01',
    STORE_URL: 'redis://store.example.net/0',
    ACME_ACCOUNT_KEY: 'file',
    EVIDENCE_SERVER: 'false',
    DNS_SETUP_MODE: 'print',
  };
  assert.throws(
    () => readConfig(wrong),
    (error: ConfigError) => {
      for (const each of [
        'CHALLENGE_TYPE is tls-alpn-01',
        'STORE_URL is set',
        'ACME_ACCOUNT_KEY is file',
        'EVIDENCE_SERVER is off',
      ])
        assert.ok(error.message.includes(each), `${each} in ${error.message}`);
      return error instanceof ConfigError;
    },
  );
});

test('another word is refused, and FLEET_PORT alone does nothing', () => {
  assert.throws(() => readConfig({ ...good, FLEET: 'magic' }), ConfigError);
  const { FLEET: _, ...alone } = good;
  const { fleet, warnings } = readConfig({ ...alone, FLEET_PORT: '8443' });
  assert.equal(fleet, undefined);
  assert.ok(warnings.some(({ variable }) => variable === 'FLEET_PORT'));
});
