// `admin: true` in a routes file: shown to those whom the route lets in, refused where it would let in everybody.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compile } from '../../../../proxy/rules/compile.ts';
import { readRoutesFile } from '../../../../src/routes/yaml/file.ts';

const timeouts = { connectTimeoutMs: 1_000, readTimeoutMs: 1_000, sendTimeoutMs: 1_000 };
const admin = { host: '127.0.0.1', port: 9180, token: 'the-token-of-the-server' };

function read(path: string, options: object = { admin }) {
  const text = `routes:\n  - host: app.example.com\n    paths:\n      - { prefix: /, upstream: "http://app" }\n      - { ${path} }\n`;
  return readRoutesFile(text, 'routes.yaml', { timeouts, ...options });
}

const problems = (path: string, options?: object) =>
  read(path, options).mistakes.map(({ subject }) => subject);

const PASSWORD =
  'basic_auth: { users: { me: "$2y$10$abcdefghijklmnopqrstuuVQHqRJLcRgAhcZ0DqU8YwKn6gOB7e6S" } }';

test('without an access rule it is refused, wherever it stands', () => {
  const open = 'everybody could see domains, routes and traffic';
  assert.deepEqual(problems('prefix: /status/, admin: true'), [open]);
  assert.deepEqual(problems('prefix: /status/, admin: true, rate_limit: 1/s'), [open]);
  // That keeps out a few, and lets in all others.
  assert.deepEqual(problems('prefix: /status/, admin: true, deny: 192.0.2.1'), [open]);
  for (const rule of [PASSWORD, 'allow: 10.0.0.0/8', 'forward_auth: { url: "http://auth/check" }'])
    assert.deepEqual(problems(`prefix: /status/, admin: true, ${rule}`), [], rule);
});

test('it needs an address that workers reach, a path that its parts fit below, and nothing else said', () => {
  const wrong = (path: string, options?: object) => problems(`${path}, ${PASSWORD}`, options).join();
  assert.match(wrong('prefix: /status/, admin: true', {}), /ADMIN_ADDRESS is not set/);
  assert.match(wrong('prefix: /status, admin: true'), /the page has parts beside it/);
  assert.match(wrong('exact: /status/, admin: true'), /the page has parts beside it/);
  assert.match(wrong('prefix: /status/, admin: false'), /"admin" is not true/);
  assert.match(
    wrong('prefix: /status/, admin: true, headers: { request: { set: { Host: x } } }'),
    /"headers" beside/,
  );
  assert.match(wrong('prefix: /status/, admin: true, upstream: "http://a"'), /are both given/);
});

test('what it asks is fixed: the path below its own, no name of the client, and the token in place of what the client gave', () => {
  const { rules, mistakes } = read(`prefix: /status/, admin: true, ${PASSWORD}`);
  assert.deepEqual(mistakes, []);
  const place = rules.sites[0]!.locations.find(
    ({ content }) => content?.kind === 'proxy' && content.stripPrefix,
  );
  assert.deepEqual(place!.policy!.requestHeaders, [
    { do: 'set', name: 'Host', value: ['localhost'] },
    { do: 'set', name: 'Authorization', value: ['Bearer the-token-of-the-server'] },
  ]);
  assert.doesNotThrow(() => compile(rules));
});
