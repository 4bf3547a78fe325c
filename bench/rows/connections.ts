// Rows that are about connections: handshakes, WebSocket messages, idle memory, the first byte.

import { setTimeout as sleep } from 'node:timers/promises';
import { askHttp1, expectAnswer } from '../ask.ts';
import { SMALL } from '../files-upstream.ts';
import { type Load, startGenerator } from '../load/children.ts';
import { memoryKiB } from '../measure.ts';
import type { Stage } from '../stage.ts';
import { until } from '../until.ts';
import type { LoadRow, Measurement, SingleRow } from './row.ts';

const HANDSHAKES = { parallel: 8 };
const WEBSOCKETS = { connections: 64, bytes: 64 };
const IDLE = { warmUp: 200, connections: 2_000, parallel: 16 };
/** Long enough for a handshake of any peer's; a connection that never comes about ends the row. */
const OPENING_TIMEOUT_MS = 60_000;
const SETTLE_MS = 2_000;

const files = (stage: Stage) => ({ protocol: 'http', port: stage.files.port }) as const;

export const handshake: LoadRow = {
  id: 'handshake',
  title: 'full TLS 1.3 handshake',
  unit: 'µs',
  tools: [],
  target: files,
  verify: verifySmall,
  load: (measurement) => startHandshakes(measurement, false),
};

export const resumed: LoadRow = {
  id: 'resumed',
  title: 'resumed TLS 1.3 handshake',
  unit: 'µs',
  tools: [],
  target: files,
  verify: verifySmall,
  load: (measurement) => startHandshakes(measurement, true),
};

export const websocket: LoadRow = {
  id: 'websocket',
  title: 'WebSocket message there and back, 64 B, 64 connections',
  unit: 'µs/message',
  tools: [],
  target: (stage) => ({ protocol: 'http', port: stage.http.port }),
  // Every echo is looked at by the load itself.
  verify: verifySmall,
  async load({ stage, subject }) {
    const settings = { ...WEBSOCKETS, port: subject.port, chain: stage.certificate.chain };
    return startGenerator('websocket.ts', settings, stage.log);
  },
};

export const idle: SingleRow = {
  id: 'idle',
  title: `memory of an idle TLS connection, after one request, ${IDLE.connections.toLocaleString('en')} open`,
  unit: 'KiB',
  tools: [],
  target: files,
  verify: verifySmall,
  async measure({ stage, subject }) {
    const warmUp = await openIdle(stage, subject.port, IDLE.warmUp);
    await warmUp.end();
    await sleep(SETTLE_MS);
    const before = memoryKiB(subject.pid);
    const load = await openIdle(stage, subject.port, IDLE.connections);
    await sleep(SETTLE_MS);
    const after = memoryKiB(subject.pid);
    await load.end();
    return (after - before) / IDLE.connections;
  },
};

export const startRow: SingleRow = {
  id: 'start',
  title: 'start to first byte, certificate on disk',
  unit: 'ms',
  tools: [],
  target: files,
  verify: verifySmall,
  measure: async ({ subject }) => subject.firstByteMs,
};

async function verifySmall({ stage, subject }: Measurement): Promise<void> {
  expectAnswer(await askHttp1(stage, subject.port, { path: SMALL.path }), SMALL.bytes);
}

async function startHandshakes({ stage, subject }: Measurement, resume: boolean): Promise<Load> {
  const settings = { ...HANDSHAKES, resume, port: subject.port, chain: stage.certificate.chain };
  return startGenerator('handshakes.ts', settings, stage.log);
}

/** Resolves when all of them stand. */
async function openIdle(stage: Stage, port: number, connections: number): Promise<Load> {
  const settings = {
    port,
    chain: stage.certificate.chain,
    path: SMALL.path,
    replyBytes: SMALL.bytes,
    connections,
    parallel: Math.min(IDLE.parallel, connections),
  };
  const load = startGenerator('idle.ts', settings, stage.log);
  const allOpen = async () => {
    const open = await load.units();
    if (open < connections) throw new Error(`only ${open} of ${connections} connections could be opened`);
  };
  try {
    await until(allOpen, OPENING_TIMEOUT_MS, 100);
  } catch (error) {
    await load.end();
    throw error;
  }
  return load;
}
