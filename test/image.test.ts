// How the image is built, as far as that can be seen without Docker: what the script asks for, and what the stages do.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const root = fileURLToPath(new URL('..', import.meta.url));
const digest = `sha256:${'ab'.repeat(32)}`;

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'image-test-'));
});

afterEach(() => rm(folder, { recursive: true }));

describe('build-image.sh', () => {
  test('asks BuildKit v0.20.2 for one reproducible manifest, and prints its digest', async () => {
    const { repository, build, calls } = await scene();
    const { stdout } = await build('registry.example.com:5000/ingress:1.2.3', '--push');
    assert.equal(stdout, `registry.example.com:5000/ingress:1.2.3@${digest}\n`);
    const [, , create, built] = await calls();
    assert.match(create!, /^buildx create .*--driver docker-container .*image=moby\/buildkit:v0\.20\.2$/);
    const words = built!.split(' ');
    const revision = (await run('git', ['-C', repository, 'rev-parse', 'HEAD'])).stdout.trim();
    for (const wanted of [
      'SOURCE_DATE_EPOCH=0',
      `GIT_REVISION=${revision}`,
      '--provenance=false',
      '--sbom=false',
      'linux/amd64',
      'type=image,push=true,name=registry.example.com:5000/ingress:1.2.3,oci-mediatypes=false,rewrite-timestamp=true',
    ]) {
      assert.ok(words.includes(wanted), `${wanted} in: ${built}`);
    }
  });

  test('loads the image into the local docker unless told to push, and uses the builder that is there', async () => {
    const { build, calls } = await scene({ builderExists: true });
    await build('ingress:dev');
    const [version, inspect, built, ...others] = await calls();
    assert.match(version!, /^buildx version/);
    assert.match(inspect!, /^buildx inspect/);
    assert.match(built!, /--output type=docker,name=ingress:dev,/);
    assert.deepEqual(others, []);
  });

  test('refuses files that are not committed, new ones too, unless they are allowed and then named', async () => {
    const { repository, build, calls } = await scene();
    await writeFile(join(repository, 'src.ts'), 'changed');
    await assert.rejects(build('ingress:dev'), (error: { code: number; stderr: string }) => {
      assert.equal(error.code, 1);
      assert.match(error.stderr, /files differ from commit [0-9a-f]{40}\nhint: .*--allow-dirty/);
      return true;
    });
    assert.equal((await calls()).filter((call) => call.includes('build ')).length, 0, 'nothing was built');
    await build('ingress:dev', '--allow-dirty');
    assert.match((await calls()).at(-1)!, /GIT_REVISION=[0-9a-f]{40}-dirty/);
  });

  test('explains itself, and builds nothing, when it is called wrongly', async () => {
    const { build, calls } = await scene();
    for (const args of [[], ['no-tag'], ['two:a', 'names:b'], ['a:b', '--unknown'], ['a:b;touch x']]) {
      await assert.rejects(build(...args), (error: { code: number; stderr: string }) => {
        assert.equal(error.code, 2);
        assert.match(error.stderr, /^usage:/);
        return true;
      });
    }
    assert.deepEqual(await calls(), []);
  });

  test('says what is missing: docker, buildx, or the digest', async () => {
    const without = await scene({ docker: false });
    await assert.rejects(without.build('a:b'), /docker is not installed/);
    const old = await scene({ buildx: false });
    await assert.rejects(old.build('a:b'), /docker has no buildx/);
    const silent = await scene({ metadata: '{}' });
    await assert.rejects(silent.build('a:b'), /did not say which digest/);
  });

  test('fails when the build fails, and prints no digest', async () => {
    const { build } = await scene({ buildStatus: 17 });
    await assert.rejects(build('a:b'), (error: { code: number; stdout: string }) => {
      assert.deepEqual([error.code, error.stdout], [17, '']);
      return true;
    });
  });
});

describe('the Dockerfile', () => {
  test('pins each base image by digest, installs nothing in the final one, and starts without a shell', async () => {
    const instructions = await dockerfile();
    const bases = instructions.filter(({ name }) => name === 'FROM');
    assert.equal(bases.length, 2);
    for (const { value } of bases) assert.match(value, /@sha256:[0-9a-f]{64}( AS build)?$/);
    const final = instructions.slice(instructions.lastIndexOf(bases[1]!));
    assert.deepEqual(
      final.filter(({ name }) => name === 'RUN' || name === 'ADD'),
      [],
    );
    for (const { name, value } of final) {
      if (name === 'ENTRYPOINT' || name === 'CMD')
        assert.doesNotThrow(() => JSON.parse(value), `${name} is a list`);
    }
  });

  test('copies only what .dockerignore lets through', async () => {
    const allowed = await contextEntries();
    for (const source of (await copied()).flatMap(({ sources }) => sources)) {
      assert.ok(allowed.includes(source), `${source} is kept from the build by .dockerignore`);
    }
  });
});

