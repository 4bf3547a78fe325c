// One run of an attack: bystanders on other connections, what befalls them, and the worker's memory and CPU.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { bundledScript } from '../support/bundled-script.ts';
import type { Attack, RunningAttack, Target } from './attack.ts';
import { type BystanderReport, moveMuch, startBystanders } from './bystanders.ts';
import { hosts } from './hosts.ts';
import { type Figures, openStage, type Stage } from './stage.ts';

const attacker = await bundledScript(join(import.meta.dirname, 'attacker.ts'));

export interface Outcome {
  readonly bystanders: BystanderReport;
  /** Of the worker: CPU that the attack and its bystanders have cost. */
  readonly cpuMs: number;
  /** Four times what two honest downloads of 16 MiB have cost on the same machine in the same minute: the measure of cpuMs. */
  readonly honestCpuMs: number;
  readonly memory: { readonly before: number; readonly highest: number; readonly after: number };
}

export interface RunOptions {
  readonly attack: Attack;
  /** Stopped after this; without it, it ends with its rounds. */
  readonly seconds?: number;
  readonly rounds?: number;
  /** How long bystanders are served before the attack, so that the worker has all that it keeps anyway. */
  readonly warmUpSeconds: number;
  /** From the end of the attack to the last look at the memory. */
  readonly restSeconds: number;
}

export async function runAttack(options: RunOptions): Promise<Outcome> {
  const stage = await openStage(options.attack.worker);
  try {
    return await runOn(stage, options);
  } finally {
    await stage.close();
  }
}

async function runOn(stage: Stage, options: RunOptions): Promise<Outcome> {
  const { attack, seconds, rounds = Number.POSITIVE_INFINITY, warmUpSeconds, restSeconds } = options;
  const warmUp = startBystanders(stage);
  const started = stage.figures();
  await moveMuch(stage);
  const honestCpuMs = 4 * (stage.figures().cpuMs - started.cpuMs);
  await sleep(warmUpSeconds * 1_000);
  await warmUp.stop();
  const before = stage.figures();
  let highest = before;
  const watch = setInterval(() => {
    const now = stage.figures();
    if (now.memoryKiB > highest.memoryKiB) highest = now;
  }, 200);
  const bystanders = startBystanders(stage);
  const attacker = await startAttacker(attack, { port: stage.port, ca: stage.ca, hosts, rounds });
  if (seconds === undefined) await attacker.over;
  else await Promise.race([sleep(seconds * 1_000), attacker.over]);
  const during = stage.figures();
  await attacker.stop();
  // Those who began meanwhile end as well: what an attack has cut off may show late.
  const report = await bystanders.stop();
  clearInterval(watch);
  const later = startBystanders(stage);
  await sleep(restSeconds * 1_000);
  await later.stop();
  const after: Figures = stage.figures();
  return {
    bystanders: report,
    cpuMs: during.cpuMs - before.cpuMs,
    honestCpuMs,
    memory: { before: before.memoryKiB, highest: highest.memoryKiB, after: after.memoryKiB },
  };
}

/** An attacker shares no event loop with those whose waiting is measured, and yields to them where cores are few. */
async function startAttacker(attack: Attack, target: Target): Promise<RunningAttack> {
  const child = fork(attacker, [attack.name], {
    serialization: 'advanced',
    stdio: 'inherit',
  });
  const exited = once(child, 'exit') as Promise<[number | null]>;
  const over = exited.then(([code]) => {
    if (code !== 0) throw new Error(`the attacker ended with ${code}`);
  });
  over.catch(() => {});
  child.send(target);
  await Promise.race([once(child, 'message'), over]);
  return {
    over,
    async stop() {
      // One that is ending by itself need not be told.
      if (child.connected) child.send('stop', () => {});
      await over;
    },
  };
}
