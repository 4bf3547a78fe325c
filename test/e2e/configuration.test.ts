// A wrong configuration is reported whole, at once, before anything is touched.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import manifest from '../../package.json' with { type: 'json' };
import { TESTED_REVISION } from '../support/bundle.ts';
import { runProgram, startIngressProcess } from '../support/ingress-process.ts';

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
