// The whole way of a measurement, and that what goes wrong on it never becomes a number.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseOptions } from '../../bench/options.ts';
import { nginxTuned } from '../../bench/peers/nginx.ts';
import type { Peer, Site } from '../../bench/peers/peer.ts';
import { nodeCommand, stopEverything } from '../../bench/processes.ts';
import { extendPath } from '../../bench/programs.ts';
import { h1 } from '../../bench/rows/http.ts';
import { measureSideBySide } from '../../bench/side-by-side.ts';
import { openStage, type Stage } from '../../bench/stage.ts';
import type { Cell } from '../../bench/table.ts';

const skip = process.platform !== 'linux' || availableParallelism() < 2 ? 'needs Linux and two cores' : false;
// Long enough for the first answers of a server in Node on a machine that has other things to do.
const options = parseOptions(['--runs', '2', '--seconds', '1', '--warm-up', '1']);

let stage: Stage;
before(async () => {
  extendPath();
  if (!skip) stage = await openStage();
});
after(async () => {
  await stage?.close();
  await stopEverything();
});

/** A server that answers its first requests well and by itself, and the others with this status. */
function impostor(id: string, goodReplies: number, status: number): Peer {
  const program = ({ port, certificate }: Site) => `
    import { readFileSync } from 'node:fs';
    import { createServer } from 'node:https';
    let left = ${goodReplies};
    const tls = { cert: readFileSync('${certificate.chain}'), key: readFileSync('${certificate.key}') };
    createServer(tls, (request, response) => {
      left -= 1;
      response.writeHead(left >= 0 ? 200 : ${status}).end('x'.repeat(1024));
    }).listen(${port}, '127.0.0.1');`;
  return {
    id,
    title: id,
    version: '1',
    rows: ['h1'],
    async prepare(site) {
      const file = join(site.folder, 'impostor.mjs');
      await writeFile(file, program(site));
      return nodeCommand(file);
    },
  };
}

async function measure(peer: Peer): Promise<Cell> {
  const report = await measureSideBySide(stage, options, { rows: [h1], peers: [peer] }, () => {});
  assert.equal(report.cells.length, 1);
  return report.cells[0]!;
}

test('a proxy that does the work has a value for each run', { skip }, async () => {
  const cell = await measure(nginxTuned);
  assert.equal(cell.failure, undefined);
  assert.equal(cell.values.length, 2);
  for (const value of cell.values) assert.ok(Number.isFinite(value));
});

test('a proxy that refuses has no value, however quickly it refuses', { skip }, async () => {
  const cell = await measure(impostor('refuses', 0, 403));
  assert.deepEqual(cell.values, []);
  assert.match(cell.failure ?? '', /status 403 instead of 200/);
});

test('a proxy that begins to refuse under load has no value', { skip }, async () => {
  const cell = await measure(impostor('turns', 500, 403));
  assert.deepEqual(cell.values, []);
  assert.match(cell.failure ?? '', /status \d+/);
});

test('a proxy that answers without its upstream has no value', { skip }, async () => {
  const cell = await measure(impostor('invents', 1e9, 200));
  assert.deepEqual(cell.values, []);
  assert.match(cell.failure ?? '', /counted \d+ requests, the upstream 0/);
});

test('a proxy that does not start is named with its last words', { skip }, async () => {
  const broken: Peer = {
    ...impostor('broken', 0, 200),
    prepare: async () => ({ program: process.execPath, args: ['-e', 'throw new Error("no such luck")'] }),
  };
  const cell = await measure(broken);
  assert.deepEqual(cell.values, []);
  assert.match(cell.failure ?? '', /ended with 1 before it served; its last words: .*no such luck/);
});
