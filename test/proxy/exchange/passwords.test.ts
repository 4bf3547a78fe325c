// Passwords against hashes that other programs have made, and what a flood of wrong ones does to the right one.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { belongs } from '../../../proxy/exchange/password-hashes.ts';
import { createPasswords } from '../../../proxy/exchange/passwords.ts';

const LONG = 'Ein längeres Kennwort, das über vierundsechzig Bytes hinausgeht, und noch weiter';

/** Made by openssl passwd, and by crypt(3) of Debian where it has no form for it. */
const hashes: readonly (readonly [password: string, hash: string])[] = [
  ['secret', '{PLAIN}secret'],
  ['secret', '{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ='],
  ['secret', '$apr1$x$12YdXEY0/hH4rDNkmZupO0'],
  ['Ein längeres Kennwort, das über vierundsechzig', '$apr1$saltstri$V1Gec1uLMmZoa0wWvwF.F1'],
  ['secret', '$1$abcd$Oy8OD9LGKv7H9yIMreLNV1'],
  ['secret', '$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.'],
  ['secret', '$5$rounds=1000$roundstoolow$xf5WsimL7u0Oyrw684piDNGSk656sExcVvnSu0d.ue9'],
  [LONG, '$5$saltstring$kQ9i52wHlg6ldAw8lSlbHvmXofryJwmYe6teYXGZrj8'],
  [
    'secret',
    '$6$abcdefgh12345678$8qry.al/7S2fAQnDPL..k3GVAXostN0YvxqwHlKr6Jsf/74.qDax5ahH0CISuJF.P2fnhZoX0.4l8IwZUur9t1',
  ],
  [
    'secret',
    '$6$rounds=12345$abc$.urMXJdx6cg.rnOhsOQiKTYa2G0UrmWEKpCZeXBibmpJqTnTnY1kxRukP0w/9HxkNzwQgkrEEfmRO/5vTiHWs1',
  ],
  [
    LONG,
    '$6$saltstring$WshVg20biZTVdBS6OUrtHxeuQuVoj2yYPzvoCUHa9AfOSFCWHUrj4mm880Nh5mDfHqp4hZ8fajZtDAaxeda.W/',
  ],
  ['secret', '$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a'],
  ['secret', '$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a'],
];

for (const [password, hash] of hashes)
  test(`the password of ${hash.slice(0, 24)} is known, and no other`, () => {
    assert.equal(belongs(password, hash), true);
    for (const other of ['', `${password} `, password.slice(1), password.toUpperCase()])
      assert.equal(belongs(other, hash), false, other);
  });

test('a salted SHA-1 is known', () => {
  // base64 of SHA-1('secret' + 'salt') and the salt behind it.
  assert.equal(belongs('secret', '{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0'), true);
  assert.equal(belongs('secreT', '{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0'), false);
});

test('what is no hash belongs to no password, the empty one included', () => {
  for (const hash of [
    '',
    '*',
    '!',
    'secret',
    '{SHA}',
    '{SSHA}',
    '$apr1$$',
    '$6$',
    '$2b$99$',
    '$6$rounds=999999999$a$b',
  ])
    for (const password of ['', 'secret', hash]) assert.equal(belongs(password, hash), false, hash);
});

test('a flood of wrong passwords does not keep out who was right before', async () => {
  const passwords = createPasswords();
  const hash = '$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a';
  assert.equal(await passwords.check(hash, 'secret'), 'right');
  const flood = Array.from({ length: 10_000 }, (_, i) => passwords.check(hash, `guess ${i}`));
  let settled = 0;
  for (const guess of flood) void guess.then((outcome) => (outcome === 'busy' ? undefined : settled++));
  assert.equal(await passwords.check(hash, 'secret'), 'right');
  assert.equal(settled, 0, 'it did not wait for the guesses');
  const outcomes = await Promise.all(flood);
  assert.equal(outcomes.includes('right'), false);
  assert.equal(outcomes.filter((outcome) => outcome === 'wrong').length, 64);
});

test('a name that nobody has is never right, whatever is given', async () => {
  const passwords = createPasswords();
  assert.equal(await passwords.check('{PLAIN}secret', 'secret'), 'right');
  assert.equal(await passwords.check(undefined, 'secret'), 'wrong');
});

test('a flood is told of at once and then once a minute, with how many were not looked at', async () => {
  let time = 0;
  const told: number[] = [];
  const never = () => new Promise<boolean>(() => {});
  const passwords = createPasswords(
    () => time,
    never,
    (refused) => told.push(refused),
  );
  for (let i = 0; i < 64; i++) void passwords.check('{PLAIN}x', `waits ${i}`);
  const flood = async (count: number) => {
    for (let i = 0; i < count; i++) await passwords.check('{PLAIN}x', `guess ${i}`);
  };
  await flood(5_000);
  time = 59_999;
  await flood(10);
  assert.deepEqual(told, [1]);
  time = 60_000;
  await flood(10);
  assert.deepEqual(told, [1, 5_010]);
});
