// Which CAA records are ours to remove is known from what we wrote, never guessed from what they say.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { createFiles } from '../../../acme/storage/files.ts';
import type { DnsRecord } from '../../../dns/provider.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { createWrittenPins, type WrittenPins } from '../../../src/records/written-pins.ts';

const pin = (account: number, name = 'app.example.com', tag = 'issue'): DnsRecord => ({
  name,
  type: 'CAA',
  value: `0 ${tag} "ca.example;accounturi=https://ca.example/${account};validationmethods=dns-01"`,
});
const alias: DnsRecord = { name: 'app.example.com', type: 'CNAME', value: 'gw.example.net' };

let folder: string;
let path: string;
let pins: WrittenPins;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pins-test-'));
  path = join(folder, 'deeper', 'caa-records.json');
  pins = createWrittenPins(createFiles({ root: join(folder, 'deeper') }), silentLog);
});
afterEach(() => rm(folder, { recursive: true }));

test('after a change of account the pin of the old one is known to be ours, after a restart too', async () => {
  await pins.remember([alias, pin(1)]);
  const restarted = createWrittenPins(createFiles({ root: join(folder, 'deeper') }), silentLog);
  assert.deepEqual(await restarted.outlived([alias, pin(2)]), [pin(1)]);
  await restarted.remember([alias, pin(2)]);
  await restarted.forget([pin(1)]);
  assert.deepEqual(await pins.outlived([pin(3)]), [pin(2)]);
});

test('the pin that is wanted, one of another name and one of another tag are not outlived', async () => {
  await pins.remember([pin(1), pin(1, 'other.example.com'), pin(1, 'app.example.com', 'issuewild')]);
  assert.deepEqual(await pins.outlived([pin(1)]), []);
  assert.deepEqual(await pins.outlived([pin(2)]), [pin(1)]);
});

test('a list that is damaged makes nothing ours, and the next one is whole', async () => {
  await pins.remember([pin(1)]);
  assert.equal((await stat(path)).mode & 0o077, 0);
  await writeFile(path, (await readFile(path, 'utf8')).slice(0, 20));
  assert.deepEqual(await pins.outlived([pin(2)]), []);
  await pins.remember([pin(2)]);
  assert.deepEqual(await pins.outlived([pin(3)]), [pin(2)]);
});
