// Debian's nginx and the ingress with the same files before them, each in front of an upstream that tells what it was asked.

import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import {
  createServer,
  type Server as HttpServer,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createListener, type Listener } from '../../proxy/listener/listener.ts';
import { describeMistake } from '../../src/config/mistake.ts';
import { silentLog } from '../../src/lib/log.ts';
import { readNginxFiles } from '../../src/routes/nginx/read.ts';
import { startNginx } from '../support/nginx.ts';
import { freePort } from '../support/ports.ts';
import { makeCertificate } from '../support/proxy.ts';
import { type Ask, type Client, createHttp1Client, createHttp2Client, type Reply } from './clients.ts';

/** What an upstream was asked. */
export interface Heard {
  readonly method: string;
  readonly target: string;
  readonly version: string;
  /** Names in lower case, sorted. */
  readonly fields: readonly (readonly [name: string, value: string])[];
  readonly body: string;
}

export interface Outcome extends Reply {
  readonly heard: readonly Heard[];
}

export type Protocol = 'HTTP/1.1' | 'HTTP/2';

export interface Side {
  ask(ask: Ask & { readonly host: string }, protocol: Protocol): Promise<Outcome>;
}

export interface Stage extends AsyncDisposable {
  readonly nginx: Side;
  readonly ours: Side;
}

export interface StageOptions {
  /** By name. UP is an upstream, DOWN a port where nobody listens, FOLDER where `disk` lies. */
  readonly files: Readonly<Record<string, string>>;
  /** Every host that is asked for. */
  readonly hosts: readonly string[];
  /** Files below FOLDER, by name. */
  readonly disk?: Readonly<Record<string, string>>;
}

/** When every file was changed last. */
export const MODIFIED = new Date('2024-01-01T00:00:00Z');

/** The same port at two addresses of this machine, so that nothing differs but who answers. */
const NGINX_ADDRESS = '127.0.0.2';
const OUR_ADDRESS = '127.0.0.3';

