// Files before Debian's nginx and before the ingress where it counts who the client is: what it shows in its handshake, and its address.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { createAuthority } from '../support/client-pki.ts';
import { compare } from './compare.ts';
import { type Stage, startStage } from './stage.ts';

const [ours, theirs] = [await createAuthority('O=ours'), await createAuthority('O=theirs')];
const inner = await ours.intermediate('CN=inner, O=ours');
const revoked = await ours.sign('CN=revoked');
const identities = {
  nothing: undefined,
  'a certificate of the authority': await ours.sign('C=DE, O="Ex, Inc", CN=ann'),
  'one with an intermediate': await inner.sign('CN=distant'),
  'one that has expired': await ours.sign('CN=expired', -1),
  'one that is revoked': revoked,
  'one of another authority': await theirs.sign('CN=stranger'),
};

const SAYS = ['verify', 's_dn', 'i_dn', 'serial', 'fingerprint']
  .map((name) => `$ssl_client_${name}`)
  .join('|');
const told = `
  location / { return 200 "${SAYS}"; }
  location /app { proxy_set_header X-Client "$ssl_client_s_dn $ssl_client_verify"; proxy_pass http://UP; }
  location /only { if ($ssl_client_verify != SUCCESS) { return 403; } proxy_pass http://UP; }`;
const server = (name: string, inside: string) =>
  `server { listen TLS; server_name ${name}.test; ${inside} ${told} }\n`;
const AUTHORITIES = 'ssl_client_certificate FOLDER/pki/ca.pem;';

/** By the name of the server. */
const modes: Readonly<Record<string, string>> = {
  off: 'ssl_verify_client off;',
  on: `ssl_verify_client on; ${AUTHORITIES}`,
  optional: `ssl_verify_client optional; ${AUTHORITIES}`,
  'optional-no-ca': `ssl_verify_client optional_no_ca; ${AUTHORITIES}`,
  deeper: `ssl_verify_client on; ssl_verify_depth 2; ${AUTHORITIES}`,
  revoking: `ssl_verify_client on; ssl_crl FOLDER/pki/crl.pem; ${AUTHORITIES}`,
};

describe('ssl_verify_client', () => {
  let stage: Stage;
  before(async () => {
    stage = await startStage({
      files: {
        'modes.conf': Object.entries(modes)
          .map(([name, inside]) => server(name, inside))
          .join(''),
      },
      hosts: Object.keys(modes).map((name) => `${name}.test`),
      disk: { 'pki/ca.pem': ours.pem, 'pki/crl.pem': await ours.revoke(revoked) },
    });
  });
  after(() => stage?.[Symbol.asyncDispose]());

  for (const [mode, inside] of Object.entries(modes))
    for (const [what, identity] of Object.entries(identities))
      test(`${mode}: a client that shows ${what} gets what nginx gives it`, async () => {
        for (const protocol of ['HTTP/1.1', 'HTTP/2'] as const)
          for (const target of ['/', '/app', '/only'])
            await compare(stage, { host: `${mode}.test`, target, identity }, inside, protocol, new Set());
      });
});

describe('with ssl_verify_client on', () => {
  test('nginx lets in whom the authority has signed, and nobody else: the comparison above is of something', async () => {
    const stage = await startStage({
      files: { 'on.conf': server('on', modes.on!) },
      hosts: ['on.test'],
      disk: { 'pki/ca.pem': ours.pem },
    });
    const statuses = [];
    for (const identity of Object.values(identities))
      statuses.push(
        (await stage.nginx.ask({ host: 'on.test', target: '/only', identity }, 'HTTP/1.1')).status,
      );
    assert.deepEqual(statuses, [400, 200, 200, 400, 200, 400]);
    await stage[Symbol.asyncDispose]();
  });
});

describe('ip_hash', () => {
  let stage: Stage;
  const servers: ReturnType<typeof createServer>[] = [];
  before(async () => {
    const ports: number[] = [];
    for (const name of ['a', 'b', 'c', 'd']) {
      const one = createServer((_request, response) => response.end(name)).listen(0, '127.0.0.1');
      await once(one, 'listening');
      servers.push(one);
      ports.push((one.address() as AddressInfo).port);
    }
    // The client's address comes from whom the file believes.
    stage = await startStage({
      files: {
        'hash.conf': `
          set_real_ip_from 127.0.0.0/8; real_ip_header X-Real-IP;
          upstream apps { ip_hash; ${ports.map((port) => `server 127.0.0.1:${port};`).join(' ')} }
          server { listen TLS; server_name hash.test; location / { proxy_pass http://apps; } }`,
      },
      hosts: ['hash.test'],
    });
  });
  after(async () => {
    await stage?.[Symbol.asyncDispose]();
    for (const one of servers) one.close();
  });

  /** Which server each address is given, once for each time that it asks. */
  async function given(side: 'nginx' | 'ours', addresses: readonly string[]): Promise<string[]> {
    const names: string[] = [];
    for (const address of addresses) {
      const ask = { host: 'hash.test', target: '/', headers: [['X-Real-IP', address]] } as const;
      const { status, body } = await stage[side].ask(ask, 'HTTP/1.1');
      assert.equal(status, 200);
      names.push(body);
    }
    return names;
  }

  const networks = Array.from({ length: 24 }, (_, i) => `198.51.${i}`);

  test('gives one address one server, and so its neighbours of the /24, as nginx does', async () => {
    for (const side of ['nginx', 'ours'] as const) {
      const [first, second, again] = [
        await given(
          side,
          networks.map((network) => `${network}.7`),
        ),
        await given(
          side,
          networks.map((network) => `${network}.200`),
        ),
        await given(
          side,
          networks.map((network) => `${network}.7`),
        ),
      ];
      assert.deepEqual(second, first, side);
      assert.deepEqual(again, first, side);
      assert.ok(new Set(first).size >= 3, `${side} has given ${first.join('')}`);
    }
  });

  test('goes by the whole address of IPv6, as nginx does', async () => {
    const addresses = Array.from({ length: 24 }, (_, i) => `2001:db8::${i}`);
    for (const side of ['nginx', 'ours'] as const) {
      const first = await given(side, addresses);
      assert.deepEqual(await given(side, addresses), first, side);
      assert.ok(new Set(first).size >= 3, `${side} has given ${first.join('')}`);
    }
  });
});
