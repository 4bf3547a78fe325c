// Deployments of the earlier images as their users run them, and what each of them is promised after the image line is replaced.

import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client, credentials } from '@grpc/grpc-js';
import WebSocket, { type ClientOptions } from 'ws';
import { type EchoMessage, say } from '../../../src/demo/echo.ts';
import { get, handshake } from '../../support/world.ts';
import type { Deployed, Deployment, Surroundings } from './deployment.ts';

export const deployments: readonly Deployment[] = [
  {
    title: 'one domain with a DNS token, both sockets and a shared volume for the evidence',
    file: 'single-domain.yaml',
    async promises(deployed) {
      await assertServed(deployed, 'app.example.com', 'app');
      await assertEvidence(deployed, 'app.example.com');
      assertEvidenceVolume('app.example.com');
      assert.deepEqual(recordsOf(deployed.around.cloudflare, 'app.example.com'), [
        `CAA app.example.com 0 issue "127.0.0.1;accounturi=${accountUri()};validationmethods=dns-01"`,
        'CNAME app.example.com _.gateway.example.net',
        `TXT _dstack-app-address.app.example.com ${deployed.agent.appId}:443`,
      ]);
    },
  },
  {
    title: 'several domains by map, with the old agent alone',
    file: 'several-domains.yaml',
    async promises(deployed) {
      await assertServed(deployed, 'app.example.com', 'app-main');
      await assertServed(deployed, 'api.example.com', 'app-api');
      for (const domain of ['app.example.com', 'api.example.com']) await assertEvidence(deployed, domain);
      assert.ok(deployed.agent.calls.some((call) => call.startsWith('Tappd.')));
    },
  },
  {
    title:
      "server blocks of nginx, as 1.x mounted them, with nginx's own limits, maps, patterns and error pages",
    file: 'nginx-files.yaml',
    promises: assertNginxFiles,
  },
  {
    title: "Route 53 with certbot's names for the keys, long time-outs and large bodies",
    file: 'route53-certbot-keys.yaml',
    async promises(deployed) {
      await assertServed(deployed, 'app.example.com', 'server');
      const body = Buffer.alloc(2 << 20);
      assert.equal((await post(deployed, 'app.example.com', '/upload', body)).length, body.length);
      await assertEvidence(deployed, 'app.example.com');
      assert.deepEqual(
        recordsOf(deployed.around.route53, 'app.example.com').map((record) => record.split(' ')[0]),
        // Route 53 takes no CAA beside an alias.
        ['A', 'CAA', 'TXT'],
      );
    },
  },
  {
    title: 'names delegated into a zone of their own, and evidence that the app serves',
    file: 'delegated-zone.yaml',
    async prepare({ pebble }) {
      const zone = 'deleg.example.net';
      const names = ['', '_dstack-app-address.', '_acme-challenge.'].map(
        (prefix) => `${prefix}app.example.com`,
      );
      for (const name of names) await pebble.dns.setCname(name, `${name}.${zone}`);
      return async () => {
        for (const name of names) await pebble.dns.clearCname(name);
      };
    },
    async promises(deployed) {
      await assertServed(deployed, 'app.example.com', 'broker');
      assertEvidenceVolume('app.example.com');
      const answer = JSON.parse((await request(deployed, 'app.example.com', '/evidences/quote.json')).body);
      assert.equal(answer.service, 'broker', 'the app has the evidence, not the ingress');
      const zones = deployed.around.cloudflare;
      assert.deepEqual(
        recordsOf(zones, 'example.com').filter((record) => !record.includes('deleg')),
        [],
      );
    },
  },
  {
    title: 'no DNS token: the check goes over the serving port, the records are made by hand',
    file: 'without-token.yaml',
    async prepare({ pebble }, { instanceId }) {
      await pebble.dns.setCname('pay.example.com', '_.gateway.example.net');
      await pebble.dns.setTxt('_dstack-app-address.pay.example.com', [`${instanceId}:443`]);
    },
    async promises(deployed) {
      await assertServed(deployed, 'pay.example.com', 'app');
      await assertEvidence(deployed, 'pay.example.com');
      assert.match(
        JSON.stringify(deployed.ingress.log),
        /TLSALPN_PORT/,
        'what does nothing any more is named',
      );
    },
  },
  {
    title: 'a wildcard in front of another router',
    file: 'wildcard.yaml',
    async promises(deployed) {
      for (const name of ['one.k3s.example.com', 'two.k3s.example.com']) {
        const seen = await assertServed(deployed, name, 'traefik');
        assert.equal(seen.headers.host, name);
      }
      assert.deepEqual(
        recordsOf(deployed.around.cloudflare, 'k3s.example.com').map((record) =>
          record.split(' ', 2).join(' '),
        ),
        [
          'CAA k3s.example.com',
          'CNAME *.k3s.example.com',
          'TXT _dstack-app-address-wildcard.k3s.example.com',
        ],
      );
    },
  },
  {
    title: 'a gRPC app, with h2 alone offered',
    file: 'grpc.yaml',
    async promises(deployed) {
      assert.equal(await overGrpc(deployed, 'grpc.example.com', 'hello'), 'app: hello');
      await assertEvidence(deployed, 'grpc.example.com');
    },
  },
  {
    title: 'three stages of one service, a blank line among the domains, a prefix of their own for the TXT',
    file: 'stages.yaml',
    async promises(deployed) {
      for (const stage of ['test', 'pre', 'prod'])
        await assertServed(deployed, `${stage}.example.com`, stage);
      assert.deepEqual(
        recordsOf(deployed.around.cloudflare, 'prod.example.com').map((record) =>
          record.split(' ', 2).join(' '),
        ),
        ['CNAME prod.example.com', 'TXT _tapp-address.prod.example.com'],
      );
    },
  },
  {
    title: "a machine's own name with the public one beside it, through a role of AWS",
    file: 'subdomain-with-alias.yaml',
    async promises(deployed) {
      for (const name of ['machine-1.example.com', 'app.example.com'])
        await assertServed(deployed, name, 'task');
      const socket = await handshake({ port: 443, servername: 'app.example.com', ca: deployed.ca });
      assert.match(socket.getPeerCertificate().subjectaltname ?? '', /machine-1\.example\.com/);
      socket.destroy();
    },
  },
  {
    title: 'the example with server blocks of nginx',
    file: '../../../examples/nginx-files/compose.yaml',
    async promises(deployed) {
      const app = JSON.parse((await request(deployed, 'app.example.com')).body) as Seen;
      assert.equal(app.service, 'app');
      const { head } = await request(deployed, 'app.example.com', '/old');
      assert.match(
        head,
        /^HTTP\/1\.1 301 .*\r\nlocation: https:\/\/app\.example\.com\/new\?from=\/old\r\n/is,
      );
      const { head: fields, body } = await request(deployed, 'api.example.com', '/v1/things?a=b');
      const api = JSON.parse(body) as Seen;
      assert.deepEqual([api.service, api.url], ['api', '/things?a=b']);
      assert.match(fields, /cache-control: no-store/i);
      assert.equal((await request(deployed, 'api.example.com', '/v2/')).body, '{"error":"not found"}');
    },
  },
];

