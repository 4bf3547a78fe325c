// Generated files before nginx and before the ingress: whatever differs and is not in the list of differences is told.

import { AssertionError } from 'node:assert';
import { compare, type Met } from './compare.ts';
import { disk, generateCases } from './generator.ts';
import { startStage } from './stage.ts';

export interface Unlike {
  readonly conf: string;
  readonly message: string;
}

/** One start of nginx for all of them. */
export async function compareGenerated(seed: number, count: number, each: number): Promise<Unlike[]> {
  const cases = generateCases(seed, count, each);
  await using stage = await startStage({
    files: Object.fromEntries(cases.map(({ name, conf }) => [`${name}.conf`, conf])),
    hosts: cases.map(({ name }) => `${name}.test`),
    disk,
  });
  const met: Met = new Set();
  const found: Unlike[] = [];
  for (const [i, { name, conf, asks }] of cases.entries())
    for (const ask of asks) {
      if (typeof ask === 'string') continue;
      const protocol = i % 2 === 0 ? 'HTTP/1.1' : 'HTTP/2';
      try {
        await compare(stage, { host: `${name}.test`, ...ask }, conf, protocol, met);
      } catch (error) {
        found.push({ conf, message: error instanceof AssertionError ? error.message : String(error) });
        break;
      }
    }
  return found;
}

/** Files of one start of nginx. */
export const BATCH = 100;
