// npm run bench: measures this program beside others, by the CPU time that each spends on a unit of work.

import { execFileSync } from 'node:child_process';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { measureConnections, renderConnections, seriesOf } from './connections.ts';
import { plotFile, writeSection } from './docs.ts';
import { measureMemory, renderMemory } from './memory.ts';
import { choose, HELP, type Options, parseOptions, UsageError } from './options.ts';
import { allPeers } from './peers/all.ts';
import { renderPlot } from './plot.ts';
import {
  endWithThisProcess,
  LOAD_CORE,
  nodeCommand,
  pinToCore,
  requireTwoCores,
  runToEnd,
  stopEverything,
} from './processes.ts';
import { extendPath, howToGet, provide } from './programs.ts';
import { rows } from './rows/all.ts';
import { measureSideBySide } from './side-by-side.ts';
import { openStage, type Stage } from './stage.ts';
import { renderNotes, renderTable } from './table.ts';

const REPOSITORY = fileURLToPath(new URL('../', import.meta.url));
const SOURCE = `${REPOSITORY}src/main.ts`;

const NEEDED_ALWAYS = [
  { program: 'nginx', package: 'nginx' },
  { program: 'openssl', package: 'openssl' },
  { program: 'taskset', package: 'util-linux' },
];
/** Whose request cost is plotted unless --peers says otherwise. */
const PLOTTED = ['ours', 'nginx-tuned'];

async function main(args: readonly string[]): Promise<number> {
  const options = parseOptions(args);
  if (options.mode === 'help') return print(HELP);
  if (options.mode === 'list') return print(`${listOf('rows', rows)}${listOf('peers', allPeers(SOURCE))}`);
  const wantedRows = choose(rows, options.only, 'row');
  const wantedPeers = options.peers ?? (options.mode === 'connections' ? PLOTTED : undefined);
  // Before anything is built or started.
  choose(allPeers(SOURCE, options.before && SOURCE, options.traced), wantedPeers, 'peer');

  requireTwoCores();
  extendPath();
  const missing = provide(NEEDED_ALWAYS);
  for (const each of NEEDED_ALWAYS) if (missing.has(each.program)) throw new UsageError(howToGet(each));
  endWithThisProcess();
  pinToCore(LOAD_CORE);
  const stage = await openStage();
  try {
    const ourProgram = options.fromSource ? SOURCE : await buildBundle(stage.folder);
    const before = options.before && (await buildBefore(stage.folder, options.before));
    const peers = choose(allPeers(ourProgram, before, options.traced), wantedPeers, 'peer');
    switch (options.mode) {
      case 'connections':
        return await connections(stage, options, peers);
      case 'memory':
        return await memory(stage, options, ourProgram);
      default:
        return await table(stage, options, { rows: wantedRows, peers });
    }
  } finally {
    await stage.close();
    await stopEverything();
  }
}

async function table(
  stage: Stage,
  options: Options,
  wanted: Parameters<typeof measureSideBySide>[2],
): Promise<number> {
  const report = await measureSideBySide(stage, options, wanted, tell);
  const text = `${renderTable(report)}\n\n${renderNotes(report)}\n`;
  if (options.json !== undefined) await writeFile(options.json, `${JSON.stringify(report, null, 2)}\n`);
  if (options.writeDocs) await writeSection('table', text);
  print(text);
  return report.cells.some((cell) => cell.failure !== undefined) ? 1 : 0;
}

async function connections(
  stage: Stage,
  options: Options,
  peers: Parameters<typeof measureConnections>[2],
): Promise<number> {
  const costs = await measureConnections(stage, options, peers, tell);
  const text = renderConnections(costs);
  const plot = renderPlot(seriesOf(costs), {
    title: 'CPU time per request by connections kept open',
    x: 'connections (HTTP/1.1 over TLS, 1 KiB replies)',
    y: 'µs/request',
  });
  if (options.json !== undefined) await writeFile(options.json, `${JSON.stringify(costs, null, 2)}\n`);
  await writeFile(plotFile, plot);
  if (options.writeDocs) await writeSection('connections', `![CPU per request](connections.svg)\n\n${text}`);
  return print(`${text}\n\nplot: ${plotFile}\n`);
}

async function memory(stage: Stage, options: Options, ourProgram: string): Promise<number> {
  const report = await measureMemory(stage, ourProgram, options.minutes, tell);
  const text = renderMemory(report);
  if (options.json !== undefined) await writeFile(options.json, `${JSON.stringify(report, null, 2)}\n`);
  if (options.writeDocs) await writeSection('memory', text);
  return print(`${text}\n`);
}

/** The image ships the bundle, so the bundle is measured unless --source says otherwise. */
async function buildBundle(folder: string): Promise<string> {
  const outdir = join(folder, 'dist');
  await runToEnd(nodeCommand(`${REPOSITORY}build.ts`, [outdir]), LOAD_CORE);
  return join(outdir, 'dstack-ingress.mjs');
}

/** With the packages that are installed here: what is compared is the program. */
async function buildBefore(folder: string, commit: string): Promise<string> {
  const sources = join(folder, 'before');
  const outdir = join(folder, 'dist-before');
  await mkdir(sources);
  const archive = execFileSync('git', ['-C', REPOSITORY, 'archive', commit], {
    maxBuffer: 256 * 1024 * 1024,
  });
  execFileSync('tar', ['-x', '-C', sources], { input: archive });
  await symlink(join(REPOSITORY, 'node_modules'), join(sources, 'node_modules'));
  const build = nodeCommand(join(sources, 'build.ts'), [outdir]);
  await runToEnd({ ...build, env: { ...build.env, GIT_REVISION: commit } }, LOAD_CORE);
  return join(outdir, 'dstack-ingress.mjs');
}

function listOf(kind: string, items: readonly { readonly id: string; readonly title: string }[]): string {
  return `${kind}:\n${items.map(({ id, title }) => `  ${id.padEnd(14)}${title}\n`).join('')}`;
}

/** Progress goes to stderr: stdout is the result. */
function tell(text: string): void {
  process.stderr.write(`${text}\n`);
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`${error.message}\nhint: npm run bench -- --help\n`);
  process.exitCode = 2;
}
