// Attacks over real connections, by HTTP/1.1 and HTTP/2, on what rules keep: nothing of it is reached, however it is asked for.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { createListener, type Listener } from '../../../proxy/listener/listener.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { readNginxFiles } from '../../../src/routes/nginx/read.ts';
import { readRoutesFile } from '../../../src/routes/yaml/file.ts';
import { flag, headersFrame, PREFACE, settingsFrame } from '../../support/http2-frames.ts';
import { makeCertificate } from '../../support/proxy.ts';

const SECRET = 'the secret that nobody may see';
const HOSTS = ['guard.example.com', 'routes.example.com', 'other.example.com'];
/** Locations of both files, each behind a guard of its own. */
const GUARDED = ['deny', 'pass', 'ask', 'down', 'in', 'method'];

const nginxFile = (open: string, kept: string, folder: string) => `
server {
  listen 443 ssl; server_name guard.example.com;
  location / { proxy_pass ${open}; }
  location /deny { allow 10.0.0.0/8; deny all; proxy_pass ${kept}; }
  location /pass { auth_basic r; auth_basic_user_file ${folder}/users; proxy_pass ${kept}; }
  location /ask { auth_request /verdict; proxy_pass ${kept}; }
  location = /verdict { internal; proxy_pass ${open}/no; }
  location /down { auth_request /nobody; proxy_pass ${kept}; }
  location = /nobody { internal; proxy_pass http://127.0.0.1:1; }
  location /in { internal; proxy_pass ${kept}; }
  location /method { limit_except GET { deny all; } return 200 "read only"; }
  location ~* ^/(?:DENY|pass)\\.php$ { deny all; proxy_pass ${kept}; }
  location /files/ { alias ${folder}/www/; }
  location /www { alias ${folder}/www/; }
  location ~ ^/re/(.*)$ { alias ${folder}/www/$1; }
  location /var/ { root ${folder}/www/$arg_r; }
  location ~ ^/sub(/.*)$ { alias ${folder}/www/$arg_r$1; }
  location /try/ { root ${folder}/www; try_files /$arg_f $uri =404; }
  location /accel/ { internal; alias ${folder}/; }
}`;

const routesFile = (open: string, kept: string, auth: string) => `routes:
  - host: routes.example.com
    paths:
      - { prefix: /, upstream: "${open}" }
      - { under: /deny, upstream: "${kept}", deny: any }
      - { under: /pass, upstream: "${kept}", basic_auth: { users: { ann: "$2b$04$abcdefghijklmnopqrstuuWHbWz0Qf1KQGJmH1cLqI0cHrYkY6bCa" } } }
      - { under: /ask, upstream: "${kept}", forward_auth: { url: "${auth}/no", copy: [Remote-User] } }
      - { under: /down, upstream: "${kept}", forward_auth: { url: "http://127.0.0.1:1/", copy: [Remote-User] } }
      - { under: /in, upstream: "${kept}", maintenance: true }
      - { exact: /method, when: { method: POST }, respond: 403 }
`;

interface Heard {
  readonly method: string;
  readonly target: string;
}

