// The records of a domain are exactly those that gateway, visitors and CA look for.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDomain } from '../../src/lib/domain.ts';
import { addressee, addressName, recordsFor } from '../../src/records.ts';

const settings = { gatewayDomain: '_.Dstack-Prod5.phala.network.', addressee: 'a1b2', port: 443 };
const caa = {
  identities: ['letsencrypt.org'],
  accountUri: 'https://acme-v02.api.letsencrypt.org/acme/acct/1',
  methods: ['dns-01'],
};
const lines = (names: string[], more: object = {}) =>
  recordsFor(names.map(parseDomain), { ...settings, ...more }).map(
    ({ type, name, value }) => `${type} ${name} ${value}`,
  );

test('a domain needs its alias and the address that the gateway reads', () => {
  assert.deepEqual(lines(['app.example.com']), [
    'CNAME app.example.com _.dstack-prod5.phala.network',
    'TXT _dstack-app-address.app.example.com a1b2:443',
  ]);
});

test('a wildcard has its own alias, and its address where the gateway falls back to', () => {
  assert.deepEqual(lines(['*.example.com']), [
    'CNAME *.example.com _.dstack-prod5.phala.network',
    'TXT _dstack-app-address-wildcard.example.com a1b2:443',
  ]);
});

test('the port and the prefix are those of the settings', () => {
  const [, text] = lines(['app.example.com'], { port: 8443, txtPrefix: '_tapp-address' });
  assert.equal(text, 'TXT _tapp-address.app.example.com a1b2:8443');
  assert.equal(addressName(parseDomain('*.example.com'), '_mine'), '_mine-wildcard.example.com');
});

test('CAA pins the account and the method, without a blank and without a last semicolon', () => {
  assert.equal(
    lines(['app.example.com'], { caa }).at(-1),
    'CAA app.example.com 0 issue "letsencrypt.org;accounturi=https://acme-v02.api.letsencrypt.org/acme/acct/1;validationmethods=dns-01"',
  );
});

test('the pin of a wildcard is an issuewild at its base, beside the issue of the base itself', () => {
  const pins = lines(['example.com', '*.example.com'], { caa }).filter((line) => line.startsWith('CAA'));
  assert.equal(pins.length, 2);
  assert.match(pins[0] ?? '', /^CAA example\.com 0 issue "/);
  assert.match(pins[1] ?? '', /^CAA example\.com 0 issuewild "/);
});

test('every identity of the CA gets its pin, and a CA without one gets none', () => {
  const many = { ...caa, identities: ['one.example', 'two.example'], methods: ['dns-01', 'tls-alpn-01'] };
  const pins = lines(['a.example.com'], { caa: many }).filter((line) => line.startsWith('CAA'));
  assert.deepEqual(
    pins.map((pin) => /"([^;]+);.*validationmethods=(.*)"$/.exec(pin)?.slice(1)),
    [
      ['one.example', 'dns-01,tls-alpn-01'],
      ['two.example', 'dns-01,tls-alpn-01'],
    ],
  );
  assert.equal(lines(['a.example.com'], { caa: { ...caa, identities: [] } }).length, 2);
});

test('an account URL that would change the meaning of the record is refused', () => {
  for (const accountUri of [
    'https://ca.example/1;validationmethods=http-01',
    'https://ca.example/a b',
    '',
    'https://ca.example/\u00e9',
  ]) {
    assert.throws(() => lines(['a.example.com'], { caa: { ...caa, accountUri } }), { code: 'unsupported' });
  }
});

test('tls-alpn-01 is addressed to the instance that placed the order, dns-01 to the app', () => {
  const ids = { appId: 'app', instanceId: 'instance' };
  assert.equal(addressee('tls-alpn-01', ids), 'instance');
  assert.equal(addressee('dns-01', ids), 'app');
  assert.equal(addressee('tls-alpn-01', { appId: 'app', instanceId: '' }), 'app');
});
