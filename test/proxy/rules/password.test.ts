// Passwords: which hashes are taken, that a check holds nobody up, and what a flood of wrong ones does.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { createPasswordChecks, type Judgement } from '../../../proxy/rules/password.ts';
import { hashFault, isPasswordOf } from '../../../proxy/rules/password-hash.ts';

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
      assert.equal(isPasswordOf(hash, 'secret'), true);
      for (const other of ['', 'Secret', 'secre', 'secret ', 's'.repeat(600)])
        assert.equal(isPasswordOf(hash, other), false, other);
    });
  }

  test('is checked as openssl makes it, for passwords of any length and script', () => {
    const passwords = ['x', 'pässwörd', 'a'.repeat(16), 'b'.repeat(65), 'c'.repeat(200)];
    for (const kind of ['-1', '-apr1', '-5', '-6'] as const) {
      for (const [i, password] of passwords.entries()) {
        const hash = openssl(kind, 'saltsalt'.slice(i), password);
        assert.equal(isPasswordOf(hash, password), true, hash);
        assert.equal(isPasswordOf(hash, `${password}.`), false, hash);
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
      assert.equal(isPasswordOf(hash, 'secret'), false);
    }
  });
});

describe('checks', () => {
  const dear = hashes[3]!;
  /** Comparisons that are answered when the test says so. */
  function held(settings: { readonly mostWaiting?: number; readonly mostRemembered?: number } = {}) {
    const asked: { readonly password: string; answer(right: boolean | undefined): void }[] = [];
    let now = 0;
    const checks = createPasswordChecks({
      compare: (_hash, password) => new Promise((answer) => asked.push({ password, answer })),
      now: () => now,
      rememberMs: 1_000,
      ...settings,
    });
    const check = (password: string, hash: string | undefined = dear) =>
      checks.check({ hash, like: dear, password });
    return { asked, check, checks, pass: (ms: number) => (now += ms) };
  }

  test('remember what was right, as long as it is used, and never what was wrong', async () => {
    const { asked, check, pass } = held();
    const first = check('secret');
    asked[0]!.answer(true);
    assert.equal(await first, true);
    for (let i = 0; i < 3; i++) {
      pass(900);
      assert.equal(check('secret'), true);
    }
    assert.equal(asked.length, 1);
    pass(1_001);
    assert.notEqual(check('secret'), true);
    assert.equal(asked.length, 2);
    for (const expected of [3, 4]) {
      const wrong = check('wrong');
      assert.equal(asked.length, expected);
      asked.at(-1)!.answer(false);
      assert.equal(await wrong, false);
    }
  });

  test('forget the password when the hash changes', async () => {
    const { asked, check } = held();
    const first = check('secret');
    asked[0]!.answer(true);
    await first;
    void check('secret', hashes[5]);
    assert.equal(asked.length, 2);
  });

  test('ask once for the same password of many requests, and only so often at once', async () => {
    const { asked, check } = held({ mostWaiting: 2 });
    const same = [check('a'), check('a'), check('a')];
    void check('b');
    assert.equal(asked.length, 2);
    assert.equal(check('c'), 'busy');
    assert.equal(await Promise.race([check('d'), 'late']), 'busy');
    asked[0]!.answer(true);
    assert.deepEqual(await Promise.all(same), [true, true, true]);
    assert.equal(typeof check('c'), 'object');
  });

  test('are busy, and let nobody through, where nobody can compare', async () => {
    const { asked, check } = held();
    const answer = check('secret');
    asked[0]!.answer(undefined);
    assert.equal(await answer, 'busy');
    assert.equal(typeof check('secret'), 'object');
  });

  test('do the same for a user that there is not, and say no even to another user’s password', async () => {
    const { asked, checks } = held();
    const unknown = () => checks.check({ hash: undefined, like: dear, password: 'secret' });
    const answer = unknown();
    assert.equal(asked.length, 1);
    asked[0]!.answer(true);
    assert.equal(await answer, false);
    assert.equal(unknown(), false);
    assert.equal(checks.check({ hash: undefined, like: undefined, password: 'secret' }), false);
    assert.equal(checks.check({ hash: undefined, like: '{PLAIN}secret', password: 'secret' }), false);
  });

  test('keep no more than they may', async () => {
    const { asked, check } = held({ mostRemembered: 2 });
    for (const password of ['a', 'b', 'c']) {
      const answer: Judgement | Promise<Judgement> = check(password);
      asked.at(-1)!.answer(true);
      await answer;
    }
    assert.deepEqual([check('b'), check('c')], [true, true]);
    assert.equal(typeof check('a'), 'object');
  });

  test('take quick hashes on the spot, and no password that is longer than any', () => {
    const { asked, check } = held();
    assert.equal(check('secret', '{PLAIN}secret'), true);
    assert.equal(check('x'.repeat(513)), false);
    assert.equal(asked.length, 0);
  });
});
