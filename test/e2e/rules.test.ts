// Rules of nginx files and of the routes file, served by the built bundle: what they say, when they change, when they are wrong.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmod, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { guardedRoutes, startWrongPasswords } from '../attacks/wrong-passwords.ts';
import { createWorld, get, startApp, type World } from '../support/world.ts';

const SETTINGS = { CHALLENGE_TYPE: 'tls-alpn-01', DNS_SETUP_MODE: 'print' };

async function conf(world: World, name: string, text: string): Promise<string> {
  const folder = join(world.folder, 'conf.d');
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, name), text);
  return folder;
}

function fieldOf(head: string, name: string): string | undefined {
  return new RegExp(`^${name}: (.*)$`, 'im').exec(head)?.[1]?.trim();
}

function serverOf(name: string, locations: string): string {
  return `server {\n  listen 443 ssl;\n  server_name ${name};\n  ${locations}\n}\n`;
}

test('nginx files beside TARGET_ENDPOINT: each name goes where its file says, the others to the endpoint', async () => {
  await using world = await createWorld();
  await using app = await startApp('the app');
  await using api = await startApp('the api');
  const locations = `
    location = /health { return 200 "well\\n"; }
    location /old/ { return 301 https://$host/new/; }
    location / { proxy_pass ${api.url}; add_header X-From nginx-file always; }
    location /secret { deny all; }`;
  const folder = await conf(world, 'api.conf', serverOf('api.example.com', locations));
  const ingress = world.start({
    ...SETTINGS,
    NGINX_CONF_DIR: folder,
    DOMAIN: 'app.example.com',
    DOMAINS: 'api.example.com',
    TARGET_ENDPOINT: app.url,
  });
  await ingress.waitFor('ready');
  const ca = await world.roots();
  const at = (servername: string) => ({ port: world.port, servername, ca });
  assert.equal((await get(at('app.example.com'))).body, 'the app');
  const proxied = await get(at('api.example.com'));
  assert.equal(proxied.body, 'the api');
  assert.equal(fieldOf(proxied.head, 'x-from'), 'nginx-file');
  assert.equal((await get({ ...at('api.example.com'), path: '/health' })).body, 'well\n');
  const moved = await get({ ...at('api.example.com'), path: '/old/a' });
  assert.equal(moved.status, 301);
  assert.equal(fieldOf(moved.head, 'location'), 'https://api.example.com/new/');
  for (const path of ['/secret', '/%73ecret', '/x/../secret', '//secret'])
    assert.equal((await get({ ...at('api.example.com'), path })).status, 403, path);
  assert.equal((await get({ ...at('api.example.com'), path: '/evidences/' })).status, 200);
});

test('changed nginx files are followed; wrong ones are refused with their line, and the old rules go on', async () => {
  await using world = await createWorld();
  const says = (text: string) => serverOf('app.example.com', `location / { return 200 "${text}"; }`);
  const folder = await conf(world, 'app.conf', says('one'));
  const ingress = world.start({
    ...SETTINGS,
    NGINX_CONF_DIR: folder,
    DOMAIN: 'app.example.com',
    DOMAINS: 'lost.example.com',
  });
  const tells = (text: string) => (line: object) => JSON.stringify(line).includes(text);
  await ingress.waitFor('setting needs attention', tells('lost.example.com has no server block of its own'));
  await ingress.waitFor('ready');
  const at = { port: world.port, servername: 'app.example.com', ca: await world.roots() };
  assert.equal((await get(at)).body, 'one');

  await conf(world, 'app.conf', says('two').replace('location', 'gzip_static on; location'));
  ingress.kill('SIGHUP');
  await ingress.waitFor('setting needs attention', tells('gzip_static has no effect'));
  await ingress.waitFor('routes replaced');
  assert.equal((await get(at)).body, 'two');

  await conf(world, 'app.conf', says('three').replace('location', 'lokation'));
  ingress.kill('SIGHUP');
  const refused = await ingress.waitFor('nginx files refused, the old rules go on');
  assert.match(JSON.stringify(refused), /app\.conf.*lokation.*location/);
  assert.equal((await get(at)).body, 'two');
});

