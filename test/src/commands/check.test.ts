// The check command: mistakes with their places and cures, and what a request would meet, step by step.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { bundledProgram } from '../../support/bundle.ts';

const program = bundledProgram();
const folder = mkdtempSync(join(tmpdir(), 'check-'));
after(() => rmSync(folder, { recursive: true }));

function written(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

async function check(args: readonly string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [program, 'check', ...args], {
    env: { PATH: process.env.PATH ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text;
  });
  const [code] = await once(child, 'close');
  return { code: code as number, out, err };
}

const sound = written(
  'routes.yaml',
  `routes:
  - host: app.example.com
    security_headers: nosniff
    paths:
      - under: /api
        strip_prefix: true
        upstream: http://api:8080
      - prefix: /
        redirect: https://www.example.com$request_uri
  - host: plain.example.com
    upstream: [http://a:80, http://b:80]
`,
);

test('a sound file is said to be sound, on stdout, and ends with 0', async () => {
  assert.deepEqual(await check([sound]), {
    code: 0,
    out: `${sound}: sound: 2 hosts, 1 with rules\n`,
    err: '',
  });
});

test('every mistake of a file is told on stderr with its place and its cure, and ends with 78', async () => {
  const path = written(
    'wrong.yaml',
    'routes:\n  - host: a.example.com\n    compres: true\n    upstream: app\n',
  );
  const { code, out, err } = await check([path]);
  assert.deepEqual([code, out], [78, '']);
  assert.deepEqual(err.split('\n'), [
    `${path}:3:5: "compres" is not a key of a route`,
    '  wants host, upstream, paths, timeouts, health (was compress meant?)',
    `${path}:4:15: "app" has no port`,
    '  wants host:port',
    '2 mistakes',
    '',
  ]);
});

test('a request is followed through the rules to its upstream', async () => {
  const { code, out } = await check(['--explain', 'GET https://app.example.com/api/v1?x=1', sound]);
  assert.equal(code, 0);
  assert.deepEqual(out.split('\n'), [
    `site app.example.com takes app.example.com  (${sound}:2:5)`,
    `location /api (by segment)  (${sound}:5:9)`,
    'forwards GET /v1?x=1 to http://api:8080',
    '',
  ]);
});

test('a redirect, a route without rules and a host that nobody serves are explained as well', async () => {
  const redirect = await check([sound, '--explain', 'https://app.example.com/a?b']);
  assert.match(redirect.out, /answers 302 itself\n {2}Location: https:\/\/www\.example\.com\/a\?b\n/);
  const plain = await check([sound, '--explain', 'POST https://plain.example.com/x']);
  assert.equal(
    plain.out,
    'route plain.example.com/ takes it, without rules\nforwards POST /x to http://a:80, http://b:80\n',
  );
  const nobody = await check([sound, '--explain', 'https://other.example.com/']);
  assert.deepEqual([nobody.code, nobody.out], [1, 'no route takes other.example.com/: 404\n']);
});

test('a folder is read as nginx files', async () => {
  const conf = join(folder, 'conf.d');
  mkdirSync(conf);
  writeFileSync(
    join(conf, 'app.conf'),
    'server {\n  listen 80;\n  server_name app.example.com;\n  location /old { return 301 /new; }\n  location / { proxy_pass http://app:8080; }\n}\n',
  );
  const { code, out } = await check([conf, '--explain', 'http://app.example.com/x']);
  assert.equal(code, 0, out);
  assert.match(out, /forwards GET \/x to http:\/\/app:8080/);
  writeFileSync(join(conf, 'b.conf'), 'server { server_name b.example.com; retrun 301 /; }\n');
  const wrong = await check([conf]);
  assert.equal(wrong.code, 78);
  assert.match(wrong.err, /b\.conf:1:\d+: .*retrun/);
});

test('without a file it checks what the environment names, as a running deployment would read it', async () => {
  assert.equal((await check([], { ROUTES_FILE: sound })).code, 0);
  const limited = written(
    'limited.yaml',
    'routes:\n  - host: a.example.com\n    rate_limit: 10/s\n    upstream: http://a\n',
  );
  const env = { ROUTES_FILE: limited, GATEWAY_DOMAIN: 'gateway.example.com' };
  const refused = await check([], env);
  assert.equal(refused.code, 78);
  assert.match(refused.err, /:3:17: "rate_limit" goes by the client's address, which is not known here/);
  assert.equal((await check([], { ...env, PROXY_PROTOCOL: 'true' })).code, 0);
});

test('what is no argument of it, and what is missing, ends with 2 and a hint', async () => {
  for (const [args, said] of [
    [[], /^check: there is nothing to check\nhint: /],
    [['--explain'], /^check: nothing follows --explain\nhint: write --explain 'GET/],
    [[sound, '--explan', 'x'], /^check: unknown flag: --explan\nhint: was --explain meant\?/],
    [[sound, 'other.yaml'], /^check: takes no such argument: other\.yaml\nhint: /],
    [[sound, '--explain', 'app.example.com'], /^check: "app\.example\.com" is not a request\nhint: /],
  ] as const) {
    const { code, out, err } = await check(args);
    assert.match(err, said, args.join(' '));
    assert.deepEqual([code, out], [2, ''], args.join(' '));
  }
  const missing = await check([join(folder, 'none.yaml')]);
  assert.equal(missing.code, 78);
  assert.match(missing.err, /none\.yaml: cannot be read: ENOENT\n {2}there is nothing of that name/);
});