/** Says no to questions and yes to all else, and remembers what it was asked. */
async function startApp(): Promise<{ readonly url: string; readonly heard: Heard[]; close(): void }> {
  const heard: Heard[] = [];
  const server: Server = createServer((request, response) => {
    heard.push({ method: request.method!, target: request.url! });
    request.resume();
    response.writeHead(request.url!.startsWith('/no') ? 403 : 200);
    response.end('the app');
  });
  server.on('upgrade', (request, socket) => {
    heard.push({ method: request.method!, target: request.url! });
    socket.destroy();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as { port: number }).port}`,
    heard,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** Ways to write `/NAME/x`, and what resembles it. */
function spellings(name: string): string[] {
  const first = name.charCodeAt(0).toString(16);
  const rest = name.slice(1);
  return [
    `/${name}/x`,
    `/${name}`,
    `/${name}?`,
    `/${name}/`,
    `/%${first}${rest}/x`,
    `/%${first.toUpperCase()}${rest}/x`,
    `/%25${first}${rest}/x`,
    `/${name}%2Fx`,
    `/${name}%2fx`,
    `//${name}/x`,
    `///${name}//x`,
    `/./${name}/x`,
    `/%2e/${name}/x`,
    `/public/../${name}/x`,
    `/public/%2e%2e/${name}/x`,
    `/public/..%2f${name}/x`,
    `/public%2f..%2f${name}%2fx`,
    `/public/.%2e/${name}/x`,
    `/public/%252e%252e/${name}/x`,
    `/public/..%252f${name}/x`,
    `/public/%c0%ae%c0%ae/${name}/x`,
    `/public/..;/${name}/x`,
    `/public/..\\${name}/x`,
    `/public/..%5c${name}/x`,
    `/%5c../${name}/x`,
    `/../${name}/x`,
    `/${name}/../${name}/x`,
    `/${name}/../public/../${name}`,
    `/${name}%00/x`,
    `/public%00/../${name}/x`,
    `/${name};a=b/x`,
    `/${name}.`,
    `/${name}./x`,
    `/${name}%20/x`,
    `/${name}%09`,
    `/${name}/x?a=/public/`,
    `/${name}/x#/public/`,
    `/${name.toUpperCase()}/x`,
    `/public/../../${name}/x`,
    `/%2f${name}/x`,
    `/${name}/%2e%2e/${name}/x`,
  ];
}

const METHODS = ['GET', 'HEAD', 'GET', 'POST', 'get', 'GeT', 'OPTIONS', 'PROPFIND', 'TRACE', 'M-SEARCH'];

/** Fields that some servers take a person, an address or a path from. */
const LIES: readonly (readonly [string, string])[] = [
  ['X-Forwarded-For', '10.0.0.1'],
  ['X-Real-IP', '10.0.0.1'],
  ['Forwarded', 'for=10.0.0.1'],
  ['X-Original-URL', '/public'],
  ['X-Rewrite-URL', '/public'],
  ['X-Accel-Redirect', '/accel/secret.txt'],
  ['X-Sendfile', '/etc/passwd'],
  ['X-HTTP-Method-Override', 'GET'],
  ['Remote-User', 'root'],
  ['Authorization', 'Basic YW5uOg=='],
  ['Authorization', 'Basic Og=='],
  ['Authorization', 'Basic'],
  ['Authorization', 'Bearer x'],
];

