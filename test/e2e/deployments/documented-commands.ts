// Runs the commands of the pages that ask a deployment, as they stand there, beside the README's own deployment; for a machine
// of its own. Says on a line what became of each, and on another what is in the state folder.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  writeFileSync,
} from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { text } from 'node:stream/consumers';
import { inspect } from 'node:util';
import { blocksOf, pages, root } from '../../snippets/blocks.ts';
import { needsDeployment } from '../../snippets/commands.ts';
import { startOfImage } from '../../support/bundle.ts';
import { createSurroundings, type Deployed, holds } from './deployment.ts';

/** In prose, and so in no block. */
const IN_PROSE = ['top', 'status', 'doctor', 'config', 'store list', 'help verify'].map((words) => ({
  place: `in prose: ${words}`,
  text: `docker exec <container> /nodejs/bin/node /app/dstack-ingress.mjs ${words}\n`,
}));

const tell = (line: object) => void process.stdout.write(`${JSON.stringify(line)}\n`);

async function runAll(deployed: Deployed): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'documented-'));
  appendFileSync('/etc/hosts', '\n127.0.0.1 app.example.com\n');
  const programs = layOutPrograms(folder, deployed);
  const roots = join(folder, 'roots.pem');
  writeFileSync(roots, deployed.ca);
  const env = {
    PATH: `${programs}:${process.env.PATH}`,
    HOME: folder,
    // The CA of the tests in the place of the public ones.
    CURL_CA_BUNDLE: roots,
    SSL_CERT_FILE: roots,
  };
  for (const { place, text: script } of [...pages.flatMap(blocksOf).filter(needsDeployment), ...IN_PROSE]) {
    const cwd = layOutClone(mkdtempSync(join(folder, 'clone-')));
    writeFileSync(join(cwd, 'app-compose.json'), await appCompose());
    // The apps and the agent are in this process: it must not stand still meanwhile.
    const child = spawn('bash', ['-euo', 'pipefail', '-c', script.replaceAll('<container>', 'ingress')], {
      cwd,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [stdout, stderr, [status]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'close'),
    ]);
    tell({ place, status, stdout, stderr });
  }
  const entries = readdirSync('/etc/letsencrypt', { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  tell({ state: files.map(({ parentPath, name }) => relative('/etc/letsencrypt', join(parentPath, name))) });
}

/** What an agent measures as the app: the file that the reader of the evidence has from elsewhere. */
async function appCompose(): Promise<string> {
  const asked = request({ socketPath: '/run/dstack.sock', path: '/Info', method: 'POST' });
  asked.setHeader('content-type', 'application/json').end('{}');
  const answer = await new Promise<NodeJS.ReadableStream>((resolve, reject) => {
    asked.once('response', resolve).once('error', reject);
  });
  const { tcb_info } = JSON.parse(await text(answer)) as { tcb_info: string };
  return (JSON.parse(tcb_info) as { app_compose: string }).app_compose;
}

/** A clone as build-image.sh needs one: with everything committed. */
function layOutClone(folder: string): string {
  copyFileSync(join(root, 'build-image.sh'), join(folder, 'build-image.sh'));
  const git = (...args: string[]) =>
    execFileSync('git', ['-C', folder, '-c', 'user.name=t', '-c', 'user.email=t@example.com', ...args]);
  git('init', '--quiet');
  writeFileSync(join(folder, '.gitignore'), 'app-compose.json\n');
  git('add', '.');
  git('commit', '--quiet', '--message', 'all');
  return folder;
}

/** The programs that are not on this machine: ours, a docker with our one container, and a dig that knows our one zone. */
function layOutPrograms(folder: string, { agent, around, environment }: Deployed): string {
  const programs = join(folder, 'programs');
  mkdirSync(programs);
  const write = (name: string, script: string) => {
    writeFileSync(join(programs, name), `#!/bin/bash\n${script}\n`);
    chmodSync(join(programs, name), 0o755);
  };
  const { program, args, env } = startOfImage([]);
  const own = [program, ...args].map((word) => `'${word}'`).join(' ');
  const given = Object.entries({ PATH: '/usr/bin:/bin', ...env, ...environment })
    .map(([name, value]) => `'${name}=${value}'`)
    .join(' ');
  const trust = join(folder, 'quote-root.pem');
  const collateral = join(folder, 'collateral.json');
  const der = agent.rootDer.toString('base64').replaceAll(/.{64}/g, '$&\n');
  writeFileSync(trust, `-----BEGIN CERTIFICATE-----\n${der}\n-----END CERTIFICATE-----\n`);
  writeFileSync(collateral, JSON.stringify(agent.collateral));
  // A processor and a CA of the tests, in the place of those that the world trusts.
  write(
    'dstack-ingress',
    `exec ${own} "$@" --ca "$CURL_CA_BUNDLE" --root '${trust}' --collateral '${collateral}'`,
  );
  write(
    'docker',
    `if [ "$1 $3" = 'exec /nodejs/bin/node' ] && [ "$4" = /app/dstack-ingress.mjs ]; then
      shift 4; exec env -i ${given} ${own} "$@"
    fi
    case "$1 $2" in
      'buildx build')
        while [ "$1" != --metadata-file ]; do shift; done
        printf '{\\n  "containerimage.digest": "sha256:${'ab'.repeat(32)}"\\n}' > "$2" ;;
      'buildx '*) ;;
      *) exit 125 ;;
    esac`,
  );
  const caa = around.cloudflare.zones.get('example.com')!.records.filter(({ type }) => type === 'CAA');
  write(
    'dig',
    `[ "$*" = '+short CAA app.example.com' ] && printf '%s\\n' '${caa.map(({ value }) => value).join("' '")}'`,
  );
  return programs;
}

const around = await createSurroundings();
const readme = {
  title: 'the deployment of the README',
  // docs.test.ts holds the README to this file.
  file: '../../../examples/single-domain.yaml',
  promises: runAll,
};
await holds(readme, around).catch((error) => tell({ error: inspect(error) }));
await around.stop();
process.exit(0);
