// Runs a fuzz target for a time, and measures how its cost grows with its input.

import fc from 'fast-check';
import type { FuzzTarget } from './target.ts';

/** Of a target whose inputs take long: enough to be called a trial. */
const FEWEST = 40;

/** For so long, or for FEWEST inputs where those take longer. `failure`: the smallest input that breaks a promise, and how; undefined if none did. */
export async function fuzz(
  target: FuzzTarget,
  ms: number,
  seed: number,
): Promise<{ runs: number; failure: string | undefined }> {
  const property = fc.asyncProperty(target.input, async (input) => {
    await target.check(input);
  });
  const limits = { interruptAfterTimeLimit: ms, markInterruptAsFailure: false, maxSkipsPerRun: 0 };
  let result = await fc.check(property, { seed, numRuns: Number.MAX_SAFE_INTEGER, ...limits });
  let runs = result.numRuns;
  if (!result.failed && runs < FEWEST) {
    result = await fc.check(property, { seed: seed + 1, numRuns: FEWEST - runs });
    runs += result.numRuns;
  }
  await target.close?.();
  const failure =
    result.failed && result.counterexample !== null ? fc.defaultReportMessage(result) : undefined;
  return { runs, failure };
}

const ROUNDS = 7;
/** Long enough that the clock's own grain does not count. */
const LEAST_US = 4_000;
const LARGEST = 4 * 1024 * 1024;

/** How many times the CPU time grows when the input grows four times: 4 for what is linear, 16 for what is quadratic. */
export async function growth(target: FuzzTarget, family: string): Promise<number> {
  const make = target.growing[family]!;
  let size = 4_096;
  // Warm, and of a size that takes a while.
  for (; size < LARGEST; size *= 2) {
    const input = make(size);
    await target.check(input);
    if ((await cost(target, input)) >= LEAST_US) break;
  }
  const [small, large] = [make(size), make(4 * size)];
  let [least, most] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let round = 0; round < ROUNDS; round++) {
    least = Math.min(least, await cost(target, small));
    most = Math.min(most, await cost(target, large));
  }
  return most / Math.max(least, LEAST_US / 2);
}

/** In microseconds of this process. */
async function cost(target: FuzzTarget, input: unknown): Promise<number> {
  const before = process.cpuUsage();
  await target.check(input);
  const { user, system } = process.cpuUsage(before);
  return user + system;
}
