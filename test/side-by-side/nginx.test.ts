// Files of a conf.d folder before Debian's nginx and before the ingress: every request gets the same, and the app sees the same.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { cases, disk } from './cases.ts';
import { compare, type Met } from './compare.ts';
import { differences } from './differences.ts';
import { type Stage, startStage } from './stage.ts';

describe('nginx and the ingress', () => {
  let stage: Stage;
  const met: Met = new Set();

  before(async () => {
    stage = await startStage({
      files: Object.fromEntries(cases.map(({ name, conf }) => [`${name}.conf`, conf])),
      hosts: cases.flatMap(({ name, asks }) =>
        asks.map((ask) => (typeof ask === 'string' ? undefined : ask.host) ?? `${name}.test`),
      ),
      disk,
    });
  });
  after(() => stage?.[Symbol.asyncDispose]());

  for (const { name, conf, asks } of cases)
    for (const protocol of ['HTTP/1.1', 'HTTP/2'] as const)
      test(`are alike to clients and apps: ${name}, ${protocol}`, async () => {
        for (const ask of asks) {
          const given = typeof ask === 'string' ? { target: ask } : ask;
          if (given.over !== undefined && given.over !== protocol) continue;
          await compare(stage, { host: `${name}.test`, ...given }, conf, protocol, met);
        }
      });

  test('differ in nothing but what docs/nginx.md says, and in all of that', () => {
    const docs = readFileSync(new URL('../../docs/nginx.md', import.meta.url), 'utf8');
    for (const { what, here, why } of differences) {
      assert.ok(met.has(what), `no request shows the difference any more: ${what}`);
      assert.ok(docs.includes(`| ${what} | ${here} | ${why} |`), `docs/nginx.md does not say: ${what}`);
    }
  });
});