test('a routes file with rules: redirects, passwords, headers; a changed include is followed', async () => {
  await using world = await createWorld();
  await using app = await startApp('the app');
  const hash = execFileSync('openssl', ['passwd', '-apr1', 'open sesame'], { encoding: 'utf8' }).trim();
  const included = join(world.folder, 'more.yaml');
  const more = (to: string) =>
    `routes:\n  - host: old.example.com\n    redirect: {to: "${to}", status: 308}\n`;
  await writeFile(included, more('https://app.example.com/a'));
  const path = join(world.folder, 'routes.yaml');
  await writeFile(
    path,
    `include: [more.yaml]
routes:
  - host: app.example.com
    paths:
      - under: /private
        upstream: ${app.url}
        basic_auth:
          users: {ali: '${hash}'}
      - under: /
        upstream: ${app.url}
        headers:
          response:
            set: {X-Frame-Options: DENY}
`,
  );
  const ingress = world.start({ ...SETTINGS, ROUTES_FILE: path });
  await ingress.waitFor('ready');
  const ca = await world.roots();
  const at = { port: world.port, servername: 'app.example.com', ca };
  const open = await get(at);
  assert.equal(open.body, 'the app');
  assert.equal(fieldOf(open.head, 'x-frame-options'), 'DENY');
  assert.equal((await get({ ...at, path: '/private/a' })).status, 401);
  const authorization = (password: string) => `Basic ${Buffer.from(`ali:${password}`).toString('base64')}`;
  const asked = (password: string) =>
    get({ ...at, path: '/private/a', headers: [`Authorization: ${authorization(password)}`] });
  assert.equal((await asked('open barley')).status, 401);
  assert.equal((await asked('open sesame')).body, 'the app');

  const old = { port: world.port, servername: 'old.example.com', ca };
  assert.equal(fieldOf((await get(old)).head, 'location'), 'https://app.example.com/a');
  await writeFile(included, more('https://app.example.com/b'));
  await ingress.waitFor('routes replaced');
  assert.equal(fieldOf((await get(old)).head, 'location'), 'https://app.example.com/b');
});

test('files below a root are served by workers that may read nothing else', async () => {
  await using world = await createWorld();
  const root = join(world.folder, 'site');
  await mkdir(root);
  await writeFile(join(root, 'index.html'), '<p>hello');
  await writeFile(join(world.folder, 'outside.txt'), 'not for visitors');
  await chmod(world.folder, 0o755);
  const folder = await conf(world, 'site.conf', serverOf('app.example.com', `root ${root}; location / { }`));
  const ingress = world.start({ ...SETTINGS, NGINX_CONF_DIR: folder, DOMAIN: 'app.example.com' });
  await ingress.waitFor('ready');
  const at = { port: world.port, servername: 'app.example.com', ca: await world.roots() };
  assert.equal((await get(at)).body, '<p>hello');
  await symlink(join(world.folder, 'outside.txt'), join(root, 'link.txt'));
  for (const path of ['/link.txt', '/..%2foutside.txt', '/%2e%2e/outside.txt', '/x%00'])
    assert.notEqual((await get({ ...at, path })).status, 200, path);
});

test('nginx files and a routes file with rules together stop the start, with what to do', async () => {
  await using world = await createWorld();
  const folder = await conf(world, 'a.conf', serverOf('a.example.com', 'return 200 a;'));
  const path = join(world.folder, 'routes.yaml');
  await writeFile(path, 'routes:\n  - host: b.example.com\n    respond: {status: 200, body: b}\n');
  const ingress = world.start({
    ...SETTINGS,
    NGINX_CONF_DIR: folder,
    ROUTES_FILE: path,
    DOMAINS: 'a.example.com',
  });
  assert.equal((await ingress.exited).code, 78);
  assert.match(
    ingress.stderr(),
    /there are nginx files, and the routes file has rules as well.*convert-nginx/,
  );
  await rm(folder, { recursive: true });
});

test('limits of nginx files hold to the request, though two workers share them', async () => {
  await using world = await createWorld();
  const text = `limit_req_zone $server_name zone=all:1m rate=1r/m;
${serverOf('app.example.com', 'location / { limit_req zone=all burst=9 nodelay; limit_req_status 429; try_files /none =404; }')}`;
  const folder = await conf(world, 'app.conf', text);
  const ingress = world.start({
    ...SETTINGS,
    NGINX_CONF_DIR: folder,
    DOMAIN: 'app.example.com',
    WORKERS: '2',
  });
  await ingress.waitFor('ready');
  const at = { port: world.port, servername: 'app.example.com', ca: await world.roots() };
  // Each on a connection of its own: the kernel gives some to the one worker and some to the other.
  const statuses = await Promise.all(Array.from({ length: 60 }, async () => (await get(at)).status));
  const count = (status: number) => statuses.filter((one) => one === status).length;
  assert.deepEqual({ passed: count(404), refused: count(429) }, { passed: 10, refused: 50 });
});

test('a flood of wrong passwords lets nobody in, and keeps nobody else out', async () => {
  await using world = await createWorld();
  await using app = await startApp('the app');
  const path = join(world.folder, 'routes.yaml');
  await writeFile(path, guardedRoutes(app.url, 4));
  const ingress = world.start({ ...SETTINGS, ROUTES_FILE: path });
  await ingress.waitFor('ready');
  const at = { port: world.port, servername: 'app.example.com', ca: await world.roots() };
  const flood = startWrongPasswords({ ...at, connections: 80, requests: 800 });
  const visitors: number[] = [];
  for (let i = 0; i < 40; i++) visitors.push((await get(at)).status);
  assert.deepEqual(new Set(visitors), new Set([200]));
  const { statuses } = await flood;
  const refused = (statuses.get(401) ?? 0) + (statuses.get(503) ?? 0);
  assert.equal(refused, 800, JSON.stringify([...statuses]));
  const right = `Authorization: Basic ${Buffer.from('ann:right').toString('base64')}`;
  assert.equal((await get({ ...at, path: '/private/x', headers: [right] })).status, 200);
});
