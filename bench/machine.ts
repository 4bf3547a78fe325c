// The machine that measured, and the versions of what it measured.

import { spawnSync } from 'node:child_process';
import { cpus, loadavg, release } from 'node:os';
import { stolenTicks } from './measure.ts';
import type { Command } from './processes.ts';
import type { Machine } from './table.ts';

/** Call it at the start; call what it returns at the end. */
export function watchMachine(): () => Machine {
  const startedAt = performance.now();
  const stolenBefore = stolenTicks();
  const loadAtStart = loadavg()[0] ?? 0;
  return () => {
    // This process is pinned, so its own processors are not all that the machine has.
    const cores = cpus().length;
    const ticks = ((performance.now() - startedAt) / 10) * cores;
    return {
      processor: cpus()[0]?.model ?? 'unknown',
      cores,
      kernel: release(),
      node: process.version,
      stolen: (stolenTicks() - stolenBefore) / ticks,
      loadAtStart,
    };
  };
}

/** The first line in which the program names a version. nginx tells it on stderr. */
export function versionOf(version: string | Command): string {
  if (typeof version === 'string') return version;
  const told = spawnSync(version.program, [...version.args], { encoding: 'utf8' });
  const line = `${told.stdout}\n${told.stderr}`.split('\n').find((candidate) => /\d+\.\d+/.test(candidate));
  return line?.trim() ?? 'version unknown';
}
