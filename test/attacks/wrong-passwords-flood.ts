// Ten thousand wrong passwords a second, beside what as many requests without any cost: wrong-passwords-flood.ts [COST].
//
// What is judged is what the passwords do to others, and not what ten thousand requests do to a machine that also has to
// send them: the traffic beside the flood is compared with the same beside requests that are refused for want of a password.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { readHttp1, type Target } from '../support/evidence-reader.ts';
import { createWorld, startApp } from '../support/world.ts';
import { guardedRoutes } from './wrong-passwords.ts';
import type { Order, Report } from './wrong-passwords-load.ts';

const SECONDS = 8;
const PER_SECOND = 10_000;
const MOST_SLOWER = 1.5;
/** Of bcrypt, as `htpasswd -B` uses it. */
const cost = Number(process.argv[2] ?? 10);

await using world = await createWorld();
await using app = await startApp('from the app');
const path = join(world.folder, 'routes.yaml');
await writeFile(path, guardedRoutes(app.url, cost));
const settings = { CHALLENGE_TYPE: 'tls-alpn-01', DNS_SETUP_MODE: 'print', ROUTES_FILE: path };
const ingress = world.start(settings);
await ingress.waitFor('ready');
const target: Target = { port: world.port, servername: 'app.example.com', ca: await world.roots() };

await run('warming up', false);
console.log('quiet', JSON.stringify(await visit(SECONDS)));
const plain = await run('without passwords', false);
const wrong = await run('wrong passwords', true);
const slower = wrong.p99 / plain.p99;
console.log(`p99 beside wrong passwords is ${slower.toFixed(2)} times that beside requests without any`);
const unexpected = Object.keys(wrong.report.statuses).filter(
  (status) => status !== '401' && status !== '503',
);
if (unexpected.length > 0) console.log(`  answered with ${unexpected.join(', ')}`);
if (slower > MOST_SLOWER) console.log(`  more than ${MOST_SLOWER}`);
await ingress.stop();
process.exitCode = slower <= MOST_SLOWER && unexpected.length === 0 ? 0 : 1;

async function run(what: string, passwords: boolean) {
  const child = fork(fileURLToPath(new URL('wrong-passwords-load.ts', import.meta.url)));
  const { port, servername, ca } = target;
  const order: Order = {
    port,
    servername,
    ca: String(ca),
    // More than may wait for an answer: those get 503 at once, and go on.
    connections: 400,
    perSecond: PER_SECOND,
    seconds: SECONDS,
    passwords,
  };
  child.send(order);
  await once(child, 'message');
  const reported = once(child, 'message');
  const figures = await visit(SECONDS - 1);
  const [report] = (await reported) as [Report];
  const perSecond = Math.round(report.answered / report.seconds);
  console.log(what, JSON.stringify({ ...figures, perSecond, statuses: report.statuses }));
  return { ...figures, report };
}

/** Visitors of the app, two hundred requests a second. */
async function visit(seconds: number): Promise<{ p50: number; p99: number }> {
  const readers = await Promise.all(Array.from({ length: 10 }, () => readHttp1(target)));
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
