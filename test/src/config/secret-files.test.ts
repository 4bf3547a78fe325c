// Secrets in files: what is read, and how every way in which it can fail is told.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ConfigError, readConfig } from '../../../src/config/config.ts';
import { describeMistake } from '../../../src/config/mistake.ts';
import { mayBeFiles, namesOf, variables } from '../../../src/config/variables.ts';

const TOKEN = 'v1.0-0123456789abcdef0123456789abcdef01234567';
const folder = mkdtempSync(join(tmpdir(), 'secrets-'));
after(() => rmSync(folder, { recursive: true }));

let made = 0;
function file(content: string | Uint8Array): string {
  const path = join(folder, String(made++));
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}

type Env = Record<string, string | undefined>;
const base = { DOMAIN: 'app.example.com', TARGET_ENDPOINT: 'app:80', GATEWAY_DOMAIN: 'gateway.example.net' };
const tokenOf = (changes: Env) =>
  readConfig({ ...base, ...changes }).dns.provider?.credentials.CLOUDFLARE_API_TOKEN;

function mistakesOf(changes: Env): string[] {
  try {
    readConfig({ ...base, ...changes });
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.mistakes.map(describeMistake);
  }
}

test('a secret is read from the file that NAME_FILE names, without what surrounds it', () => {
  for (const text of [TOKEN, `${TOKEN}\n`, `${TOKEN}\r\n`, `  ${TOKEN} \n\n`, `\ufeff${TOKEN}\n`])
    assert.equal(tokenOf({ CLOUDFLARE_API_TOKEN_FILE: file(text) }), TOKEN, JSON.stringify(text));
});

test('older names have a file too, and links are followed as an orchestrator makes them', () => {
  const link = join(folder, 'link');
  symlinkSync(file(`${TOKEN}\n`), link);
  assert.equal(tokenOf({ CF_DNS_API_TOKEN_FILE: link }), TOKEN);
});

test('the file of an empty variable counts, and an empty NAME_FILE is unset', () => {
  assert.equal(tokenOf({ CLOUDFLARE_API_TOKEN: '', CLOUDFLARE_API_TOKEN_FILE: file(TOKEN) }), TOKEN);
  assert.equal(tokenOf({ CLOUDFLARE_API_TOKEN: TOKEN, CLOUDFLARE_API_TOKEN_FILE: '' }), TOKEN);
});

test('every secret of the program may stand in a file', () => {
  const secrets = variables.filter(({ secret }) => secret);
  assert.ok(secrets.length > 12);
  assert.deepEqual(
    secrets.flatMap(namesOf).filter((name) => !mayBeFiles.has(name)),
    [],
  );
});

const outside = join(folder, 'folder');
mkdirSync(outside);
const pipe = join(folder, 'pipe');
execFileSync('mkfifo', [pipe]);
const absent = join(folder, 'absent');
const wrong: Record<string, { path: string; says: RegExp }> = {
  absent: { path: absent, says: /cannot be read: ENOENT: there is nothing of that name, is it mounted\?/ },
  'a folder': { path: outside, says: /EISDIR: it is a folder/ },
  'a pipe': { path: pipe, says: /not a file: it is a pipe or a device/ },
  empty: { path: file(''), says: /is empty: wants the secret in it/ },
  blank: { path: file(' \n\n'), says: /is empty/ },
  'too large': { path: file('s'.repeat(70_000)), says: /has more than 64 KiB/ },
  'two lines': { path: file(`${TOKEN}\nhunter2\n`), says: /holds more than one line of text/ },
  'no text': { path: file(new Uint8Array([0x80, 0xff, 0xfe])), says: /holds more than one line of text/ },
  quoted: { path: file(`"${TOKEN}"\n`), says: /begins and ends with quotation marks/ },
};
for (const [what, { path, says }] of Object.entries(wrong)) {
  test(`a file that is ${what}: one mistake, which names variable and file, and nothing of what it holds`, () => {
    const [first, ...others] = mistakesOf({ CLOUDFLARE_API_TOKEN_FILE: path });
    assert.ok(first !== undefined);
    assert.match(first, /^CLOUDFLARE_API_TOKEN_FILE: /);
    assert.match(first, says);
    assert.ok(first.includes(path));
    assert.deepEqual(others, []);
    assert.ok(!first.includes('0123456789'), first);
  });
}

test('the variable and its file at once are a mistake, even if they agree', () => {
  assert.deepEqual(mistakesOf({ CLOUDFLARE_API_TOKEN: TOKEN, CLOUDFLARE_API_TOKEN_FILE: file(TOKEN) }), [
    'CLOUDFLARE_API_TOKEN_FILE: is set, and so is CLOUDFLARE_API_TOKEN: wants one of the two unset',
  ]);
});

test('mistakes in files are told with all others', () => {
  const told = mistakesOf({
    PORT: '70000',
    CF_API_TOKEN_FILE: absent,
    ACME_EAB_KID: 'kid',
    ACME_EAB_HMAC_KEY_FILE: file('hunter2 hunter2 hunter2'),
    DNS_WEBHOOK_TOKEN: 'a',
    DNS_WEBHOOK_TOKEN_FILE: absent,
  });
  assert.deepEqual(told.map((text) => text.split(':')[0]).sort(), [
    'ACME_EAB_HMAC_KEY_FILE',
    'CF_API_TOKEN_FILE',
    'DNS_WEBHOOK_TOKEN_FILE',
    'PORT',
  ]);
  assert.ok(!told.join().includes('hunter2'));
});

test('a value that is wrong in a file is told with the place of the file', () => {
  const path = file('short\n');
  assert.deepEqual(
    mistakesOf({ CLOUDFLARE_API_TOKEN: TOKEN, ACME_EAB_KID: 'kid', ACME_EAB_HMAC_KEY_FILE: path }),
    [
      `ACME_EAB_HMAC_KEY_FILE: ${path}: is not a key in base64url: wants it as the CA gave it, at least 16 characters`,
    ],
  );
});

test('a misspelt NAME_FILE is told', () => {
  const { warnings } = readConfig({
    ...base,
    CLOUDFLARE_API_TOKEN: TOKEN,
    CLOUDFLARE_API_TOKN_FILE: '/run/secrets/token',
  });
  assert.deepEqual(warnings, [
    {
      variable: 'CLOUDFLARE_API_TOKN_FILE',
      warning: 'is not a setting: was CLOUDFLARE_API_TOKEN_FILE meant?',
    },
  ]);
});
