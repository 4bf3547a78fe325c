// The commands of the pages that ask a deployment: each runs as it stands there, beside the deployment that the README shows.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { blocksOf, pages } from '../snippets/blocks.ts';
import { needsDeployment } from '../snippets/commands.ts';
import { bundle } from '../support/bundle.ts';
import { canHaveOwnMachine, spawnOnOwnMachine } from '../support/own-machine.ts';

interface Run {
  readonly place: string;
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What a command says, by a word in it, and what it ends with. */
const PROMISED: readonly (readonly [word: string, says: RegExp, status: number])[] = [
  // Nobody is on this machine but the ingress: no public resolver, no index of the certificate logs.
  ['dstack-ingress verify https://app.example.com', /^UNKNOWN .* nothing failed[\s\S]*app\.compose/, 3],
  ['./build-image.sh', /^registry\.example\.com\/dstack-ingress:\S+@sha256:(ab){32}\n$/, 0],
  [
    'curl https://app.example.com/',
    /"service":"app"[\s\S]*\b[0-9a-f]{64} {2}cert-app\.example\.com\.pem\n/,
    0,
  ],
  [
    'sha256sum -c',
    /acme-account\.json: OK\ncert-app\.example\.com\.pem: OK\nbound\n(sha256 Fingerprint=\S+)\n\1\n(https:\S+)\n.*accounturi=\2;/,
    0,
  ],
  ['dstack-ingress.mjs doctor', /app\.example\.com/, 0],
  ['dstack-ingress.mjs top', /app\.example\.com/, 0],
  ['dstack-ingress.mjs status', /app\.example\.com: valid\n[\s\S]*next [\s\S]*records +in place/, 0],
  ['dstack-ingress.mjs config', /DOMAIN +app\.example\.com/, 0],
  ['dstack-ingress.mjs store list', /account\.json/, 0],
  ['dstack-ingress.mjs help verify', /usage: dstack-ingress verify/, 0],
];

const documented = pages.flatMap(blocksOf).filter(needsDeployment);
const skip = !canHaveOwnMachine() && 'this system gives no namespaces (unshare --mount --net)';

describe('beside the deployment of the README', { skip, timeout: 300_000 }, () => {
  const runs = new Map<string, Run>();
  let state: readonly string[] = [];
  let error: string | undefined;

  before(async () => {
    bundle();
    const script = fileURLToPath(new URL('deployments/documented-commands.ts', import.meta.url));
    const child = spawnOnOwnMachine(process.execPath, [script]);
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const told = JSON.parse(line) as { error?: string; state?: string[] } & Run;
      error ??= told.error;
      if (told.state !== undefined) state = told.state;
      else if (told.place !== undefined) runs.set(told.place, told);
    });
    await once(child, 'close');
    if (error !== undefined) assert.fail(error);
  });

  for (const { place, text } of documented)
    test(`${place} does what its page says`, () => judge(text, runs.get(place)));

  for (const words of ['top', 'status', 'doctor', 'config', 'store list', 'help verify'])
    test(`so does "${words}", where the prose names it`, () =>
      judge(`dstack-ingress.mjs ${words}`, runs.get(`in prose: ${words}`)));

  test('the state folder has what docs/operation.md lists, and nothing else', () => {
    const listed = listedFiles();
    assert.ok(state.some((path) => path.endsWith('account.json')));
    assert.deepEqual(
      state.filter((path) => !listed.some((pattern) => pattern.test(path))),
      [],
    );
  });
});

function judge(text: string, run: Run | undefined): void {
  const [, says, status] =
    PROMISED.find(([word]) => text.includes(word)) ?? assert.fail(`nobody knows what it is to do: ${text}`);
  assert.ok(run !== undefined, 'it never came to this');
  assert.equal(run.status, status, `${run.stdout}\n${run.stderr}`);
  assert.match(run.stdout, says, run.stderr);
}

/** The files of the page's list. */
function listedFiles(): RegExp[] {
  const { text } = blocksOf('docs/operation.md').find((block) =>
    block.text.startsWith('dstack-ingress/history'),
  )!;
  let folder = '';
  return text
    .trimEnd()
    .split('\n')
    .flatMap((line) => {
      const inside = line.startsWith(' ');
      const name = line.trim().split(/ {2,}/)[0]!;
      if (!inside && name.endsWith('/')) folder = name;
      return [(inside ? folder : '') + name];
    })
    .map((name) => {
      const pattern = name
        .replaceAll(/[.+*]/g, '\\$&')
        .replaceAll(/<its path>/g, '.+')
        .replaceAll(/<[^>]+>/g, '[^/]+');
      return new RegExp(`^${pattern}${name.endsWith('/') ? '[^/]*' : ''}$`);
    });
}
