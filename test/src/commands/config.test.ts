// The config command: what is in force, where it came from, and that no secret is shown.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type SettingInForce, showConfig } from '../../../src/commands/config.ts';
import { settings } from '../../../src/config/settings.ts';
import { variables } from '../../../src/config/variables.ts';
import { exitCodes } from '../../../src/exit-codes.ts';

const TOKEN = 'v1.0-0123456789abcdef0123456789abcdef01234567';
const base = {
  DOMAIN: 'app.example.com',
  TARGET_ENDPOINT: 'http://app:80',
  GATEWAY_DOMAIN: 'gateway.example.net',
  CLOUDFLARE_API_TOKEN: TOKEN,
};

function run(env: Record<string, string>, json = false) {
  let out = '';
  let err = '';
  const write = (add: (text: string) => void) => ({ write: add }) as unknown as NodeJS.WritableStream;
  const streams = {
    out: write((text) => {
      out += text;
    }),
    err: write((text) => {
      err += text;
    }),
  };
  return { code: showConfig({ json }, env, streams, exitCodes), out, err };
}

function inForce(env: Record<string, string>): Map<string, SettingInForce> {
  const { code, out, err } = run(env, true);
  assert.equal(code, 0, err);
  const { settings: list } = JSON.parse(out) as { settings: SettingInForce[] };
  return new Map(list.map((one) => [one.name, one]));
}

const folder = mkdtempSync(join(tmpdir(), 'config-'));
after(() => rmSync(folder, { recursive: true }));

test('every setting is told once: what was set with its variable, the rest with its default', () => {
  const found = inForce({ ...base, PORT: '8443', CERTBOT_EMAIL: 'ops@example.com', SET_CAA: '' });
  for (const { name } of settings) assert.ok(found.has(name), name);
  const expected: Partial<SettingInForce>[] = [
    { name: 'PORT', value: '8443', source: 'environment', variable: 'PORT' },
    { name: 'PUBLIC_PORT', value: '8443', source: 'default', variable: null },
    { name: 'ACME_EMAIL', value: 'ops@example.com', source: 'environment', variable: 'CERTBOT_EMAIL' },
    { name: 'SET_CAA', value: 'false', source: 'default' },
    { name: 'DNS_PROVIDER', value: 'cloudflare', source: 'default' },
    { name: 'DNS_SETUP_MODE', value: 'auto', source: 'default' },
    { name: 'MAXCONN', value: '4096', source: 'default' },
    { name: 'HTTP_PORT', value: null, source: 'default', note: 'plain HTTP is not listened for' },
  ];
  for (const { name = '', ...rest } of expected) {
    const one: Record<string, unknown> = { ...found.get(name) };
    assert.deepEqual({ ...one, ...rest }, one, name);
  }
  assert.match(found.get('WORKERS')!.value!, /^\d+$/);
});

test('secrets are masked by what they are, wherever they came from', () => {
  const path = join(folder, 'hmac');
  writeFileSync(path, 'hunter2hunter2hunter2\n');
  const env = {
    ...base,
    ACME_EAB_KID: 'kid-1',
    ACME_EAB_HMAC_KEY_FILE: path,
    DNS_SETUP_MODE: 'webhook',
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_WEBHOOK_URL: 'https://dns.example.com/hook?key=hunter2',
    DNS_WEBHOOK_TOKEN: 'hunter2',
  };
  const found = inForce(env);
  assert.deepEqual(found.get('ACME_EAB_HMAC_KEY'), {
    name: 'ACME_EAB_HMAC_KEY',
    value: null,
    source: 'file',
    variable: 'ACME_EAB_HMAC_KEY_FILE',
    file: path,
    secret: true,
    note: null,
  });
  for (const json of [true, false]) {
    const { out, err } = run(env, json);
    assert.ok(!`${out}${err}`.includes('hunter2') && !out.includes(TOKEN), 'no secret');
  }
  assert.match(
    run(env).out,
    new RegExp(`^ACME_EAB_HMAC_KEY +\\*\\*\\* +file ${path} \\(ACME_EAB_HMAC_KEY_FILE\\)$`, 'm'),
  );
});

test('any secret of any provider is masked', () => {
  for (const { name, secret } of variables) {
    if (!secret) continue;
    const { out } = run({
      ...base,
      DNS_PROVIDER: 'cloudflare',
      [name]: name === 'CLOUDFLARE_API_TOKEN' ? TOKEN : 'https://hunter2',
    });
    assert.ok(!out.includes('hunter2') && !out.includes(TOKEN), name);
  }
});

test('a password in a URL is not shown', () => {
  const { out } = run({ ...base, DSTACK_SIMULATOR_ENDPOINT: 'http://me:hunter2@127.0.0.1:1' });
  assert.match(out, /DSTACK_SIMULATOR_ENDPOINT/);
  assert.ok(!out.includes('hunter2'));
});

test('credentials of a provider that is not the chosen one are told as unused', () => {
  const found = inForce({ ...base, DNS_PROVIDER: 'cloudflare', LINODE_TOKEN: 'hunter2' });
  assert.equal(found.get('LINODE_API_TOKEN')?.note, 'is not used');
  assert.equal(found.get('LINODE_API_TOKEN')?.variable, 'LINODE_TOKEN');
  assert.equal(found.get('CLOUDFLARE_API_TOKEN')?.note, null);
});

test('a value of several lines stays on one line of the table', () => {
  const { out } = run({
    ...base,
    DOMAINS: 'x.example.com',
    ROUTING_MAP: 'app.example.com=app:80\n# more\nx.example.com=x:80',
  });
  assert.match(
    out,
    /^ROUTING_MAP +"app\.example\.com=app:80\\n# more\\nx\.example\.com=x:80" +environment$/m,
  );
});

test('with mistakes it ends with 78 and tells them, and a warning does not spoil the JSON', () => {
  const { code, out, err } = run({ ...base, PORT: '0' });
  assert.deepEqual([code, out], [78, '']);
  assert.match(err, /^config: .*\n +PORT: /);
  const warned = run({ ...base, EVIDENCE_PORT: '80' }, true);
  assert.equal(warned.err, '');
  assert.equal(JSON.parse(warned.out).warnings[0].variable, 'EVIDENCE_PORT');
  assert.match(run({ ...base, EVIDENCE_PORT: '80' }).err, /^EVIDENCE_PORT: no longer does anything/);
});