describe('what rules keep', () => {
  let open: Awaited<ReturnType<typeof startApp>>;
  let kept: Awaited<ReturnType<typeof startApp>>;
  let listener: Listener;
  let port = 0;
  let ca = '';
  let folder = '';

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'forbidden-'));
    for (const path of ['www/sub', 'outside', 'www2', 'var'])
      mkdirSync(join(folder, path), { recursive: true });
    writeFileSync(join(folder, 'www/index.html'), 'for all');
    writeFileSync(
      join(folder, 'users'),
      'ann:$2b$04$abcdefghijklmnopqrstuuWHbWz0Qf1KQGJmH1cLqI0cHrYkY6bCa\n',
    );
    for (const path of ['secret.txt', 'outside/secret.txt', 'www2/secret.txt', 'var/secret.txt'])
      writeFileSync(join(folder, path), SECRET);
    symlinkSync(join(folder, 'secret.txt'), join(folder, 'www/link.txt'));
    symlinkSync('../secret.txt', join(folder, 'www/near.txt'));
    symlinkSync(join(folder, 'outside'), join(folder, 'www/out'));
    symlinkSync('/', join(folder, 'www/sub/root'));
    [open, kept] = await Promise.all([startApp(), startApp()]);
    const certificate = await makeCertificate(HOSTS);
    ca = certificate.chain;
    listener = createListener({ host: '127.0.0.1', port: 0, log: silentLog });
    listener.setCertificates([certificate]);
    listener.setRoutes([], rulesOf());
    ({ port } = await listener.listen());
  });
  after(async () => {
    await listener?.drain(0);
    open?.close();
    kept?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  function rulesOf() {
    const text = nginxFile(open.url, kept.url, folder);
    const files: Record<string, string> = {
      '/c/a.conf': text,
      [`${folder}/users`]: 'ann:$2b$04$abcdefghijklmnopqrstuuWHbWz0Qf1KQGJmH1cLqI0cHrYkY6bCa\n',
    };
    const nginx = readNginxFiles('/c', {
      readFile: (path) => files[path] ?? '',
      listFolder: () => ['a.conf'],
    });
    const timeouts = { connectTimeoutMs: 5_000, readTimeoutMs: 20_000, sendTimeoutMs: 20_000 };
    const yaml = readRoutesFile(routesFile(open.url, kept.url, open.url), '/c/routes.yaml', {
      timeouts,
      readFile: () => '',
    });
    assert.deepEqual([...nginx.mistakes, ...yaml.mistakes], []);
    return {
      ...nginx.rules,
      sites: [
        ...nginx.rules.sites.map((site) => ({ ...site, isDefault: false })),
        // Each site with its own, where the two kinds of files have other defaults.
        ...yaml.rules.sites.map((site) => ({ ...site, policy: { ...yaml.rules.policy, ...site.policy } })),
      ],
      upstreams: [...(nginx.rules.upstreams ?? []), ...(yaml.rules.upstreams ?? [])].filter(
        ({ name }, i, all) => all.findIndex((other) => other.name === name) === i,
      ),
    };
  }

  async function connected(alpn: 'http/1.1' | 'h2'): Promise<TLSSocket> {
    const socket = connectTls({ host: '127.0.0.1', port, servername: HOSTS[0]!, ca, ALPNProtocols: [alpn] });
    socket.on('error', () => {});
    await once(socket, 'secureConnect');
    return socket;
  }

  /** Each request on a connection of its own; all that came back. */
  async function send(text: string | Buffer, alpn: 'http/1.1' | 'h2'): Promise<string> {
    const socket = await connected(alpn);
    let answer = '';
    let wake = () => {};
    socket.on('data', (bytes: Buffer) => {
      answer += bytes.toString('latin1');
      wake();
    });
    const ended = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    socket.write(text as string, 'latin1');
    if (alpn === 'http/1.1') {
      await ended;
      return answer;
    }
    // The stream has ended, or the connection: of the frames, one of the first stream that ends it.
    while (!socket.destroyed && !endsStream(Buffer.from(answer, 'latin1')))
      await Promise.race([
        ended,
        new Promise<void>((resolve) => {
          wake = resolve;
        }),
      ]);
    socket.destroy();
    return answer;
  }

  const overHttp1 = (lines: readonly string[], body = '') =>
    send(`${[...lines, 'Connection: close', '', ''].join('\r\n')}${body}`, 'http/1.1');
  const overHttp2 = (fields: readonly (readonly [string, string])[]) =>
    send(
      Buffer.concat([PREFACE, settingsFrame(), headersFrame(1, fields, flag.endHeaders | flag.endStream)]),
      'h2',
    );

  async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
    const left = [...items];
    await Promise.all(
      Array.from({ length: 16 }, async () => {
        for (let item = left.pop(); item !== undefined; item = left.pop()) await work(item);
      }),
    );
  }

  function assertKept(what: string, answer: string): void {
    assert.deepEqual(kept.heard.splice(0), [], what);
    assert.ok(!answer.includes(SECRET), what);
    for (const { target } of open.heard.splice(0)) {
      if (target.startsWith('/no')) continue;
      assert.ok(!isGuarded(target), `${what}: the app was asked for ${target}`);
    }
  }

  for (const host of HOSTS.slice(0, 2))
    for (const name of GUARDED)
      test(`is not reached by another spelling or method, over both protocols: ${host} /${name}`, async () => {
        const attacks = spellings(name).map((target, i) => [target, METHODS[i % METHODS.length]!] as const);
        await inParallel(attacks, async ([target, method]) => {
          if (name === 'method' && (method === 'GET' || method === 'HEAD')) return;
          const [lie, value] = LIES[target.length % LIES.length]!;
          const one = await overHttp1([`${method} ${target} HTTP/1.1`, `Host: ${host}`, `${lie}: ${value}`]);
          assertKept(`${method} ${target} ${lie}`, one);
          const two = await overHttp2([
            [':method', method],
            [':scheme', 'https'],
            [':authority', host],
            [':path', target],
            [lie.toLowerCase(), value],
          ]);
          assertKept(`h2 ${method} ${target} ${lie}`, two);
        });
      });

  test('is not reached by another form of the target or of the host', async () => {
    const host = HOSTS[0]!;
    const heads = ['deny', 'pass', 'ask', 'down', 'in'].flatMap((name) => [
      [`GET https://${host}/${name}/x HTTP/1.1`, `Host: ${host}`],
      [`GET https://${host}/${name}/x HTTP/1.1`, `Host: ${HOSTS[2]}`],
      [`GET http://${host}//${name}/x HTTP/1.1`, `Host: ${host}`],
      [`GET https://user@${host}/${name}/x HTTP/1.1`, `Host: ${host}`],
      [`GET ${name}/x HTTP/1.1`, `Host: ${host}`],
      [`GET //${host}/${name}/x HTTP/1.1`, `Host: ${host}`],
      [`GET /public HTTP/1.1`, `Host: ${host}`, `Host: ${host}/${name}/x`],
      [`GET /${name}/x HTTP/1.1`, `Host: ${HOSTS[2]}`, `Host: ${host}`],
      [`GET /${name}/x HTTP/1.1`, `Host: ${host.toUpperCase()}`],
      [`GET /${name}/x HTTP/1.1`, `Host: ${host}.`],
      [`GET /${name}/x HTTP/1.1`, `Host: ${host}..`],
      [`GET /${name}/x HTTP/1.1`, `Host: ${host}:443`],
      [`GET /${name}/x HTTP/1.1`, `Host: ${host}:80@${HOSTS[2]}`],
      [`GET /${name}/x HTTP/1.1`, `Host:${host}\t`],
      [`GET /${name}/x HTTP/1.0`, `Host: ${host}`],
      [`GET /${name}/x HTTP/1.0`],
      [`GET /${name}/x HTTP/2.0`, `Host: ${host}`],
      [`GET\t/${name}/x\tHTTP/1.1`, `Host: ${host}`],
      [`GET  /${name}/x HTTP/1.1`, `Host: ${host}`],
      [`GET /public /${name}/x HTTP/1.1`, `Host: ${host}`],
      [`GET /${name}\0/x HTTP/1.1`, `Host: ${host}`],
      [`GET /${name}/x HTTP/1.1`, `Host: ${host}`, ' folded: yes'],
      [`CONNECT ${host}:443 HTTP/1.1`, `Host: ${host}`],
      [`CONNECT /${name}/x HTTP/1.1`, `Host: ${host}`],
      [
        `GET /${name}/x HTTP/1.1`,
        `Host: ${host}`,
        'Upgrade: websocket',
        'Connection: Upgrade',
        'Sec-WebSocket-Version: 13',
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      ],
      [
        `GET /${name}/x HTTP/1.1`,
        `Host: ${host}`,
        'Upgrade: h2c',
        'Connection: Upgrade, HTTP2-Settings',
        'HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA',
      ],
      [`GET /${name}/x HTTP/1.1`, `Host: ${host}`, 'Connection: Authorization, X-Forwarded-For, Host'],
      [`GET /${name}/x HTTP/1.1`, `Host: ${host}`, 'Range: bytes=0-'],
    ]);
    for (const lines of heads) assertKept(JSON.stringify(lines), await overHttp1(lines));
  });

  test('is not reached by a second request in the body of a first', async () => {
    const host = HOSTS[0]!;
    for (const name of ['deny', 'in']) {
      const inner = `GET /${name}/x HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
      const framings = [
        ['Content-Length: 5', 'Transfer-Encoding: chunked'],
        ['Transfer-Encoding: chunked', 'Content-Length: 0'],
        ['Transfer-Encoding: chunked, identity'],
        ['Transfer-Encoding : chunked'],
        ['Content-Length: 0', `Content-Length: ${inner.length}`],
        ['Content-Length: +0'],
        ['Content-Length: 0'],
      ];
      for (const framing of framings)
        assertKept(
          framing.join(),
          await overHttp1(['POST /public HTTP/1.1', `Host: ${host}`, ...framing], `0\r\n\r\n${inner}`),
        );
    }
  });

  test('is not reached by pseudo-header fields in odd forms', async () => {
    const host = HOSTS[0]!;
    const usual = (path: string): [string, string][] => [
      [':method', 'GET'],
      [':scheme', 'https'],
      [':authority', host],
      [':path', path],
    ];
    for (const name of ['deny', 'pass', 'ask', 'down', 'in']) {
      const path = `/${name}/x`;
      const all: (readonly (readonly [string, string])[])[] = [
        [...usual('/public'), [':path', path]],
        [[':path', path], ...usual('/public')],
        [...usual('/public'), ['host', host], [':path', path]],
        [...usual(path), ['host', HOSTS[2]!]],
        [
          [':method', 'GET'],
          [':scheme', 'https'],
          [':path', path],
          ['host', host],
        ],
        [
          [':method', 'GET'],
          [':scheme', 'http'],
          [':authority', host],
          [':path', path],
        ],
        [
          [':method', 'GET'],
          [':scheme', 'https'],
          [':authority', `${host.toUpperCase()}.`],
          [':path', path],
        ],
        [
          [':method', 'GET'],
          [':scheme', 'https'],
          [':authority', `x@${host}`],
          [':path', path],
        ],
        [
          [':method', 'GET'],
          [':scheme', 'https'],
          [':authority', host],
          [':path', `https://${host}${path}`],
        ],
        [
          [':method', 'GET'],
          [':scheme', 'https'],
          [':authority', host],
          [':path', `${name}/x`],
        ],
        [
          [':method', 'GET'],
          [':scheme', 'https'],
          [':authority', host],
          [':path', '*'],
        ],
        [
          [':method', 'OPTIONS'],
          [':scheme', 'https'],
          [':authority', host],
          [':path', '*'],
        ],
        [
          [':method', `GET ${path} HTTP/1.1\r\nX:`],
          [':scheme', 'https'],
          [':authority', host],
          [':path', '/'],
        ],
        [
          [':method', 'GET'],
          [':scheme', 'https'],
          [':authority', host],
          [':path', `/public\r\nX: y`],
        ],
        [
          [':method', 'GET'],
          [':scheme', 'https'],
          [':authority', host],
          [':path', `/public HTTP/1.1\r\n\r\nGET ${path}`],
        ],
        [
          [':method', 'CONNECT'],
          [':protocol', 'websocket'],
          [':scheme', 'https'],
          [':authority', host],
          [':path', path],
        ],
        [
          [':method', 'CONNECT'],
          [':authority', `${host}:443`],
        ],
        [...usual(path), ['transfer-encoding', 'chunked']],
        [...usual(path), ['connection', 'authorization']],
        [...usual(path), ['upgrade', 'websocket']],
        [...usual(`/%00/..${path}`)],
        [...usual(path), ['x_accel_redirect', '/accel/secret.txt']],
      ];
      for (const fields of all) assertKept(JSON.stringify(fields), await overHttp2(fields));
    }
  });

  test('is not read from the disk: neither by dots, links and variables, nor by the place that only the app leads to', async () => {
    const host = HOSTS[0]!;
    const targets = [
      '/files/../secret.txt',
      '/files/..%2fsecret.txt',
      '/files/%2e%2e/secret.txt',
      '/files%2f..%2fsecret.txt',
      '/files/link.txt',
      '/files/near.txt',
      '/files/out/secret.txt',
      '/files/out/',
      `/files/sub/root${folder}/secret.txt`,
      '/files/sub/../../secret.txt',
      '/files/index.html%00.txt',
      '/files/..\\secret.txt',
      '/files/....//secret.txt',
      '/www../secret.txt',
      '/www..%2fsecret.txt',
      '/www2/secret.txt',
      '/re/../secret.txt',
      '/re/..%2fsecret.txt',
      '/re/%2e%2e/secret.txt',
      '/re/link.txt',
      '/re/out/secret.txt',
      '/var/secret.txt?r=..',
      '/sub/secret.txt?r=..',
      '/sub/secret.txt?r=out',
      '/sub/secret.txt?r=../outside',
      '/try/x?f=../secret.txt',
      '/try/x?f=/../secret.txt',
      '/try/x?f=%2e%2e/secret.txt',
      '/try/x?f=link.txt',
      '/try/x?f=out/secret.txt',
      '/accel/secret.txt',
      '/%61ccel/secret.txt',
      '/x/../accel/secret.txt',
      '//accel/secret.txt',
      '/accel%2Fsecret.txt',
    ];
    await inParallel(targets, async (target) => {
      for (const fields of [[], ['Range: bytes=0-3'], ['If-None-Match: "x"'], ['Range: bytes=0-1,2-3']]) {
        const answer = await overHttp1([`GET ${target} HTTP/1.1`, `Host: ${host}`, ...fields]);
        assertKept(target, answer);
        assert.ok(!/^HTTP\/1\.1 206/.test(answer), target);
      }
      const two = await overHttp2([
        [':method', 'GET'],
        [':scheme', 'https'],
        [':authority', host],
        [':path', target],
      ]);
      assertKept(`h2 ${target}`, two);
    });
    const fine = await overHttp1(['GET /files/index.html HTTP/1.1', `Host: ${host}`]);
    assert.match(fine, /for all$/);
  });

  test('stays kept when nobody answers the question: 503 of a routes file, 500 of nginx files', async () => {
    for (const [host, status] of [
      [HOSTS[1]!, 503],
      [HOSTS[0]!, 500],
    ] as const) {
      const answer = await overHttp1(['GET /down/x HTTP/1.1', `Host: ${host}`, 'Remote-User: root']);
      assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `));
      assertKept(host, answer);
    }
  });
});

/** What an app makes of a target that decodes it once, as apps do. */
function isGuarded(target: string): boolean {
  const path = target
    .split(/[?#]/, 1)[0]!
    .replace(/%([0-9a-f]{2})/gi, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)));
  const segments: string[] = [];
  for (const part of path.split('/')) {
    if (part === '..') segments.pop();
    else if (part !== '.' && part !== '') segments.push(part);
  }
  // `method` is open to reading, and of what it forbids nothing reaches an app.
  return segments[0] !== undefined && GUARDED.includes(segments[0]) && segments[0] !== 'method';
}

function endsStream(bytes: Buffer): boolean {
  for (let at = 0; at + 9 <= bytes.length; ) {
    const length = bytes.readUIntBE(at, 3);
    const [type, flags] = [bytes[at + 3]!, bytes[at + 4]!];
    const stream = bytes.readUInt32BE(at + 5);
    if (at + 9 + length > bytes.length) return false;
    const isLast = (type === 0 || type === 1) && (flags & 1) === 1;
    if ((stream === 1 && (isLast || type === 3)) || type === 7) return true;
    at += 9 + length;
  }
  return false;
}
