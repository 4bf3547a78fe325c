// What a process needs of the machine, and how late its event loop comes to what is due.

import type { Block } from './counters.ts';
import { processLayout } from './counters.ts';

export interface ProcessFigures extends Block {
  /** Takes the figures anew. */
  sample(): void;
  close(): void;
}

/** Often enough to meet what holds up a request, and too seldom to cost anything. */
const LOOK_EVERY_MS = 50;
/** Figures that hardly change are not told again. */
const CPU_STEP_MS = 10;
const MEMORY_STEP_BYTES = 1024 * 1024;

export function createProcessFigures(now: () => number = () => performance.now()): ProcessFigures {
  const numbers = new Float64Array(processLayout.names.length);
  let due = now() + LOOK_EVERY_MS;
  let latestMs = 0;
  const timer = setInterval(() => {
    const time = now();
    latestMs = Math.max(latestMs, time - due);
    due = time + LOOK_EVERY_MS;
  }, LOOK_EVERY_MS).unref();
  return {
    layout: processLayout,
    numbers,
    sample() {
      const { user, system } = process.cpuUsage();
      numbers[0] = rounded((user + system) / 1_000, CPU_STEP_MS);
      numbers[1] = rounded(process.memoryUsage.rss(), MEMORY_STEP_BYTES);
      numbers[2] = Math.max(0, Math.floor(latestMs));
      latestMs = 0;
    },
    close: () => clearInterval(timer),
  };
}

function rounded(value: number, step: number): number {
  return Math.floor(value / step) * step;
}
