// Ten thousand questions for fresh quotes in ten seconds from 200 connections, the agent away for a while: fresh-quotes.ts.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Reader, readHttp1, type Target } from '../support/evidence-reader.ts';
import { startSocketRelay } from '../support/socket-relay.ts';
import { createWorld, startApp } from '../support/world.ts';

const SECONDS = 10;
const MOST_SLOWER = 1.2;
const MOST_MEMORY = 1.2;

await using world = await createWorld();
await using app = await startApp('from the app');
await using relay = await startSocketRelay(join(world.folder, 'relay.sock'), world.agent.endpoint);
const domain = 'app.example.com';
const ingress = world.start({
  DOMAIN: domain,
  TARGET_ENDPOINT: app.url,
  CHALLENGE_TYPE: 'tls-alpn-01',
  DNS_SETUP_MODE: 'print',
  DSTACK_SIMULATOR_ENDPOINT: relay.endpoint,
});
await ingress.waitFor('ready');
const target: Target = { port: world.port, servername: domain, ca: await world.roots() };

// The first run is to warm the workers up: their memory grows under any traffic. The second is the measure: as many
// requests for a file of the same length, by the same process on the same machine.
const warm = await run('warming up');
const plain = await run('quote.json instead', 'quote.json');
const flood = await run('fresh quotes');
const verdicts = [
  flood.report.other > 0 && 'answers that were neither a quote nor 429',
  flood.report.wrong > 0 && 'answers that did not verify',
  flood.quotes > flood.report.seconds + 1 && `${flood.quotes} quotes`,
  flood.p50 > plain.p50 * MOST_SLOWER && 'traffic beside it was slower',
  flood.memoryMiB > warm.memoryMiB * MOST_MEMORY && 'memory grew',
].filter((verdict) => verdict !== false);
for (const verdict of verdicts) console.log(`  ${verdict}`);
await ingress.stop();
process.exitCode = verdicts.length === 0 ? 0 : 1;

interface Report {
  readonly answered: number;
  readonly refused: number;
  readonly other: number;
  readonly wrong: number;
  /** From the first question to the last answer. */
  readonly seconds: number;
}

async function run(what: string, instead?: string) {
  const quiet = await visit(SECONDS);
  const quotesBefore = quotes();
  const child: ChildProcess = fork(fileURLToPath(new URL('fresh-quotes-load.ts', import.meta.url)));
  child.send({ target, connections: 200, perConnection: 50, seconds: SECONDS, instead });
  await once(child, 'message');
  const reported = once(child, 'message');
  const cpuBefore = workersCpuSeconds();
  const away = (async () => {
    await sleep(4_000);
    await relay.close();
    await sleep(1_500);
    await relay.open();
  })();
  const busy = await visit(SECONDS);
  await away;
  const [report] = (await reported) as [Report];
  const quotesMade = quotes() - quotesBefore;
  const memoryMiB = workersMemoryMiB();
  const figures = {
    ...report,
    quotes: quotesMade,
    'p50 ms, quiet and busy': [quiet.p50, busy.p50],
    'p99 ms, quiet and busy': [quiet.p99, busy.p99],
    'CPU s of the workers': Number((workersCpuSeconds() - cpuBefore).toFixed(2)),
    'memory MiB': memoryMiB,
  };
  console.log(what, JSON.stringify(figures));
  return { report, quotes: quotesMade, p50: busy.p50, memoryMiB };
}

function quotes(): number {
  return world.agent.calls.filter((method) => method === 'GetQuote').length;
}

/** A visitor of the app, twenty times a second. */
async function visit(seconds: number): Promise<{ p50: number; p99: number }> {
  const readers: Reader[] = await Promise.all(Array.from({ length: 4 }, () => readHttp1(target)));
  const latencies: number[] = [];
  const until = performance.now() + seconds * 1_000;
  await Promise.all(
    readers.map(async (reader) => {
      while (performance.now() < until) {
        const began = performance.now();
        await reader.get('/');
        latencies.push(performance.now() - began);
        await sleep(50);
      }
      reader.close();
    }),
  );
  latencies.sort((a, b) => a - b);
  const at = (share: number) => Number(latencies[Math.floor(latencies.length * share)]!.toFixed(2));
  return { p50: at(0.5), p99: at(0.99) };
}

/** Of all processes that the ingress has started. */
function workersMemoryMiB(): number {
  const kibibytes = childrenOf(ingress.pid).map((pid) =>
    Number(/^VmRSS:\s+(\d+)/m.exec(textOf(pid, 'status'))?.[1] ?? 0),
  );
  return Math.round(kibibytes.reduce((sum, each) => sum + each, 0) / 1024);
}

/** Since they began; see proc_pid_stat(5). A tick is a hundredth of a second. */
function workersCpuSeconds(): number {
  const ticks = childrenOf(ingress.pid).map((pid) => {
    const fields = textOf(pid, 'stat')
      .replace(/^.*\) /s, '')
      .split(' ');
    return Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  });
  return ticks.reduce((sum, each) => sum + each, 0) / 100;
}

function childrenOf(parent: number): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => Number(/^PPid:\s+(\d+)/m.exec(textOf(pid, 'status'))?.[1]) === parent);
}

function textOf(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}
