// A wrong configuration is reported whole, at once, before anything is touched.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import manifest from '../../package.json' with { type: 'json' };
import { TESTED_REVISION } from '../support/bundle.ts';
import { runProgram, startIngressProcess } from '../support/ingress-process.ts';
import { freePort } from '../support/ports.ts';

test('five mistakes are printed together with what each setting wants, and nothing is contacted', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'configuration-'));
  let contacts = 0;
  const watched = createServer((socket) => {
    contacts++;
    socket.destroy();
  });
  watched.listen(0, '127.0.0.1');
  await once(watched, 'listening');
  const { port } = watched.address() as { port: number };
  try {
    const ingress = startIngressProcess({
      DOMAIN: 'https://app.example.com/',
      TARGET_ENDPOINT: 'ftp://app:21',
      PORT: '99999',
      DNS_PROVIDER: 'clodflare',
      TIMEOUT_CONNECT: 'soon',
      ACME_DIRECTORY_URL: `https://127.0.0.1:${port}/dir`,
      CLOUDFLARE_BASE_URL: `http://127.0.0.1:${port}`,
      DSTACK_SIMULATOR_ENDPOINT: `http://127.0.0.1:${port}`,
      DNS_RESOLVERS: `127.0.0.1:${port}`,
      STATE_DIR: join(folder, 'state'),
      EVIDENCE_DIR: join(folder, 'evidences'),
    });
    const { code } = await ingress.exited;
    assert.equal(code, 78);
    const text = ingress.stderr();
    for (const variable of ['DOMAIN', 'TARGET_ENDPOINT', 'PORT', 'DNS_PROVIDER', 'TIMEOUT_CONNECT']) {
      assert.match(text, new RegExp(`^  ${variable}: .+`, 'm'), `${variable} is named in:\n${text}`);
    }
    assert.equal(contacts, 0);
    assert.deepEqual(await readdir(folder), [], 'no file was made');
  } finally {
    watched.close();
    await rm(folder, { recursive: true });
  }
});

test('a mistake in mounted nginx files stops the start with its place, and a misspelt setting is named beside it', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'configuration-'));
  await writeFile(
    join(folder, 'api.conf'),
    'server {\n  listen 443 ssl;\n  server_name api.example.com;\n  location / { proxy_pas http://api:8080; }\n}\n',
  );
  try {
    const ingress = startIngressProcess({
      DOMAIN: 'app.example.com',
      DOMAINS: 'api.example.com',
      TARGET_ENDPOINT: 'http://app:80',
      NGINX_CONF_DIR: folder,
      CLOUDFLARE_TOKEN: 'a-secret-token',
      GATEWAY_DOMAIN: 'gateway.example.net',
      STATE_DIR: join(folder, 'state'),
      EVIDENCE_DIR: join(folder, 'evidences'),
    });
    assert.equal((await ingress.exited).code, 78);
    const text = ingress.stderr();
    assert.match(text, /^configuration: 2 mistakes, nothing was started:$/m);
    assert.match(text, /^ {2}NGINX_CONF_DIR: \S*\/api\.conf:4:16: .*proxy_pas.*proxy_pass/m);
    assert.match(text, /^ {2}DNS_PROVIDER: dns-01 needs a DNS provider: wants one of cloudflare, /m);
    assert.match(
      text,
      /^look at this too:\n {2}CLOUDFLARE_TOKEN: is not a setting: was CLOUDFLARE_API_TOKEN meant\?$/m,
    );
    assert.ok(!text.includes('a-secret-token'));
    assert.deepEqual(await readdir(folder), ['api.conf']);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('one line at start says where each domain goes', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'configuration-'));
  const ingress = startIngressProcess({
    DOMAIN: 'app.example.com',
    DOMAINS: 'api.example.com,db.example.com',
    TARGET_ENDPOINT: 'http://127.0.0.1:9',
    ROUTING_MAP: 'db.example.com=tcp://127.0.0.1:10',
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
    ACME_DIRECTORY_URL: 'https://127.0.0.1:9/directory',
    LISTEN_ADDRESS: '127.0.0.1',
    PORT: String(await freePort()),
    STATE_DIR: join(folder, 'state'),
    EVIDENCE_DIR: join(folder, 'evidences'),
  });
  try {
    const line = await ingress.waitFor('where requests go');
    assert.equal(line.level, 'info');
    assert.deepEqual(line.routes, {
      'db.example.com': 'tcp://127.0.0.1:10',
      'app.example.com': 'http://127.0.0.1:9',
      'api.example.com': 'http://127.0.0.1:9',
    });
  } finally {
    await ingress.stop();
    await rm(folder, { recursive: true });
  }
});

test('an unknown command is refused with a hint and the usage code', async () => {
  const ingress = startIngressProcess({}, ['serf']);
  assert.equal((await ingress.exited).code, 2);
  assert.match(ingress.stderr(), /unknown command: serf\nhint: /);
});

test('help and version are printed to standard output, by the bundle as by the source', async () => {
  for (const flag of ['--help', '-h']) {
    const { code, stdout, stderr } = await runProgram([flag]);
    assert.deepEqual([code, stderr], [0, '']);
    assert.match(stdout, /^usage: dstack-ingress \[command\]\n/);
  }
  const { code, stdout, stderr } = await runProgram(['--version']);
  assert.deepEqual([code, stderr], [0, '']);
  assert.equal(stdout, `dstack-ingress ${manifest.version} (${TESTED_REVISION})\n`);
});

test('a port that is taken ends the start with the failure code and says which', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'configuration-'));
  const taken = createServer();
  taken.listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as { port: number };
  try {
    const ingress = startIngressProcess({
      DOMAIN: 'app.example.com',
      TARGET_ENDPOINT: 'http://127.0.0.1:9',
      CHALLENGE_TYPE: 'tls-alpn-01',
      DNS_SETUP_MODE: 'print',
      LISTEN_ADDRESS: '127.0.0.1',
      PORT: String(port),
      STATE_DIR: join(folder, 'state'),
      EVIDENCE_DIR: join(folder, 'evidences'),
    });
    const refused = await ingress.waitFor('cannot start');
    assert.match(JSON.stringify(refused.err), new RegExp(`127.0.0.1.*${port}.*another program has it`));
    assert.equal((await ingress.exited).code, 1);
  } finally {
    taken.close();
    await rm(folder, { recursive: true });
  }
});