interface Seen {
  readonly service: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly length: number;
}

function request(
  { ca }: Deployed,
  servername: string,
  path = '/',
  headers: readonly string[] = [],
): Promise<{ status: number; head: string; body: string }> {
  return get({ port: 443, servername, ca, path, headers });
}

/** HTTP with the fields that apps rely on, and WebSocket, reach this service. */
async function assertServed(deployed: Deployed, name: string, service: string): Promise<Seen> {
  const { status, body } = await request(deployed, name, '/some/path?q=1');
  assert.equal(status, 200);
  const seen = JSON.parse(body) as Seen;
  assert.equal(seen.service, service);
  assert.equal(seen.url, '/some/path?q=1');
  assert.equal(seen.headers.host, name);
  assert.equal(seen.headers['x-forwarded-proto'], 'https');
  assert.equal(await overWebSocket(deployed, name, 'hello'), `${service}: hello`);
  return seen;
}

function overWebSocket({ ca }: Deployed, servername: string, text: string): Promise<string> {
  const socket = new WebSocket('wss://127.0.0.1/', [], {
    ca,
    servername,
    headers: { host: servername },
  } as ClientOptions);
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('open', () => socket.send(text));
    socket.once('message', (message) => {
      socket.close();
      resolve(String(message));
    });
  });
}

