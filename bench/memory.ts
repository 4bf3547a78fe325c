// Memory over time under mixed load: closed connections must not cost memory.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startGenerator } from './load/children.ts';
import { cpuTimeUs, memoryKiB } from './measure.ts';
import { prepareOurs } from './peers/ours.ts';
import type { Site } from './peers/peer.ts';
import type { Tell } from './side-by-side.ts';
import { withProxy } from './site.ts';
import type { Stage } from './stage.ts';

export interface MemoryReport {
  readonly minutes: number;
  readonly connections: number;
  /** How far into the load, and how much: the tenth is what the last is compared with. */
  readonly samples: readonly { readonly ms: number; readonly KiB: number }[];
  readonly first: number;
  readonly last: number;
}

/** 20,000 in ten minutes; a shorter run keeps the pace. */
const CONNECTIONS_PER_MINUTE = 2_000;
const SAMPLES = 40;

export function measureMemory(
  stage: Stage,
  program: string,
  minutes: number,
  tell: Tell,
): Promise<MemoryReport> {
  const prepare = async (site: Site) => prepareOurs(program, site, await writeRoutes(stage, site.folder));
  const target = { protocol: 'http', port: stage.http.port } as const;
  return withProxy(stage, { target, prepare }, async (subject) => {
    const durationMs = minutes * 60_000;
    const connections = Math.round(minutes * CONNECTIONS_PER_MINUTE);
    const settings = {
      port: subject.port,
      chain: stage.certificate.chain,
      connections,
      durationMs,
    };
    const load = startGenerator('mixed.ts', settings, stage.log);
    const samples: { ms: number; KiB: number }[] = [];
    for (let index = 1; index <= SAMPLES; index += 1) {
      await sleep(durationMs / SAMPLES);
      const sample = { ms: (durationMs / SAMPLES) * index, KiB: memoryKiB(subject.pid) };
      samples.push(sample);
      const cpuS = cpuTimeUs(subject.pid) / 1e6;
      tell(
        `${(sample.ms / 60_000).toFixed(2)} min: ${mebibytes(sample.KiB)} MiB, ${await load.units()} connections, ${cpuS.toFixed(1)} s of CPU`,
      );
    }
    await load.end();
    // Garbage makes memory go up and down: an operator has to allow for the largest value of each stretch.
    const first = Math.max(...samples.slice(0, SAMPLES / 10).map((sample) => sample.KiB));
    const last = Math.max(...samples.slice(-SAMPLES / 10).map((sample) => sample.KiB));
    return { minutes, connections, samples, first, last };
  });
}

export function renderMemory({ minutes, connections, first, last }: MemoryReport): string {
  const change = ((last / first - 1) * 100).toFixed(1);
  return (
    `${minutes} minutes of mixed load (HTTP/1.1, uploads, HTTP/2, gRPC, WebSocket, streams given up), ` +
    `${connections.toLocaleString('en')} connections opened and closed: at most ${mebibytes(first)} MiB in the first ` +
    `tenth, at most ${mebibytes(last)} MiB in the last, a change of ${change} %.`
  );
}

function mebibytes(KiB: number): string {
  return (KiB / 1_024).toFixed(1);
}

async function writeRoutes(stage: Stage, folder: string): Promise<string> {
  const file = join(folder, 'routes.yaml');
  const text = `routes:
  - host: localhost
    paths:
      - prefix: /bench.Echo/
        upstream: grpc://127.0.0.1:${stage.grpc.port}
      - prefix: /
        upstream: http://127.0.0.1:${stage.http.port}
`;
  await writeFile(file, text);
  return file;
}
