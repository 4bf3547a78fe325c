// The image as the Dockerfile makes it, built by buildah, with stand-ins for its two base images: this machine's Node and libraries.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

export interface ImageConfig {
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly env: readonly string[];
  readonly user: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly healthcheck: readonly string[];
}

export interface BuiltImage {
  readonly id: string;
  /** Digests of the layers, the base's first. */
  readonly layers: readonly string[];
  readonly config: ImageConfig;
}

export interface InContainer {
  /** Folders of this machine that the container sees, and may write, at the same place. */
  readonly shared?: readonly string[];
  /** The folder that is /run there, with /tmp below it: who is started with the same is in the same container. */
  readonly run: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly uid?: number;
}

export interface Builder {
  /** From a checkout, with the words of build-image.sh. */
  build(checkout: string, name: string, revision: string): BuiltImage;
  /** The root of a container of the image, read-only for whoever is started in it. */
  mount(name: string): string;
  close(): void;
}

/** `folder` holds everything; close before you remove it. */
export function createBuilder(folder: string): Builder {
  const place = [
    '--storage-driver',
    'vfs',
    '--root',
    join(folder, 'storage'),
    '--runroot',
    join(folder, 'run'),
  ];
  const buildah = (...args: string[]) =>
    execFileSync('buildah', [...place, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const [building, final] = baseImages();
  for (const [name, layOut] of [
    ['build', layOutBuildBase],
    ['final', layOutFinalBase],
  ] as const) {
    const context = join(folder, name);
    layOut(context);
    writeFileSync(
      join(folder, `${name}.Dockerfile`),
      'FROM scratch\nCOPY . /\nENV PATH=/usr/local/bin:/bin\n',
    );
    buildah(
      'bud',
      '--isolation',
      'chroot',
      '--timestamp',
      '0',
      '-f',
      join(folder, `${name}.Dockerfile`),
      '-t',
      `localhost/${name}`,
      context,
    );
  }
  const containers: string[] = [];
  return {
    build(checkout, name, revision) {
      buildah(
        ...['bud', '--isolation', 'chroot', '--format', 'docker', '--layers=false', '--timestamp', '0'],
        ...['--build-context', `${building}=container-image://localhost/build`],
        ...['--build-context', `${final}=container-image://localhost/final`],
        ...['--build-arg', `GIT_REVISION=${revision}`, '--build-arg', 'SOURCE_DATE_EPOCH=0'],
        ...['--volume', `${join(root, 'node_modules')}:/standin/node_modules:ro`],
        ...['--volume', `${npmFolder()}:/standin/npm:ro`],
        ...['-t', name, checkout],
      );
      return describe(buildah('inspect', '--type', 'image', name));
    },
    mount(name) {
      const container = buildah('from', '--pull-never', name).trim();
      containers.push(container);
      return buildah('mount', container).trim();
    },
    close() {
      for (const container of containers) buildah('rm', container);
    },
  };
}

function baseImages(): [string, string] {
  const bases = [...readFileSync(join(root, 'Dockerfile'), 'utf8').matchAll(/^FROM (\S+)/gm)].map(
    ([, name]) => name!,
  );
  return [bases[0]!, bases[1]!];
}

/** A Node where Debian's image has it, a shell, and an npm whose `ci` takes what is installed here already. */
function layOutBuildBase(folder: string): void {
  putProgram(realpathSync(process.execPath), join(folder, 'usr/local/bin/node'), folder);
  for (const name of ['sh', 'ln'])
    putProgram(realpathSync(`/bin/${name}`), join(folder, 'bin', name), folder);
  const npm = join(folder, 'usr/local/bin/npm');
  writeFileSync(
    npm,
    '#!/bin/sh\nif [ "$1" = ci ]; then exec ln -s /standin/node_modules node_modules; fi\nexec node /standin/npm/bin/npm-cli.js "$@"\n',
  );
  chmodSync(npm, 0o755);
  for (const name of ['tmp', 'standin', 'root']) mkdirSync(join(folder, name), { recursive: true });
}

/** As in distroless images: Node with its libraries, and users; nothing else. */
function layOutFinalBase(folder: string): void {
  putProgram(realpathSync(process.execPath), join(folder, 'nodejs/bin/node'), folder);
  for (const name of ['tmp', 'etc', 'dev', 'proc', 'run', 'var'])
    mkdirSync(join(folder, name), { recursive: true });
  writeFileSync(
    join(folder, 'etc/passwd'),
    'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n',
  );
}

function putProgram(program: string, place: string, folder: string): void {
  const libraries = [...execFileSync('ldd', [program], { encoding: 'utf8' }).matchAll(/(\/\S+)/g)].map(
    ([, path]) => path!,
  );
  for (const [from, to] of [[program, place], ...libraries.map((path) => [path, join(folder, path)])] as [
    string,
    string,
  ][]) {
    mkdirSync(dirname(to), { recursive: true });
    copyFileSync(from, to);
    chmodSync(to, 0o755);
  }
}

/** The npm that runs this, or the one that is found. */
function npmFolder(): string {
  const cli =
    process.env.npm_execpath ??
    realpathSync(execFileSync('sh', ['-c', 'command -v npm'], { encoding: 'utf8' }).trim());
  const folder = dirname(dirname(cli));
  if (!existsSync(join(folder, 'bin/npm-cli.js'))) throw new Error(`no npm in ${folder}: ${basename(cli)}`);
  return folder;
}

interface Inspected {
  readonly FromImageID: string;
  readonly OCIv1: { readonly rootfs: { readonly diff_ids: string[] } };
  readonly Docker: {
    readonly config: {
      readonly Entrypoint: string[];
      readonly Cmd: string[];
      readonly Env: string[];
      readonly User: string;
      readonly Labels: Record<string, string>;
      readonly Healthcheck?: { readonly Test: string[] };
    };
  };
}

function describe(inspected: string): BuiltImage {
  const { FromImageID, OCIv1, Docker } = JSON.parse(inspected) as Inspected;
  const { Entrypoint, Cmd, Env, User, Labels, Healthcheck } = Docker.config;
  return {
    id: FromImageID,
    layers: OCIv1.rootfs.diff_ids,
    config: {
      entrypoint: Entrypoint,
      command: Cmd,
      env: Env,
      user: User,
      labels: Labels,
      healthcheck: Healthcheck?.Test.slice(1) ?? [],
    },
  };
}

const ENTER = `
set -e
root="$1"; user="$2"; run="$3"; shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mkdir -p -m 1777 "$run/tmp"
mount --bind "$run/tmp" "$root/tmp"
mount --bind "$run" "$root/run"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
while [ "$1" != -- ]; do mkdir -p "$root$1"; mount --bind "$1" "$root$1"; shift; done
shift
exec chroot --userspec="$user" "$root" "$@"
`;

/** In the container's root, of which only /tmp, /run and what is shared can be written; the network is this machine's. */
export function startInContainer(
  mounted: string,
  words: readonly string[],
  { shared = [], run, env = {}, uid = 0 }: InContainer,
): ChildProcess {
  return spawn(
    'unshare',
    [
      '--mount',
      '--pid',
      '--fork',
      '--kill-child',
      'sh',
      '-c',
      ENTER,
      'sh',
      mounted,
      `${uid}:${uid}`,
      run,
      ...shared,
      '--',
      ...words,
    ],
    {
      // Of the programs that lead into it, not of the container: nothing there is looked for by name.
      env: { ...env, PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
}
