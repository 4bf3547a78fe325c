// Clients' certificates, asked for in the handshake by the name in it: who comes in, what the app is told, and what is tried to get past.

import assert from 'node:assert/strict';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { describe, it, type TestContext } from 'node:test';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import type { ClientAuth, Content, Location, RuleSet, Site } from '../../../proxy/rules/model.ts';
import { makeCertificate } from '../../support/certificates.ts';
import { createAuthority, type Identity } from '../../support/client-pki.ts';
import { unlessUsed } from '../../support/insides.ts';
import { type Serving, serve } from '../../support/pairings.ts';
import { connectRaw, HOST, startIngress } from '../../support/proxy.ts';
import { prefix, t } from '../rules/driver.ts';

const names = [HOST, 'open.test', 'other.test', 'lax.test', 'plain.test'] as const;
const certificate = await makeCertificate(names[0], ...names.slice(1));
const [ours, theirs] = [await createAuthority('O=ours'), await createAuthority('O=theirs')];
const inner = await ours.intermediate('CN=inner, O=ours');
const innermost = await inner.intermediate('CN=innermost, O=ours');
const ann = await ours.sign('C=DE, O="Ex, Inc", CN=änn');
const strangers = await theirs.sign('CN=stranger');
const expired = await ours.sign('CN=expired', -1);
const revoked = await ours.sign('CN=revoked');
const distant = await inner.sign('CN=distant');
const farther = await innermost.sign('CN=farther');

const required: ClientAuth = { mode: 'require', authorities: ours.pem, depth: 1 };
const up: Content = { kind: 'proxy', upstream: 'up', protocol: 'http', host: 'up' };
const told: readonly Location[] = [
  prefix('/', {
    content: up,
    policy: {
      requestHeaders: (['verify', 's_dn', 'fingerprint', 'serial', 'i_dn'] as const).map((name) => ({
        do: 'set',
        name: `x-${name.replace('_', '-')}`,
        value: t(`$ssl_client_${name}`),
      })),
    },
  }),
];

function site(name: string, clientAuth: ClientAuth | undefined): Site {
  return {
    names: [{ kind: 'exact', name }],
    label: name,
    locations: told,
    ...(clientAuth !== undefined && { clientAuth }),
  };
}

function rulesOf(port: number, sites: readonly Site[]): RuleSet {
  return {
    policy: { connectTimeoutMs: 2_000, readTimeoutMs: 30_000, sendTimeoutMs: 30_000 },
    upstreams: [{ name: 'up', servers: [{ host: '127.0.0.1', port }] }],
    sites,
  };
}

const sites = [
  site(HOST, required),
  site('open.test', undefined),
  site('other.test', { mode: 'optional', authorities: theirs.pem }),
  site('lax.test', { mode: 'unverified', authorities: ours.pem }),
];

async function setUp(context: TestContext, list: readonly Site[] = sites) {
  const upstream: Serving = await serve(context, 'h1', (served) => served.reply(200, 'in'));
  const ingress = await startIngress([], { ticketKeys: Buffer.alloc(48, 7) });
  context.after(ingress.close);
  ingress.listener.setCertificates([{ names: [...names], chain: certificate.chain, key: certificate.key }]);
  ingress.listener.setRoutes([], rulesOf(upstream.port, list));
  return { upstream, ingress };
}

const trusting = { ca: certificate.chain, rejectUnauthorized: true };

async function ask(port: number, host: string, more: ConnectionOptions = {}, asked = host, field = '') {
  const client = await connectRaw(port, { ...trusting, servername: host, ...more });
  const answer = await client.request(`GET / HTTP/1.1\r\nHost: ${asked}\r\n${field}\r\n`);
  client.socket.destroy();
  return answer.status;
}

const versions = ['TLSv1.2', 'TLSv1.3'] as const;

