// Every attack at full strength, one after the other, as a table: run.ts [--seconds 30] [--rest 60] [--only NAME].

import { parseArgs } from 'node:util';
import { attacks } from './attacks.ts';
import { type Outcome, runAttack } from './run-attack.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '30' },
    rest: { type: 'string', default: '60' },
    only: { type: 'string' },
  },
});
const WORST_P99_MS = 250;
const MOST_MEMORY = 1.2;
/** The heap of a worker that has just been started grows for a while under any traffic. */
const WARM_UP_SECONDS = 45;

const chosen = attacks.filter(({ name }) => values.only === undefined || name === values.only);
if (chosen.length === 0) throw new Error(`no attack is called ${values.only}`);
console.log(row('attack', 'p50 ms', 'p99 ms', 'asked', 'failed', 'CPU s', 'before', 'highest', 'after MiB'));
let held = true;
for (const attack of chosen) {
  const outcome = await runAttack({
    attack,
    seconds: Number(values.seconds),
    warmUpSeconds: WARM_UP_SECONDS,
    restSeconds: Number(values.rest),
  });
  const verdicts = judge(outcome);
  if (verdicts.length > 0) held = false;
  print(attack.name, outcome, verdicts);
}
process.exit(held ? 0 : 1);

function judge({ bystanders, memory }: Outcome): string[] {
  const verdicts: string[] = [];
  if (bystanders.failures.length > 0) verdicts.push('bystanders failed');
  if (!(bystanders.p99Ms < WORST_P99_MS))
    verdicts.push(`bystanders waited ${bystanders.p99Ms.toFixed(0)} ms`);
  if (memory.after > memory.before * MOST_MEMORY) verdicts.push('memory stayed');
  return verdicts;
}

function print(name: string, { bystanders, cpuMs, memory }: Outcome, verdicts: readonly string[]): void {
  const { p50Ms, p99Ms, requests, failures } = bystanders;
  const mebibytes = [memory.before, memory.highest, memory.after].map((KiB) => (KiB / 1024).toFixed(0));
  const figures = [p50Ms.toFixed(1), p99Ms.toFixed(1), requests, failures.length, (cpuMs / 1_000).toFixed(1)];
  console.log(
    row(name, ...figures.map(String), ...mebibytes) + verdicts.map((verdict) => `  ${verdict}`).join(''),
  );
  const kinds = Map.groupBy(failures, (failure) => failure);
  for (const [failure, all] of kinds) console.log(`    ${all.length} times ${failure}`);
}

function row(name: string, ...cells: readonly string[]): string {
  return name.padEnd(18) + cells.map((cell) => cell.padStart(10)).join('');
}