async function overGrpc({ ca }: Deployed, servername: string, text: string): Promise<string> {
  const client = new Client('127.0.0.1:443', credentials.createSsl(Buffer.from(ca)), {
    'grpc.ssl_target_name_override': servername,
    'grpc.default_authority': servername,
  });
  try {
    return await new Promise((resolve, reject) => {
      client.makeUnaryRequest<EchoMessage, EchoMessage>(
        say.path,
        say.requestSerialize,
        say.responseDeserialize,
        { text },
        { deadline: Date.now() + 20_000 },
        (error, reply) => (error === null ? resolve(reply!.text) : reject(error)),
      );
    });
  } finally {
    client.close();
  }
}

async function post(deployed: Deployed, name: string, path: string, body: Buffer): Promise<Seen> {
  return JSON.parse((await send(deployed, name, path, body)).body) as Seen;
}

async function send({ ca }: Deployed, servername: string, path: string, body: Buffer) {
  const socket = await handshake({ port: 443, servername, ca });
  socket.write(
    `POST ${path} HTTP/1.1\r\nHost: ${servername}\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n`,
  );
  socket.write(body);
  let text = '';
  for await (const chunk of socket.setEncoding('latin1')) text += chunk;
  const [head = '', ...rest] = text.split('\r\n\r\n');
  return { status: Number(head.slice(9, 12)), body: rest.join('\r\n\r\n') };
}

/** As a reader of today does it: the sums, what they list, and the certificate on the wire. */
async function assertEvidence(deployed: Deployed, name: string): Promise<void> {
  const file = async (path: string) => {
    const { status, body } = await request(deployed, name, `/evidences/${path}`);
    assert.equal(status, 200, path);
    return body;
  };
  const sums = await file('sha256sum.txt');
  const listed = sums
    .trim()
    .split('\n')
    .map((line) => line.split(/ [ *]/) as [string, string]);
  for (const [sum, path] of listed) assert.equal(sha256(await file(path)), sum, path);
  assert.ok(listed.some(([, path]) => path === 'acme-account.json'));
  const { report_data } = JSON.parse(await file('quote.json')) as { report_data: string };
  assert.equal(report_data.replace(/^0x/, '').slice(0, 64), sha256(sums));
  const socket = await handshake({ port: 443, servername: name, ca: deployed.ca });
  const { fingerprint256 } = new X509Certificate(await file(`cert-${name}.pem`));
  assert.equal(socket.getPeerCertificate().fingerprint256, fingerprint256);
  socket.destroy();
}

/** The app that mounts the volume finds the same four files, and no key. */
function assertEvidenceVolume(name: string): void {
  for (const file of ['acme-account.json', `cert-${name}.pem`, 'sha256sum.txt', 'quote.json'])
    assert.ok(existsSync(join('/evidences', file)), file);
}

function accountUri(): string {
  return (JSON.parse(readFileSync('/evidences/acme-account.json', 'utf8')) as { uri: string }).uri;
}

function recordsOf(double: Surroundings['cloudflare'], name: string): string[] {
  return double.contents().filter((record) => record.split(' ')[1]!.endsWith(name));
}

function sha256(text: string): string {
  return createHash('sha256').update(text, 'latin1').digest('hex');
}

async function assertNginxFiles(deployed: Deployed): Promise<void> {
  // That file passes no upgrade on, so that there is no WebSocket, as with nginx.
  const app = JSON.parse((await request(deployed, 'app.example.com', '/')).body) as Seen;
  assert.deepEqual([app.service, app.headers['x-real-ip']], ['app', '127.0.0.1']);
  await assertServed(deployed, 'api.example.com', 'api');
  const health = await request(deployed, 'api.example.com', '/health');
  assert.deepEqual([health.status, health.body], [200, '{"status":"ok"}']);
  for (const path of ['/admin', '/internal/keys'])
    assert.equal((await request(deployed, 'api.example.com', path)).status, 404, path);
  const large = await send(deployed, 'api.example.com', '/', Buffer.alloc(5_000));
  assert.deepEqual([large.status, large.body], [413, 'too large for this service']);
  await assertEvidence(deployed, 'api.example.com');
  // That location is in the file, and nginx serves the volume with it.
  assert.equal((await request(deployed, 'app.example.com', '/evidences/sha256sum.txt')).status, 200);
}