for (const version of versions)
  describe(`a client of ${version}`, () => {
    const way = { minVersion: version, maxVersion: version };
    const as = (identity: Identity) => ({ ...way, ...identity });

    it('comes in with a certificate of the right authority, and the app is told whose it is', async (context) => {
      const { upstream, ingress } = await setUp(context);
      assert.equal(await ask(ingress.port, HOST, as(ann), HOST, 'x-s-dn: CN=forged\r\n'), 200);
      const { headers } = upstream.requests[0]!;
      assert.equal(headers['x-verify'], 'SUCCESS');
      assert.equal(headers['x-s-dn'], 'CN=\\C3\\A4nn,O=Ex\\, Inc,C=DE');
      assert.equal(headers['x-i-dn'], 'O=ours');
      assert.match(String(headers['x-fingerprint']), /^[0-9a-f]{40}$/);
      assert.match(String(headers['x-serial']), /^[0-9A-F]+$/);
    });

    it('does not come in without one, nor with another', async (context) => {
      const { upstream, ingress } = await setUp(context);
      assert.equal(await ask(ingress.port, HOST, way), 400);
      for (const identity of [strangers, expired])
        assert.equal(await ask(ingress.port, HOST, as(identity)), 400);
      assert.equal(upstream.requests.length, 0);
    });

    it('is judged by the length of the chain, and by what was revoked', async (context) => {
      const crl = `${await ours.revoke(revoked)}\n`;
      const { ingress } = await setUp(context, [
        site(HOST, required),
        site('other.test', { mode: 'require', authorities: ours.pem, crl }),
      ]);
      assert.equal(await ask(ingress.port, HOST, as(distant)), 200);
      assert.equal(await ask(ingress.port, HOST, as(farther)), 400, 'two intermediates');
      assert.equal(await ask(ingress.port, 'other.test', as(revoked)), 400);
      assert.equal(await ask(ingress.port, 'other.test', as(ann)), 200);
    });

    it('may have none where it is optional, but no bad one', async (context) => {
      const { upstream, ingress } = await setUp(context);
      assert.equal(await ask(ingress.port, 'other.test', way, 'other.test', 'x-s-dn: CN=forged\r\n'), 200);
      assert.equal(upstream.requests[0]!.headers['x-verify'], 'NONE');
      assert.equal(upstream.requests[0]!.headers['x-s-dn'], undefined);
      assert.equal(await ask(ingress.port, 'other.test', as(strangers)), 200);
      assert.equal(await ask(ingress.port, 'other.test', as(ann)), 400);
    });

    it('may be signed by anybody where rules judge it themselves, but not be out of date', async (context) => {
      const { upstream, ingress } = await setUp(context);
      assert.equal(await ask(ingress.port, 'lax.test', as(strangers)), 200);
      assert.equal(
        upstream.requests[0]!.headers['x-verify'],
        'FAILED:unable to verify the first certificate',
      );
      assert.equal(await ask(ingress.port, 'lax.test', as(expired)), 400);
    });

    it('is asked by nobody else', { skip: unlessUsed('client-certificates') }, async (context) => {
      const { upstream, ingress } = await setUp(context);
      assert.equal(await ask(ingress.port, 'open.test', as(strangers)), 200);
      assert.equal(upstream.requests[0]!.headers['x-verify'], 'NONE');
    });

    it('is told 421 for a name that its handshake was not for', async (context) => {
      const { upstream, ingress } = await setUp(context);
      assert.equal(await ask(ingress.port, 'open.test', as(ann), HOST), 421);
      assert.equal(await ask(ingress.port, 'other.test', as(strangers), HOST), 421);
      assert.equal(await ask(ingress.port, HOST, as(ann), 'other.test'), 421);
      assert.equal(await ask(ingress.port, HOST, as(ann), `${HOST}.`), 200);
      assert.equal(await ask(ingress.port, HOST, as(ann), 'open.test'), 200);
      assert.equal(upstream.requests.length, 2);
    });

    it('shows it in each handshake: none is resumed', async (context) => {
      const { ingress } = await setUp(context);
      for (const [host, identity] of [
        [HOST, ann],
        ['open.test', strangers],
        ['other.test', strangers],
      ] as const) {
        const session = await sessionOf(ingress.port, host, as(identity));
        assert.equal(await ask(ingress.port, HOST, { ...way, session }), 400, `a session of ${host}`);
        assert.equal(await ask(ingress.port, HOST, { ...as(strangers), session }), 400);
        assert.equal(await ask(ingress.port, HOST, { ...as(ann), session }), 200);
      }
    });

    it('is asked anew once rules ask it, whatever its session was', async (context) => {
      const { ingress, upstream } = await setUp(context, [site(HOST, undefined)]);
      const session = await sessionOf(ingress.port, HOST, way);
      const open = await connectRaw(ingress.port, { ...trusting, ...way, servername: HOST });
      const text = `GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`;
      assert.equal((await open.request(text)).status, 200);
      ingress.listener.setRoutes([], rulesOf(upstream.port, sites));
      assert.equal((await open.request(text)).status, 421, 'its connection was made before');
      open.socket.destroy();
      assert.equal(await ask(ingress.port, HOST, { ...way, session }), 400);
      assert.equal(await ask(ingress.port, HOST, { ...as(ann), session }), 200);
      ingress.listener.setRoutes([], rulesOf(upstream.port, [site(HOST, undefined)]));
      assert.equal(await ask(ingress.port, HOST, way), 200);
    });
  });

