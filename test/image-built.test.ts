// The image, really built: twice, from clones that differ, to the same layers; and run with a read-only root.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chownSync,
  copyFileSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Builder, type BuiltImage, createBuilder, startInContainer } from './support/buildah.ts';
import { createWorld, get, startApp } from './support/world.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const REVISION = 'ab'.repeat(20);
const skip = process.getuid?.() !== 0 && 'buildah needs root to enter its containers';

describe('the image', { skip, timeout: 400_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'image-built-'));
  let builder: Builder;
  let images: BuiltImage[];
  let mounted: string;
  before(() => {
    builder = createBuilder(folder);
    images = [
      ['first', '0022'],
      ['elsewhere/deep/second', '0077'],
    ].map(([place, umask], i) => {
      const checkout = join(folder, place!);
      execFileSync('sh', [
        '-c',
        `umask ${umask} && git clone --quiet --no-hardlinks "$0" "$1"`,
        root,
        checkout,
      ]);
      return builder.build(checkout, `localhost/ingress:${i}`, REVISION);
    });
    mounted = builder.mount('localhost/ingress:0');
  });
  after(() => {
    builder.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it('is the same from clones of other place, time and umask: each layer and the configuration', () => {
    const [one, other] = images as [BuiltImage, BuiltImage];
    assert.deepEqual(one.layers, other.layers);
    assert.deepEqual(one.config, other.config);
  });

  it('holds Node, the program, its licence and what it is made of, and nothing that can be written or is set-uid', () => {
    const files = globSync('app/**', { cwd: mounted }).map((file) => join(mounted, file));
    const names = files.map((file) => file.slice(mounted.length));
    for (const wanted of ['/app/dstack-ingress.mjs', '/app/worker.mjs', '/app/LICENSE'])
      assert.ok(names.includes(wanted), wanted);
    for (const file of files) {
      const { mode, uid } = statSync(file);
      assert.equal(mode & 0o022, 0, file);
      assert.equal(mode & 0o6000, 0, file);
      assert.equal(uid, 0, file);
    }
  });

  it('says in CycloneDX and in SPDX what it is made of: each package of the lockfile that is no development dependency', () => {
    const read = (name: string) => JSON.parse(readFileSync(join(mounted, 'app', name), 'utf8'));
    const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
      packages: Record<string, { version: string; dev?: boolean; devOptional?: boolean; optional?: boolean }>;
    };
    const listed = new Set<string>(
      read('sbom.cdx.json').components.map(
        ({ name, version }: Record<string, string>) => `${name}@${version}`,
      ),
    );
    const spdx = new Set<string>(
      read('sbom.spdx.json').packages.map(
        ({ name, versionInfo }: Record<string, string>) => `${name}@${versionInfo}`,
      ),
    );
    const wanted = Object.entries(packages)
      .filter(([place, { dev, devOptional, optional }]) => place !== '' && !dev && !devOptional && !optional)
      .map(([place, { version }]) => `${place.split('node_modules/').at(-1)}@${version}`);
    assert.ok(wanted.length > 50);
    for (const name of wanted) assert.ok(listed.has(name) && spdx.has(name), name);
    for (const name of ['typescript', 'esbuild'])
      assert.ok(![...listed].some((one) => one.startsWith(`${name}@`)), name);
  });

  it('names the revision, in its label and with --version', async () => {
    const { config } = images[0]!;
    assert.equal(config.labels['org.opencontainers.image.revision'], REVISION);
    const child = startInContainer(mounted, [...config.entrypoint, '--version'], { run: folder });
    assert.match(await text(child.stdout!), new RegExp(`\\(${REVISION}\\)`));
  });

  for (const uid of [0, 65532])
    it(`does its whole job with a read-only root as uid ${uid}: a certificate from the CA, the app behind it, evidence`, async () => {
      await using world = await createWorld();
      await using app = await startApp('the app');
      const caFile = join(world.folder, 'ca.pem');
      copyFileSync(world.pebble.caFile, caFile);
      const runFolder = join(world.folder, 'run');
      mkdirSync(runFolder);
      for (const path of [world.folder, runFolder, caFile, join(world.folder, 'dstack.sock')])
        chownSync(path, uid, uid);
      const { config } = images[0]!;
      const env = {
        ...Object.fromEntries(config.env.map((entry) => entry.split('=', 2) as [string, string])),
        ...world.env,
        ACME_CA_FILE: caFile,
        DOMAIN: 'app.example.com',
        TARGET_ENDPOINT: app.url,
        CHALLENGE_TYPE: 'tls-alpn-01',
        DNS_SETUP_MODE: 'print',
        NGINX_CONF_DIR: 'none',
      };
      const child = startInContainer(mounted, [...config.entrypoint, ...config.command], {
        uid,
        env,
        shared: [world.folder],
        run: runFolder,
      });
      const said = { out: '', err: '' };
      child.stdout!.setEncoding('utf8').on('data', (part: string) => {
        said.out += part;
      });
      child.stderr!.setEncoding('utf8').on('data', (part: string) => {
        said.err += part;
      });
      try {
        await until(() => said.out.includes('"msg":"ready"'), child, said);
        const ca = await world.roots();
        const target = { port: world.port, servername: 'app.example.com', ca };
        assert.equal((await get(target)).body, 'the app');
        assert.equal((await get({ ...target, path: '/evidences/quote.json' })).status, 200);
        const [program, ...rest] = config.healthcheck as [string, ...string[]];
        const health = startInContainer(mounted, [program, ...rest], {
          uid,
          env,
          shared: [world.folder],
          run: runFolder,
        });
        const status = await new Promise((resolve) => health.once('exit', resolve));
        assert.equal(status, 0, 'the health check of the image');
      } finally {
        // unshare itself waits through a SIGTERM; with it, all that it has started ends.
        child.kill('SIGKILL');
        if (child.exitCode === null) await new Promise((resolve) => child.once('exit', resolve));
      }
    });
});

async function until(
  isSo: () => boolean,
  child: { readonly exitCode: number | null },
  said: { readonly out: string; readonly err: string },
): Promise<void> {
  const end = Date.now() + 60_000;
  while (!isSo()) {
    if (child.exitCode !== null || Date.now() > end) throw new Error(`${said.out}\n${said.err}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
