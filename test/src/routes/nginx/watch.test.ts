// nginx files that change: what is taken, what is refused while the old rules go on, and what is not announced.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { describeMistake } from '../../../../src/config/mistake.ts';
import { readGuardedFileSync } from '../../../../src/lib/guarded-file.ts';
import { readNginxFiles } from '../../../../src/routes/nginx/read.ts';
import { type NginxWatch, watchNginxFiles } from '../../../../src/routes/nginx/watch.ts';

let folder: string;
let watch: NginxWatch;
let reports: string[];
let wake: (() => void) | undefined;

const server = (name: string) => `server { server_name ${name}; }\n`;
const put = (name: string, text: string) => writeFile(join(folder, name), text);
const read = () =>
  readNginxFiles(folder, { readFile: readGuardedFileSync, listFolder: (path) => readdirSync(path) });

function report(what: string): void {
  reports.push(what);
  wake?.();
}

async function next(): Promise<string> {
  while (reports.length === 0) await new Promise<void>((resolve) => (wake = resolve));
  return reports.shift()!;
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nginx-watch-'));
  reports = [];
  await put('a.conf', `${server('one.test')} include *.inc;`);
  await put('b.inc', server('two.test'));
  watch = watchNginxFiles({
    read,
    current: read(),
    onRules: ({ rules }) => report(rules.sites.map(({ label }) => label).join(' ')),
    onMistakes: ({ mistakes }) =>
      report(mistakes.map(describeMistake).join('\n').replaceAll(`${folder}/`, '')),
    onProblem: (error) => report(String(error)),
    intervalMs: 20,
  });
});
afterEach(async () => {
  watch.close();
  await rm(folder, { recursive: true, force: true });
});

test('a change is taken, bad files are refused once while the old rules go on, and good ones follow', async () => {
  await put('a.conf', server('three.test'));
  assert.equal(await next(), 'three.test');
  await put('a.conf', 'server { nonsense; }');
  assert.match(await next(), /^a\.conf:1:10: "nonsense" is not a directive/);
  watch.reload();
  assert.deepEqual(reports, []);
  await put('a.conf', server('four.test'));
  assert.equal(await next(), 'four.test');
});

test('what was mended to what is in force is not announced, and the next mistake is', async () => {
  await put('b.inc', 'nonsense;');
  assert.match(await next(), /^b\.inc:1:1: /);
  await put('b.inc', server('two.test'));
  watch.reload();
  assert.deepEqual(reports, []);
  await put('b.inc', 'nonsense;');
  assert.match(await next(), /^b\.inc:1:1: /);
});

test('files that come, that are included, that go, and that are exchanged by a link are seen', async () => {
  await put('c.conf', server('three.test'));
  assert.equal(await next(), 'one.test two.test three.test');
  await put('b.inc', server('new-two.test'));
  assert.equal(await next(), 'one.test new-two.test three.test');
  await rm(join(folder, 'c.conf'));
  assert.equal(await next(), 'one.test new-two.test');
  await put('elsewhere', server('linked.test'));
  await symlink('elsewhere', join(folder, 'link'));
  await rename(join(folder, 'link'), join(folder, 'a.conf'));
  assert.equal(await next(), 'linked.test');
});

test('reading at once does not wait for a look', async () => {
  await put('a.conf', server('now.test'));
  watch.reload();
  assert.deepEqual(reports, ['now.test']);
});