describe('clients’ certificates', () => {
  it('hold for a connection as long as what is asked is the same', async (context) => {
    const { ingress, upstream } = await setUp(context);
    const client = await connectRaw(ingress.port, { ...trusting, ...ann, servername: HOST });
    const text = `GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`;
    assert.equal((await client.request(text)).status, 200);
    ingress.listener.setRoutes([], structuredClone(rulesOf(upstream.port, sites)));
    assert.equal((await client.request(text)).status, 200, 'a reload without a change');
    const others = sites.map((one) =>
      one.label === HOST ? site(HOST, { ...required, authorities: theirs.pem }) : one,
    );
    ingress.listener.setRoutes([], rulesOf(upstream.port, others));
    assert.equal((await client.request(text)).status, 421);
    client.socket.destroy();
  });

  it('hold for HTTP/2, whose requests may ask for several names', async (context) => {
    const { ingress } = await setUp(context);
    const session = connectHttp2(`https://${HOST}`, {
      createConnection: () =>
        connectTls({
          ...trusting,
          ...ann,
          host: '127.0.0.1',
          port: ingress.port,
          servername: HOST,
          ALPNProtocols: ['h2'],
        }),
    });
    context.after(() => session.destroy());
    assert.equal(await statusOf(session, HOST), 200);
    assert.equal(await statusOf(session, 'other.test'), 421);
    assert.equal(await statusOf(session, 'open.test'), 200);
    assert.equal(await statusOf(session, HOST), 200);
  });

  it('have pages of their own where rules have them', async (context) => {
    const { ingress } = await setUp(context, [
      {
        ...site(HOST, required),
        policy: {
          errorPages: [{ statuses: [496], target: { kind: 'uri', uri: ['/join'] } }],
        },
        locations: [
          prefix('/join', { content: { kind: 'respond', status: 200, body: ['how to get one'] } }),
          ...told,
        ],
      },
    ]);
    const client = await connectRaw(ingress.port, { ...trusting, servername: HOST });
    const answer = await client.request(`GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`);
    assert.deepEqual([answer.status, answer.body], [496, 'how to get one']);
    client.socket.destroy();
  });
});

function sessionOf(port: number, servername: string, more: ConnectionOptions): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = connectTls({ ...trusting, host: '127.0.0.1', port, servername, ...more });
    let session: Buffer | undefined;
    socket.on('session', (given) => {
      session = given;
    });
    socket.on('data', () => {});
    socket.on('error', () => {});
    socket.on('close', () => resolve(session));
    socket.on('secureConnect', () =>
      socket.end(`GET / HTTP/1.1\r\nHost: ${servername}\r\nConnection: close\r\n\r\n`),
    );
  });
}

function statusOf(session: ClientHttp2Session, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':path': '/', ':authority': host });
    stream.on('response', (headers) => resolve(headers[':status']!));
    stream.on('error', reject);
    stream.resume();
    stream.end();
  });
}
