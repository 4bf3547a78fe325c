// What a process and all its descendants have used so far: CPU time and memory, read from /proc.

import { readdirSync, readFileSync } from 'node:fs';

export interface ProcessStat {
  readonly pid: number;
  readonly parent: number;
  /** User + system time of the process, and of its children that have ended and been waited for, in clock ticks. */
  readonly ticks: number;
}

/** Linux reports CPU times to user space in hundredths of a second on every architecture (USER_HZ, proc(5)). */
const TICK_US = 10_000;

/** One line of /proc/PID/stat. The name in parentheses may itself hold spaces and parentheses: count from the last one. */
export function parseStat(line: string): ProcessStat {
  const nameStart = line.indexOf('(');
  const nameEnd = line.lastIndexOf(')');
  const fields = line
    .slice(nameEnd + 2)
    .trim()
    .split(' ')
    .map(Number);
  // proc(5) numbers the fields from 1; the first after the name is field 3.
  const field = (number: number) => fields[number - 3];
  const times = [field(14), field(15), field(16), field(17)];
  const pid = Number(line.slice(0, nameStart));
  const parent = field(4);
  if (nameStart < 1 || !Number.isInteger(pid) || parent === undefined || times.includes(undefined)) {
    throw new Error(`not a line of /proc/PID/stat: ${JSON.stringify(line)}`);
  }
  return { pid, parent, ticks: times.reduce<number>((sum, ticks) => sum + ticks!, 0) };
}

/** The process and everything below it that is alive. Throws if the process is not. */
export function processTree(root: number): ProcessStat[] {
  const all = readAllStats();
  const first = all.find((stat) => stat.pid === root);
  if (first === undefined) throw new Error(`process ${root} has ended`);
  const tree = [first];
  for (const member of tree) {
    tree.push(...all.filter((stat) => stat.parent === member.pid));
  }
  return tree;
}

/** Microseconds of CPU that the process and its descendants have used since they started, in steps of 10 ms each. */
export function cpuTimeUs(root: number): number {
  return processTree(root).reduce((sum, stat) => sum + stat.ticks, 0) * TICK_US;
}

/** KiB of memory of the process and its descendants; what they share is counted once (PSS). */
export function memoryKiB(root: number): number {
  return processTree(root).reduce((sum, stat) => sum + proportionalSetKiB(stat.pid), 0);
}

/** Hundredths of a second that the hypervisor gave to others instead of this machine, since it started. */
export function stolenTicks(): number {
  const total = /^cpu +(.*)$/m.exec(readFileSync('/proc/stat', 'utf8'))?.[1]?.split(' ') ?? [];
  return Number(total[7] ?? 0);
}

function readAllStats(): ProcessStat[] {
  const stats: ProcessStat[] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      stats.push(parseStat(readFileSync(`/proc/${entry}/stat`, 'utf8')));
    } catch (error) {
      // It ended between the listing and the reading.
      if (!isGone(error)) throw error;
    }
  }
  return stats;
}

function proportionalSetKiB(pid: number): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const pss = /^Pss: +(\d+) kB$/m.exec(rollup)?.[1];
  if (pss === undefined) throw new Error(`/proc/${pid}/smaps_rollup has no Pss`);
  return Number(pss);
}

function isGone(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return code === 'ENOENT' || code === 'ESRCH';
}
