// The compose files for fleets: what they set is taken, and means what the files say.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readConfig } from '../../src/config/config.ts';
import { readCompose } from '../support/compose.ts';

const secrets = {
  DOMAIN: 'app.example.com',
  DSTACK_GATEWAY_DOMAIN: 'dstack.example.net',
  CLOUDFLARE_API_TOKEN: 'a-token-of-the-test',
  STORE_PASSWORD: 'a-password-of-the-test',
};

function configOf(file: string) {
  const path = fileURLToPath(new URL(`../../examples/${file}`, import.meta.url));
  const { services } = readCompose(path, secrets);
  const ingress = services.find(({ name }) => name === 'ingress')!;
  return readConfig({ ...ingress.environment, NGINX_CONF_DIR: 'none' });
}

test('the example with a store has one, and no setting of it needs attention', () => {
  const { store, fleet, warnings } = configOf('fleet-store.yaml');
  assert.equal(store?.place.engine, 'postgres');
  assert.equal(fleet, undefined);
  assert.deepEqual(warnings, []);
});

test('the example without a store has derived keys, for the account as well', () => {
  const { store, fleet, acme, warnings } = configOf('fleet-derived.yaml');
  assert.equal(store, undefined);
  assert.deepEqual(fleet, { kind: 'derived', port: 443 });
  assert.equal(acme.accountKey, 'kms');
  assert.deepEqual(warnings, []);
});
