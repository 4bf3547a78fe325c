// Rules written as a routes file: each thing that it has a word for, and a list of the others.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parse } from 'yaml';
import { describeMistake } from '../../../src/config/mistake.ts';
import { writeRoutes } from '../../../src/routes/write.ts';
import { readRoutesFile } from '../../../src/routes/yaml/file.ts';
import { bundledProgram } from '../../support/bundle.ts';
import { realFiles } from './nginx/files.ts';
import { FOLDER, read, readAll } from './nginx/reader.ts';

const timeouts = { connectTimeoutMs: 60_000, readTimeoutMs: 60_000, sendTimeoutMs: 60_000 };

function written(text: string) {
  const { rules, mistakes } = read(text);
  assert.deepEqual(mistakes, []);
  const { text: yaml, unsaid } = writeRoutes(rules);
  return {
    file: parse(yaml),
    unsaid: unsaid.map(({ origin, what }) => `${origin?.replace(`${FOLDER}/`, '') ?? ''} ${what}`.trim()),
  };
}

/** Of the first route. */
function pathsOf(inside: string) {
  return written(
    `server { listen 443 ssl; server_name a.test; proxy_set_header Host $host; client_max_body_size 0; ${inside} }`,
  ).file.routes[0].paths;
}

describe('a routes file that is written', () => {
  test('has a route for each server, with hosts as they are', () => {
    const { file } = written(
      'server { server_name a.test *.b.test ~^c\\d\\.test$; } server { server_name d.test; return 301 https://a.test$request_uri; }',
    );
    assert.deepEqual(file.routes[0].hosts, ['a.test', '*.b.test', '~^c\\d\\.test$']);
    assert.equal(file.routes.length, 1);
  });

  test('says what a location says: matching, forwarding, stripping, answers and files', () => {
    assert.deepEqual(
      pathsOf(`location / { proxy_pass http://app:8080; } location = /a { return 204; } location /b/ { proxy_pass http://app:8080/; }
        location /c { proxy_pass http://app:8080/x/; } location ~* \\.d$ { return 301 https://d.test$request_uri; }
        location /e/ { root /srv; try_files $uri $uri/ /index.html; }`),
      [
        { prefix: '/', upstream: 'http://app:8080' },
        { exact: '/a', respond: { status: 204 } },
        { prefix: '/b/', upstream: 'http://app:8080', strip_prefix: '/b' },
        { prefix: '/c', upstream: 'http://app:8080', rewrite: { regex: '^/c(.*)$', to: '/x/$1' } },
        { regex: '*\\.d$', redirect: { status: 301, to: 'https://d.test$request_uri' } },
        { prefix: '/e/', files: { root: '/srv', fallback: '/index.html' } },
      ],
    );
  });

  test('says what holds around it: headers, limits, access, times and compression', () => {
    const [path] = pathsOf(`add_header X-A b always; allow 10.0.0.0/8; deny all; gzip on;
      location / { client_max_body_size 5m; proxy_pass http://app:8080; proxy_set_header Host $host; proxy_set_header X-B $uri; proxy_set_header Cookie ""; proxy_read_timeout 5m; }`);
    assert.deepEqual(path, {
      prefix: '/',
      upstream: 'http://app:8080',
      timeouts: { read: '300s' },
      headers: { request: { set: { 'X-B': '$uri' }, remove: ['Cookie'] }, response: { add: { 'X-A': 'b' } } },
      allow: ['10.0.0.0/8'],
      body_limit: 5 * 1024 * 1024,
      compress: { encodings: ['gzip'], types: ['text/html'], min_size: 20 },
    });
  });

  test('names groups of servers once, with weights and balance', () => {
    const { file } = written(
      'upstream up { least_conn; server a:1 weight=2; server b:1 backup; } server { server_name a.test; location / { proxy_pass http://up; } }',
    );
    assert.deepEqual(file.upstreams, {
      up: {
        servers: [
          { url: 'http://a:1', weight: 2, max_fails: 1, fail_timeout: '10s' },
          { url: 'http://b:1', backup: true, max_fails: 1, fail_timeout: '10s' },
        ],
        balance: 'least_connections',
      },
    });
    assert.equal(file.routes[0].paths[0].upstream, 'up');
  });

  test('lists what it cannot say, with its place', () => {
    const { unsaid } = written(
      'map $host $m { default a; }\nserver { listen 443 ssl; server_name a.test; set $a $m; location @b { return 200; }\nlocation / { if ($a) { return 403; } proxy_pass http://app:1; error_page 502 @b; } }',
    );
    assert.deepEqual(unsaid, [
      'a.conf:1:1 map of $m: write hosts or headers to match',
      'a.conf:2:1 a default server: names that no route has are refused',
      'a.conf:2:57 a location for internal redirects',
      'a.conf:3:14 if and what depends on it',
      'a.conf:3:63 error_page: write error_pages with documents of its own',
      'a.conf:2:46 set and what depends on it',
    ]);
  });

  for (const [name, files] of Object.entries(realFiles))
    test(`is one that the program reads without a mistake: ${name}`, () => {
      const { text, unsaid } = writeRoutes(readAll(files).rules);
      assert.ok(parse(text).routes.length > 0 || unsaid.length > 0);
      if (parse(text).routes.length === 0) return;
      const { mistakes } = readRoutesFile(text, 'routes.yaml', { timeouts });
      assert.deepEqual(mistakes.map(describeMistake), [], text);
    });
});

describe('convert-nginx', () => {
  const main = bundledProgram();
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [main, 'convert-nginx', ...args], { encoding: 'utf8' });

  test('prints the file alone to stdout, and mistakes with their places to stderr', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'convert-'));
    try {
      await writeFile(
        join(folder, 'a.conf'),
        'server { server_name a.test; gzip on; location / { proxy_pass http://app:80; } }',
      );
      const good = run(folder);
      assert.equal(good.status, 1, good.stderr);
      assert.equal(parse(good.stdout).routes[0].host, 'a.test');
      const lost = `${folder}/a.conf:1:1: a default server: names that no route has are refused\n`;
      assert.ok(good.stdout.startsWith(`# not said here: ${lost}`));
      assert.ok(good.stderr.startsWith(`not said: ${lost}`));
      await writeFile(join(folder, 'b.conf'), 'server { nonsense; }');
      const bad = run(folder);
      assert.equal(bad.status, 78);
      assert.equal(bad.stdout, '');
      assert.match(bad.stderr, /b\.conf:1:10: "nonsense" is not a directive/);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test('says what it takes', () => {
    assert.match(run().stderr, /^convert-nginx: lacks DIR\nhint: /);
    assert.match(run('a', 'b').stderr, /^convert-nginx: takes no such argument: b\n/);
    assert.match(run('--help').stdout, /^usage: dstack-ingress convert-nginx DIR\n/);
  });
});
