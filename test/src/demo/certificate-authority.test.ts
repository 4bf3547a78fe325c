// What the demo's CA grants and, above all, what it refuses.

import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject, sign, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createSecureContext, createServer as createTlsServer, type TLSSocket } from 'node:tls';
import acme from 'acme-client';
import {
  type CertificateAuthority,
  startCertificateAuthority,
} from '../../../src/demo/certificate-authority.ts';

const domain = 'app.example.com';

let folder: string;
let authority: CertificateAuthority;
let root: string;
let agent: Agent;
let answering: Awaited<ReturnType<typeof startChallengeServer>>;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'demo-ca-test-'));
  answering = await startChallengeServer();
  authority = await startCertificateAuthority({ tlsAlpnPort: answering.port, folder });
  root = await readFile(authority.caFile, 'utf8');
  agent = new Agent({ ca: root });
  acme.axios.defaults.httpsAgent = agent;
  acme.axios.defaults.proxy = false;
});

after(async () => {
  agent.destroy();
  await authority.stop();
  await answering.stop();
  await rm(folder, { recursive: true });
});

describe('an honest client', () => {
  for (const [algorithm, accountKey] of [
    ['ES256', () => acme.crypto.createPrivateEcdsaKey('P-256')],
    ['RS256', () => acme.crypto.createPrivateRsaKey(2048)],
  ] as const) {
    test(`gets a certificate with an ${algorithm} account, and the chain leads to the root`, async () => {
      const client = newClient(await accountKey());
      const order = await validatedOrder(client, [domain, 'www.example.com']);
      const [, csr] = await acme.crypto.createCsr({
        commonName: domain,
        altNames: [domain, 'www.example.com'],
      });
      const finalized = await client.finalizeOrder(order, csr);
      const chain = acme.crypto.splitPemChain(await client.getCertificate(finalized));

      assert.equal(chain.length, 2);
      const [leaf, intermediate] = chain.map((pem) => new X509Certificate(pem));
      assert.equal(leaf!.subjectAltName, 'DNS:app.example.com, DNS:www.example.com');
      assert.ok(leaf!.checkIssued(intermediate!) && leaf!.verify(intermediate!.publicKey));
      const trusted = new X509Certificate(root);
      assert.ok(intermediate!.checkIssued(trusted) && intermediate!.verify(trusted.publicKey));
      assert.match(trusted.subject, /demo root \(not trusted by anyone\)/);
    });
  }

  test('finds its account again, and none is made for a key that only looks', async () => {
    const key = await acme.crypto.createPrivateEcdsaKey('P-256');
    const lookup = newClient(key);
    await assert.rejects(lookup.createAccount({ onlyReturnExisting: true }), /no account has this key/);
    await assert.rejects(lookup.createAccount({ onlyReturnExisting: true }), /no account has this key/);
    await newClient(key).createAccount({ contact: ['mailto:someone@example.com'] });
    const found = newClient(key);
    const account = await found.createAccount({ onlyReturnExisting: true });
    assert.equal(account.status, 'valid');
    assert.deepEqual(account.contact, ['mailto:someone@example.com']);
    assert.match(found.getAccountUrl(), /\/account\//);
  });
});

describe('a request whose signature does not hold up', () => {
  test('is refused when its nonce was used before, and told so by the type badNonce', async () => {
    const client = rawClient();
    const nonce = await client.nonce();
    assert.equal((await client.post('/new-account', {}, { nonce })).status, 201);
    const replayed = await client.post('/new-account', {}, { nonce });
    assert.equal(replayed.status, 400);
    assert.equal(replayed.body.type, 'urn:ietf:params:acme:error:badNonce');
    assert.equal(typeof replayed.nonce, 'string', 'a fresh nonce comes with the refusal (RFC 8555 §6.5)');
  });

  test('is refused when it was signed for another URL', async () => {
    const client = rawClient();
    const reply = await client.post(
      '/new-account',
      {},
      { url: new URL('/new-order', authority.directoryUrl).href },
    );
    assert.deepEqual([reply.status, reply.body.type], [401, 'urn:ietf:params:acme:error:unauthorized']);
  });

  test("is refused when another key's signature stands under it", async () => {
    const client = rawClient();
    const reply = await client.post('/new-account', {}, { signWith: newKey().privateKey });
    assert.deepEqual([reply.status, reply.body.type], [400, 'urn:ietf:params:acme:error:malformed']);
    assert.match(reply.body.detail, /signature/);
  });

  test('is refused when its payload was changed after signing', async () => {
    const client = rawClient();
    const payload = Buffer.from('{"contact":["mailto:other@example.com"]}').toString('base64url');
    const reply = await client.post('/new-account', {}, { sentPayload: payload });
    assert.match(reply.body.detail, /signature/);
  });

  test('is refused with an algorithm that is none, or without one of jwk and kid', async () => {
    const client = rawClient();
    const unsigned = await client.post('/new-account', {}, { header: { alg: 'none' } });
    assert.equal(unsigned.body.type, 'urn:ietf:params:acme:error:badSignatureAlgorithm');
    const both = await client.post('/new-account', {}, { header: { kid: 'https://example.com/1' } });
    assert.match(both.body.detail, /either jwk or kid/);
  });

  test("is refused for another account's order", async () => {
    const owner = newClient(await acme.crypto.createPrivateEcdsaKey('P-256'));
    await owner.createAccount();
    const order = await owner.createOrder({ identifiers: [{ type: 'dns', value: domain }] });
    const stranger = newClient(await acme.crypto.createPrivateEcdsaKey('P-256'));
    await stranger.createAccount();
    await assert.rejects(stranger.getOrder(order), /this account has no such resource/);
  });
});

describe('an order', () => {
  test('is not finalized before its challenges are answered', async () => {
    const client = newClient(await acme.crypto.createPrivateEcdsaKey('P-256'));
    await client.createAccount();
    const order = await client.createOrder({ identifiers: [{ type: 'dns', value: domain }] });
    const [, csr] = await acme.crypto.createCsr({ altNames: [domain] });
    await assert.rejects(client.finalizeOrder(order, csr), /the order is pending/);
  });

  test('becomes invalid, and says what was seen, when the server shows no challenge certificate', async () => {
    const client = newClient(await acme.crypto.createPrivateEcdsaKey('P-256'));
    await client.createAccount();
    const order = await client.createOrder({ identifiers: [{ type: 'dns', value: 'silent.example.com' }] });
    const [authorization] = await client.getAuthorizations(order);
    await client.completeChallenge(authorization!.challenges[0]!);
    await assert.rejects(client.waitForValidStatus(authorization!.challenges[0]!));
    const after = await client.getOrder(order);
    assert.equal(after.status, 'invalid');
    const { error } = after as unknown as { error: { type: string; detail: string } };
    assert.match(error.type, /:(connection|unauthorized)$/);
    assert.match(error.detail, /silent\.example\.com/);
  });

  test('becomes invalid when the certificate shown is for another key authorization', async () => {
    const client = newClient(await acme.crypto.createPrivateEcdsaKey('P-256'));
    await client.createAccount();
    const order = await client.createOrder({ identifiers: [{ type: 'dns', value: 'stale.example.com' }] });
    const [authorization] = await client.getAuthorizations(order);
    await answering.present(authorization!, 'a token of yesterday.and its thumbprint');
    await client.completeChallenge(authorization!.challenges[0]!);
    await assert.rejects(
      client.waitForValidStatus(authorization!.challenges[0]!),
      /another key authorization/,
    );
  });

  test('is not finalized by a request for more names, fewer names or others', async () => {
    const client = newClient(await acme.crypto.createPrivateEcdsaKey('P-256'));
    const order = await validatedOrder(client, [domain, 'www.example.com']);
    for (const altNames of [
      [domain],
      [domain, 'www.example.com', 'bank.example'],
      [domain, 'bank.example'],
    ]) {
      const [, csr] = await acme.crypto.createCsr({ altNames });
      await assert.rejects(client.finalizeOrder(order, csr), /the request names/);
    }
    const [, csr] = await acme.crypto.createCsr({ altNames: ['www.example.com', domain] });
    assert.equal((await client.finalizeOrder(order, csr)).status, 'valid');
  });

  test('is not taken for a wildcard, an IP address or what is no name at all', async () => {
    const client = newClient(await acme.crypto.createPrivateEcdsaKey('P-256'));
    await client.createAccount();
    for (const identifier of [
      { type: 'dns', value: '*.example.com' },
      { type: 'ip', value: '127.0.0.1' },
      { type: 'dns', value: 'no name' },
    ]) {
      await assert.rejects(
        client.createOrder({ identifiers: [identifier] }),
        /wildcards|type ip|not a domain name/,
      );
    }
  });
});

function newClient(accountKey: Buffer) {
  return new acme.Client({
    directoryUrl: authority.directoryUrl,
    accountKey,
    backoffAttempts: 8,
    backoffMin: 50,
    backoffMax: 200,
  });
}

async function validatedOrder(client: acme.Client, names: string[]): Promise<acme.Order> {
  await client.createAccount();
  const order = await client.createOrder({ identifiers: names.map((value) => ({ type: 'dns', value })) });
  for (const authorization of await client.getAuthorizations(order)) {
    const challenge = authorization.challenges[0]!;
    await answering.present(authorization, await client.getChallengeKeyAuthorization(challenge));
    await client.completeChallenge(challenge);
    await client.waitForValidStatus(challenge);
  }
  return client.getOrder(order);
}

/** A TLS server that shows the challenge certificates it was given (RFC 8737), and nothing for other names. */
async function startChallengeServer() {
  const shown = new Map<string, ReturnType<typeof createSecureContext>>();
  const server = createTlsServer({
    ALPNProtocols: ['acme-tls/1'],
    SNICallback(name, done) {
      const context = shown.get(name);
      if (context === undefined) return done(new Error(`no challenge for ${name}`));
      done(null, context);
    },
  });
  const open = new Set<TLSSocket>();
  server.on('secureConnection', (socket) => {
    open.add(socket);
    socket.on('error', () => {}).on('close', () => open.delete(socket));
  });
  server.on('tlsClientError', () => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as { port: number }).port,
    async present(authorization: acme.Authorization, keyAuthorization: string) {
      const [key, cert] = await acme.crypto.createAlpnCertificate(authorization, keyAuthorization);
      shown.set(authorization.identifier.value, createSecureContext({ key, cert }));
    },
    async stop() {
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

function newKey() {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' });
}

interface Tampering {
  nonce?: string;
  url?: string;
  header?: Record<string, unknown>;
  signWith?: KeyObject;
  sentPayload?: string;
}

/** Signs by hand, so that each part can be got wrong. */
function rawClient() {
  const { privateKey, publicKey } = newKey();
  const nonce = async () => (await exchange('HEAD', '/new-nonce')).nonce;
  return {
    nonce,
    async post(path: string, payload: object, tampering: Tampering = {}) {
      const header = {
        alg: 'ES256',
        jwk: publicKey.export({ format: 'jwk' }),
        nonce: tampering.nonce ?? (await nonce()),
        url: tampering.url ?? new URL(path, authority.directoryUrl).href,
        ...tampering.header,
      };
      const encoded = [header, payload].map((part) =>
        Buffer.from(JSON.stringify(part)).toString('base64url'),
      );
      const key = tampering.signWith ?? privateKey;
      const signature = sign('sha256', Buffer.from(encoded.join('.')), { key, dsaEncoding: 'ieee-p1363' });
      const body = {
        protected: encoded[0],
        payload: tampering.sentPayload ?? encoded[1],
        signature: signature.toString('base64url'),
      };
      return exchange('POST', path, JSON.stringify(body));
    },
  };
}

async function exchange(method: string, path: string, body?: string) {
  const sent = request(new URL(path, authority.directoryUrl), {
    method,
    agent,
    headers: { 'content-type': 'application/jose+json' },
  });
  sent.end(body);
  const [response] = await once(sent, 'response');
  let text = '';
  for await (const part of response.setEncoding('utf8')) text += part;
  return {
    status: response.statusCode as number,
    nonce: response.headers['replay-nonce'] as string,
    body: (text === '' ? {} : JSON.parse(text)) as { type: string; detail: string },
  };
}
