// What the doctor finds of the machine: Node's version, file descriptors and memory against what is configured.

import { readFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import type { Config } from '../config/config.ts';
import { descriptorLimit, descriptorShortage } from '../lib/descriptors.ts';
import { NODE_FLOOR_AS_OF, nodeFault } from '../lib/node-floor.ts';
import { type Finding, findingsOf } from './doctor-report.ts';

/** What the machine is asked; tests answer in its place. */
export interface Machine {
  readonly nodeVersion: string;
  /** 0: not known. */
  descriptorLimit(): number;
  /** Bytes that this container may have. */
  memoryLimit(): number;
}

export const thisMachine: Machine = {
  nodeVersion: process.versions.node,
  descriptorLimit: () => descriptorLimit(),
  memoryLimit: () => Math.min(totalmem(), containerLimit()),
};

/** Of cgroup v2, as a container sees it. */
function containerLimit(): number {
  try {
    const text = readFileSync('/sys/fs/cgroup/memory.max', 'utf8').trim();
    return text === 'max' ? Number.POSITIVE_INFINITY : Number(text) || Number.POSITIVE_INFINITY;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

export function nodeFindings({ nodeVersion }: Machine): Finding[] {
  const { ok, warn } = findingsOf('node');
  const fault = nodeFault(nodeVersion);
  if (fault === undefined) return [ok(`Node ${nodeVersion}`, 'is new enough')];
  return [
    warn(
      `Node ${nodeVersion}`,
      `is older than ${fault.wanted}`,
      `${fault.why}; as of ${NODE_FLOOR_AS_OF}`,
      `run it on Node ${fault.wanted} or newer: the newest image has one`,
    ),
  ];
}

export function descriptorFindings({ listen, workers }: Config, machine: Machine): Finding[] {
  const { ok, warn } = findingsOf('descriptors');
  const { maxConnections } = listen.limits;
  const limit = machine.descriptorLimit();
  const shortage = descriptorShortage({ maxConnections, workers, limit });
  if (shortage === undefined) return [ok(`MAXCONN=${maxConnections}`, 'there are file descriptors enough')];
  return [
    warn(
      `MAXCONN=${maxConnections}`,
      `a process may have ${limit} file descriptors, ${shortage.needed} are needed`,
      'each exchange takes two; near the limit idle connections are ended, and then new ones are refused',
      'raise the limit (ulimits: nofile in compose), or lower MAXCONN',
    ),
  ];
}

const MIB = 1024 * 1024;
/** Measured, see docs/performance.md: a process of ours without connections, and one idle connection over TLS. */
const PROCESS_BYTES = 140 * MIB;
const CONNECTION_BYTES = 45 * 1024;

export function memoryFindings({ listen, workers }: Config, machine: Machine): Finding[] {
  const { ok, warn, fail } = findingsOf('memory');
  const limit = machine.memoryLimit();
  const processes = (workers + 1) * PROCESS_BYTES;
  const { maxConnections } = listen.limits;
  const full = processes + maxConnections * CONNECTION_BYTES;
  const inMib = (bytes: number) => `${Math.round(bytes / MIB)} MiB`;
  const subject = `WORKERS=${workers}, MAXCONN=${maxConnections}`;
  if (processes > limit) {
    return [
      fail(
        subject,
        `the processes alone want ${inMib(processes)}, and there are ${inMib(limit)}`,
        'the system will kill workers, and every connection with them',
        'lower WORKERS, or give the machine more memory',
      ),
    ];
  }
  if (full > limit) {
    return [
      warn(
        subject,
        `so many connections want ${inMib(full)}, and there are ${inMib(limit)}`,
        'the system will kill workers once as many visitors come as are let in',
        'lower MAXCONN, or give the machine more memory',
      ),
    ];
  }
  return [ok(subject, `${inMib(full)} of ${inMib(limit)} of memory at most`)];
}