interface SceneOptions {
  docker?: boolean;
  buildx?: boolean;
  builderExists?: boolean;
  buildStatus?: number;
  metadata?: string;
}

/** A repository with the script and one more file in it, and a docker that writes down how it is called. */
async function scene(options: SceneOptions = {}) {
  const home = await mkdtemp(join(folder, 'scene-'));
  const repository = join(home, 'repository');
  const programs = join(home, 'programs');
  const journal = join(home, 'journal');
  await Promise.all([mkdir(repository), mkdir(programs), writeFile(journal, '')]);
  await cp(join(root, 'build-image.sh'), join(repository, 'build-image.sh'));
  await writeFile(join(repository, 'src.ts'), 'committed');
  const git = (...args: string[]) =>
    run('git', ['-C', repository, '-c', 'user.name=test', '-c', 'user.email=test@example.com', ...args]);
  await git('init', '--quiet');
  await git('add', '.');
  await git('commit', '--quiet', '--message', 'all');

  // Only the programs that the script may need: the machine's own docker must stay out of it.
  for (const name of ['bash', 'git', 'dirname', 'cat', 'mktemp', 'rm', 'grep']) {
    const { stdout } = await run('sh', ['-c', `command -v ${name}`]);
    await writeFile(join(programs, name), `#!/bin/sh\nexec ${stdout.trim()} "$@"\n`, { mode: 0o755 });
  }
  if (options.docker !== false) {
    await writeFile(join(programs, 'docker'), fakeDocker(journal, options), { mode: 0o755 });
  }
  return {
    repository,
    build: (...args: string[]) =>
      run('/bin/bash', [join(repository, 'build-image.sh'), ...args], { env: { PATH: programs } }),
    calls: async () => (await readFile(journal, 'utf8')).split('\n').filter((line) => line !== ''),
  };
}

function fakeDocker(journal: string, options: SceneOptions): string {
  const metadata = options.metadata ?? JSON.stringify({ 'containerimage.digest': digest }, null, 2);
  return `#!/bin/bash
echo "$*" >> '${journal}'
case "$2" in
  version) exit ${options.buildx === false ? 1 : 0} ;;
  inspect) exit ${options.builderExists ? 0 : 1} ;;
  build)
    while [ "$1" != --metadata-file ]; do shift; done
    printf '%s' '${metadata}' > "$2"
    exit ${options.buildStatus ?? 0} ;;
esac
`;
}

interface Instruction {
  readonly name: string;
  readonly value: string;
}

async function dockerfile(): Promise<Instruction[]> {
  const text = await readFile(join(root, 'Dockerfile'), 'utf8');
  return text
    .replace(/^#.*\n/gm, '')
    .replaceAll('\\\n', ' ')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const [, name, value] = /^(\w+)\s+(.*)$/.exec(line)!;
      return { name: name!, value: value! };
    });
}

/** The sources of COPY instructions: those from the context, or those from another stage. */
async function copied(stage?: string): Promise<{ sources: string[]; target: string }[]> {
  const copies = (await dockerfile()).filter(({ name }) => name === 'COPY');
  return copies
    .filter(({ value }) => value.includes('--from=') === (stage !== undefined))
    .map(({ value }) => splitCopy(value));
}

function splitCopy(value: string): { sources: string[]; target: string } {
  const words = value.split(/\s+/).filter((word) => !word.startsWith('--'));
  return { sources: words.slice(0, -1), target: words.at(-1)! };
}

/** What of the repository's top level reaches the build: .dockerignore shuts everything out and lets a few back in. */
async function contextEntries(): Promise<string[]> {
  const [first, ...rest] = (await readFile(join(root, '.dockerignore'), 'utf8'))
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  assert.equal(first, '*');
  assert.ok(rest.every((line) => /^![\w.-]+$/.test(line)));
  const entries = await readdir(root);
  return rest.map((line) => line.slice(1)).filter((name) => entries.includes(name));
}
