// Hashes of password files: which of them are taken, and whose password they know.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { belongs, hashFault } from '../../../proxy/exchange/password-hashes.ts';

function openssl(kind: '-1' | '-apr1' | '-5' | '-6', salt: string, password: string): string {
  const args = ['passwd', kind, '-salt', salt, password];
  return execFileSync('openssl', args, { encoding: 'utf8' }).trim();
}

/** Made by htpasswd, by crypt() of libxcrypt, and by hand with sha1sum. All of `secret`. */
const hashes = [
  '{PLAIN}secret',
  '{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=',
  '{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0',
  '$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a',
  '$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a',
  '$2a$06$abcdefghijklmnopqrstuuxLa0AkDDSrQ9VwNnETzOsObiucpMYgC',
  '$1$$ysVNzQc4CTMkp5daOdZ.3/',
  '$5$rounds=1000$abcdefghijklmnop$FzYoqjtuN.mjYqssIob4upmoKbZEpkdQMtytZuqNN/6',
  '$6$rounds=7777$s$LmbHxVK490P/8JisWF0VFSH13TRbbdL7ZMCBk1DhIk52B2TuaTzk4M9./NSg/LE95bJ1Tji4hos2fbs0./Rmf1',
];

describe('a hash of a password file', () => {
  for (const hash of hashes) {
    test(`${hash.slice(0, 12)}… takes its own password and no other`, () => {
      assert.equal(hashFault(hash), undefined);
      assert.equal(belongs('secret', hash), true);
      for (const other of ['', 'Secret', 'secre', 'secret ', 's'.repeat(600)])
        assert.equal(belongs(other, hash), false, other);
    });
  }

  test('is checked as openssl makes it, for passwords of any length and script', () => {
    const passwords = ['x', 'pässwörd', 'a'.repeat(16), 'b'.repeat(65), 'c'.repeat(200)];
    for (const kind of ['-1', '-apr1', '-5', '-6'] as const) {
      for (const [i, password] of passwords.entries()) {
        const hash = openssl(kind, 'saltsalt'.slice(i), password);
        assert.equal(belongs(password, hash), true, hash);
        assert.equal(belongs(`${password}.`, hash), false, hash);
      }
    }
  });

  test('that cannot be checked, or takes too long, is refused with what to do, and fits nothing', () => {
    const refused: readonly [string, RegExp][] = [
      ['', /no hash of a known form/],
      ['secret', /a password itself is written \{PLAIN\}/],
      ['abNANd1rDfiNc', /old crypt/],
      ['$y$j9T$abcdefgh$IUWJt2doU4Kf6E/JP1UkAT3S5O3Q7SSA8SJirXIlEu9', /yescrypt/],
      ['$argon2id$v=19$m=4096,t=3,p=1$c2FsdA$aGFzaA', /Argon2/],
      ['$2x$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a', /broken/],
      ['$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0', /cut off/],
      ['$2y$15$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a', /cost 15/],
      [`$6$rounds=999999999$s$${'.'.repeat(86)}`, /999999999 rounds/],
      [`$5$salt$${'.'.repeat(86)}`, /cut off or damaged/],
      ['{SHA}5en6', /cut off/],
    ];
    for (const [hash, why] of refused) {
      const found = hashFault(hash);
      assert.match(found?.fault ?? '', why, hash);
      assert.match(found!.cure, /htpasswd -B/);
      assert.equal(belongs('secret', hash), false);
    }
  });
});
