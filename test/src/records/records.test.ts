// The records of a domain are exactly those that gateway, visitors and CA look for.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDomain } from '../../../src/lib/domain.ts';
import {
  addressee,
  addressName,
  challengeName,
  delegationRecords,
  recordsFor,
} from '../../../src/records/records.ts';

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

const persistence = { issuer: 'authority.example', accountUri: 'https://ca.example/acct/123' };
const persistent = (names: string[], more: object = {}) =>
  lines(names, { persistence: { ...persistence, ...more } }).filter((line) =>
    line.includes('_validation-persist'),
  );

test('the record of dns-persist-01 names the CA and the account, and admits a wildcard where there is one', () => {
  const account = 'authority.example;accounturi=https://ca.example/acct/123';
  assert.deepEqual(persistent(['a.example.com', 'example.com', '*.example.com']), [
    `TXT _validation-persist.a.example.com ${account}`,
    `TXT _validation-persist.example.com ${account};policy=wildcard`,
  ]);
});

test('for a CA that wants the account hashed, the record is that of the example in the draft', () => {
  const hash = {
    prefix: 'https://ca.example/account-hash/',
    thumbprint: 'NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs',
  };
  assert.deepEqual(persistent(['example.com'], { hash }), [
    'TXT _validation-persist.example.com authority.example;accounturi=https://ca.example/account-hash/sha-256/5SQm7n6tPh2-PlLbCKGnViTXX5z19SCN4cPGQHSk-kw',
  ]);
});

test('a CA cannot smuggle a parameter into the record of dns-persist-01', () => {
  for (const more of [
    { issuer: 'authority.example;policy=wildcard' },
    { accountUri: 'https://ca.example/acct/1; policy=wildcard' },
    { issuer: '' },
  ]) {
    assert.throws(() => persistent(['example.com'], more), { code: 'unsupported' });
  }
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

test('with a delegation zone everything that changes stands there, and the domain’s own zone only points to it', () => {
  const zone = 'deleg.example.net';
  const names = ['svc.example.com'].map(parseDomain);
  const pointers = delegationRecords(names, { delegationZone: zone, challenges: true });
  assert.deepEqual(
    pointers.map(({ name, value }) => `${name} -> ${value}`),
    [
      'svc.example.com -> svc.example.com.deleg.example.net',
      '_dstack-app-address.svc.example.com -> _dstack-app-address.svc.example.com.deleg.example.net',
      '_acme-challenge.svc.example.com -> _acme-challenge.svc.example.com.deleg.example.net',
    ],
  );
  assert.deepEqual(
    lines(['svc.example.com'], { delegationZone: zone, caa }).map((line) =>
      line.split(' ').slice(0, 2).join(' '),
    ),
    [
      'CNAME svc.example.com.deleg.example.net',
      'TXT _dstack-app-address.svc.example.com.deleg.example.net',
      'CAA svc.example.com.deleg.example.net',
    ],
  );
  assert.equal(challengeName(parseDomain('*.svc.example.com'), zone), pointers[2]?.value);
});

test('a delegated wildcard has a fourth pointer, at the base where CAA is looked up', () => {
  const settings = { delegationZone: 'd.example.net', challenges: true };
  const pointers = delegationRecords([parseDomain('*.app.example.com')], settings);
  assert.deepEqual(
    pointers.map(({ name, value }) => `${name} -> ${value}`),
    [
      '*.app.example.com -> app.example.com.d.example.net',
      'app.example.com -> app.example.com.d.example.net',
      '_dstack-app-address-wildcard.app.example.com -> _dstack-app-address-wildcard.app.example.com.d.example.net',
      '_acme-challenge.app.example.com -> _acme-challenge.app.example.com.d.example.net',
    ],
  );
});

test('a base and its wildcard share their delegated alias, once', () => {
  const made = lines(['app.example.com', '*.app.example.com'], { delegationZone: 'd.example.net', caa });
  assert.equal(made.filter((line) => line.startsWith('CNAME app.example.com.d.example.net ')).length, 1);
  assert.equal(made.filter((line) => line.startsWith('CAA')).length, 2);
  const pointers = delegationRecords(['app.example.com', '*.app.example.com'].map(parseDomain), {
    delegationZone: 'd.example.net',
    challenges: false,
  });
  assert.equal(new Set(pointers.map(({ name }) => name)).size, pointers.length);
});

test('a delegated name longer than DNS allows is refused', () => {
  const long = parseDomain(`${Array.from({ length: 4 }, () => 'x'.repeat(55)).join('.')}.com`);
  assert.throws(() => challengeName(long, 'delegation.example.net'), { code: 'unsupported' });
});
