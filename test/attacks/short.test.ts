// Each attack in a short form: bystanders are served, whatever the machine's speed, and what it costs stays in proportion.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { attacks } from './attacks.ts';
import { runAttack } from './run-attack.ts';

// Each has a worker, an attacker and upstreams of its own, and waits most of the time.
describe('bystanders are served whole, and nothing stays behind, under', { concurrency: 3 }, () => {
  for (const attack of attacks) {
    it(attack.does, async () => {
      const { bystanders, memory, cpuMs, honestCpuMs } = await runAttack({
        attack,
        rounds: 1,
        warmUpSeconds: 1,
        restSeconds: 1,
      });
      assert.deepEqual(bystanders.failures, []);
      assert.ok(bystanders.requests > 0);
      assert.ok(
        cpuMs < MOST_CPU * honestCpuMs,
        `${cpuMs} ms of CPU, where honest downloads cost ${honestCpuMs} ms`,
      );
      assert.ok(
        memory.highest - memory.before < MOST_MEMORY_KIB,
        `${memory.highest - memory.before} KiB more`,
      );
    });
  }
});

/** Times what two downloads of 64 MiB cost; the bystanders' own requests are in it. */
const MOST_CPU = 3;
/** Of one worker: far from what a machine has, and far above what its collector leaves for later. */
const MOST_MEMORY_KIB = 128 * 1024;
