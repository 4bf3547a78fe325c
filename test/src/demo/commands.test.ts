// The commands that the demo prints, as a shell reads them.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { first, others, type Scene, shellWord } from '../../../src/demo/commands.ts';

const run = promisify(execFile);

const folder = '/tmp/ingress-demo-AbC123';
const scene: Scene = {
  port: 8443,
  adminPort: 9180,
  caFile: `${folder}/ca.pem`,
  downloads: `${folder}/downloads`,
  program: 'npm run -s demo --',
  verify: 'npm run -s verify --',
  top: 'npm exec -- node src/main.ts top',
  quoteRoot: `${folder}/quote-root.pem`,
  quoteCollateral: `${folder}/quote-collateral.json`,
  policyFile: `${folder}/policy.yaml`,
};

test('what a newcomer is told first fits a terminal of 80 columns', () => {
  const lines = first(scene).flatMap(({ shows, command }) => [`${shows}:`, ...`  $ ${command}`.split('\n')]);
  assert.deepEqual(
    lines.filter((line) => line.length > 80),
    [],
  );
});

test('a command over several lines is one command to a shell', async () => {
  const { command } = first({ ...scene, verify: 'printf %s\\\\n' }).at(-1)!;
  const { stdout } = await run('sh', ['-c', command]);
  assert.equal(stdout.split('\n').filter((word) => word.startsWith('--')).length, 4);
});

test('a path with quotes, spaces and a dollar reaches the command as one word', async () => {
  const path = `/tmp/it's a "$HOME" folder`;
  const { stdout } = await run('sh', ['-c', `printf %s ${shellWord(path)}`]);
  assert.equal(stdout, path);
});

test('the suggested checks fail for a quote that does not sign the digest of sha256sum.txt', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'demo commands '));
  const downloads = join(folder, 'downloads');
  await mkdir(downloads);
  const files = 'ab  cert-localhost.pem\n';
  await writeFile(join(downloads, 'sha256sum.txt'), files);
  const digest = createHash('sha256').update(files).digest('hex');
  const reportData = digest + '0'.repeat(64);
  const checks = others({ ...scene, downloads })
    .map(({ command }) => command)
    .filter((command) => command.includes('grep'));
  assert.equal(checks.length, 2);

  const judge = async (beside: string, within: string) => {
    const quote = {
      quote: `${'00'.repeat(568)}${within}${'00'.repeat(100)}`,
      event_log: '[]',
      report_data: beside,
    };
    await writeFile(join(downloads, 'quote.json'), JSON.stringify(quote));
    return Promise.all(
      checks.map((command) =>
        run('sh', ['-c', command]).then(
          ({ stdout }) => stdout,
          () => 'refused',
        ),
      ),
    );
  };
  const other = 'f'.repeat(128);
  const [besideGood, withinGood] = await judge(reportData, reportData);
  assert.match(besideGood!, /is the digest/);
  assert.match(withinGood!, /signs the digest/);
  assert.equal((await judge(other, reportData))[0], 'refused');
  assert.equal((await judge(reportData, other))[1], 'refused');
  await rm(folder, { recursive: true });
});