export async function startStage({ files, hosts, disk = {} }: StageOptions): Promise<Stage> {
  const folder = await mkdtemp(join(tmpdir(), 'side-by-side-'));
  await writeAll(folder, disk);
  const names = [...new Set(hosts.map((host) => host.toLowerCase().replace(/:\d+$/, '').replace(/\.$/, '')))];
  const certificate = await makeCertificate(names.filter((name) => /^[a-z0-9.-]+$/.test(name)));
  await writeAll(folder, { 'tls/cert.pem': certificate.chain, 'tls/key.pem': certificate.key });
  const port = await freePort();
  const behindNginx = await startTeller();
  const behindOurs = await startTeller();
  const filled = (text: string, up: number) =>
    text.replaceAll('FOLDER', folder).replaceAll('UP', `127.0.0.1:${up}`).replaceAll('DOWN', '127.0.0.1:1');
  const listening = (text: string, address: string) =>
    text.replaceAll(/\blisten TLS\b/g, `listen ${address}:${port} ssl http2`);
  for (const [name, text] of Object.entries(files)) {
    const forNginx = listening(filled(text, behindNginx.port), NGINX_ADDRESS);
    const forUs = listening(filled(text, behindOurs.port), OUR_ADDRESS);
    await writeAll(folder, { [`nginx/${name}`]: forNginx, [`ours/conf.d/${name}`]: forUs });
  }
  const listener = await startOurs(join(folder, 'ours/conf.d'), port, certificate);
  const nginx = await startNginx({
    port: await freePort(),
    server: '',
    defaultType: 'application/octet-stream',
    beside: `ssl_certificate ${folder}/tls/cert.pem; ssl_certificate_key ${folder}/tls/key.pem;
      include /etc/nginx/mime.types; include ${folder}/nginx/*.conf;`,
  });
  const parties = { port, ca: certificate.chain };
  const ofNginx = createSide({ address: NGINX_ADDRESS, ...parties }, behindNginx, folder);
  const ofOurs = createSide({ address: OUR_ADDRESS, ...parties }, behindOurs, folder);
  return {
    nginx: ofNginx,
    ours: ofOurs,
    async [Symbol.asyncDispose]() {
      ofNginx.close();
      ofOurs.close();
      await listener.drain(0);
      await nginx.stop();
      behindNginx.close();
      behindOurs.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function writeAll(folder: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    const path = join(folder, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
    await utimes(path, MODIFIED, MODIFIED);
  }
}

async function startOurs(
  folder: string,
  port: number,
  certificate: Awaited<ReturnType<typeof makeCertificate>>,
): Promise<Listener> {
  const { rules, mistakes } = readNginxFiles(folder, {
    readFile: (path) => readFileSync(path, 'utf8'),
    listFolder: (path) => readdirSync(path),
  });
  if (mistakes.length > 0) throw new Error(mistakes.map(describeMistake).join('\n'));
  const listener = createListener({ host: OUR_ADDRESS, port, log: silentLog });
  listener.setCertificates([certificate]);
  listener.setRoutes([], rules);
  await listener.listen();
  return listener;
}

interface Teller {
  readonly port: number;
  /** What it heard since it was asked last. */
  takeHeard(): Heard[];
  close(): void;
}

/**
 * Says what it was asked, as JSON. A field X-Say of the request, JSON as well, changes the reply: `status`, `fields`,
 * `body`; X-Say-PATH, with the first segment of the path, wins over it.
 */
async function startTeller(): Promise<Teller> {
  let heard: Heard[] = [];
  const server: HttpServer = createServer((incoming, response) => {
    let body = '';
    incoming.setEncoding('latin1');
    incoming.on('data', (text: string) => {
      body += text;
    });
    incoming.on('end', () => {
      const asked = heardOf(incoming, body);
      heard.push(asked);
      tell(incoming, asked, response);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    port,
    takeHeard() {
      const taken = heard;
      heard = [];
      return taken;
    },
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

function heardOf(incoming: IncomingMessage, body: string): Heard {
  const fields: [string, string][] = [];
  for (let i = 0; i < incoming.rawHeaders.length; i += 2)
    fields.push([incoming.rawHeaders[i]!.toLowerCase(), incoming.rawHeaders[i + 1]!]);
  return {
    method: incoming.method!,
    target: incoming.url!,
    version: incoming.httpVersion,
    fields: fields.sort(([a, b], [c, d]) => (a < c ? -1 : a > c ? 1 : b < d ? -1 : 1)),
    body,
  };
}

function tell(incoming: IncomingMessage, asked: Heard, response: ServerResponse): void {
  const segment = /^\/([a-z0-9]+)/i.exec(asked.target)?.[1]?.toLowerCase();
  const said = incoming.headers[`x-say-${segment}`] ?? incoming.headers['x-say'];
  const { status = 200, fields = [], body } = said === undefined ? {} : JSON.parse(String(said));
  const text = body ?? `${asked.method} ${asked.target}`;
  const all = fields.map(([name, value]: [string, string]) => [
    name,
    value.replaceAll('UP', `127.0.0.1:${incoming.socket.localPort}`),
  ]);
  const names = all.map(([name]: [string]) => name.toLowerCase());
  if (!names.includes('content-type')) all.push(['Content-Type', 'text/plain']);
  response.sendDate = false;
  response.writeHead(status, all.flat());
  response.end(status === 204 || status === 304 ? undefined : text);
}

function createSide(
  server: { address: string; port: number; ca: string },
  teller: Teller,
  folder: string,
): Side & { close(): void } {
  const clients: Record<Protocol, Client> = {
    'HTTP/1.1': createHttp1Client(server),
    'HTTP/2': createHttp2Client(server),
  };
  const neutral = (text: string) =>
    text
      .replaceAll(`127.0.0.1:${teller.port}`, 'UP')
      .replaceAll(String(teller.port), 'UPPORT')
      .replaceAll(server.address, 'SERVER')
      .replaceAll(String(server.port), 'PORT')
      .replaceAll(folder, 'FOLDER');
  const neutralFields = (fields: Reply['fields']) =>
    fields.map(([name, value]) => [name, neutral(value)] as const);
  return {
    async ask(ask, protocol) {
      teller.takeHeard();
      const reply = await clients[protocol].ask(ask);
      const heard = teller.takeHeard().map((one) => ({
        ...one,
        target: neutral(one.target),
        fields: neutralFields(one.fields),
      }));
      return { status: reply.status, fields: neutralFields(reply.fields), body: neutral(reply.body), heard };
    },
    close() {
      for (const client of Object.values(clients)) client.close();
    },
  };
}
