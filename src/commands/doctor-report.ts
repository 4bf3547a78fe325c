// What the doctor finds: a fact, why it matters and what to do about it; as text and as JSON.

import { DnsError } from '../../dns/error.ts';
import { describeError } from '../lib/log.ts';

export type CheckName =
  | 'configuration'
  | 'node'
  | 'descriptors'
  | 'memory'
  | 'folders'
  | 'disk'
  | 'agent'
  | 'clock'
  | 'ca'
  | 'certificates'
  | 'budget'
  | 'resolvers'
  | 'gateway'
  | 'caa'
  | 'provider'
  | 'upstreams';

export type Level = 'ok' | 'warn' | 'fail';

export interface Finding {
  readonly check: CheckName;
  readonly level: Level;
  /** What it is about: a setting, a domain, a folder, a server. */
  readonly subject: string;
  readonly fact: string;
  /** Of anything but `ok`: why it matters, and what to do. */
  readonly why?: string;
  readonly cure?: string;
}

/** The findings of one check are made here, so that none lacks a part. */
export function findingsOf(check: CheckName) {
  const trouble = (level: 'warn' | 'fail') => (subject: string, fact: string, why: string, cure: string) => ({
    check,
    level,
    subject,
    fact,
    why,
    cure,
  });
  return {
    ok: (subject: string, fact: string): Finding => ({ check, level: 'ok', subject, fact }),
    warn: trouble('warn'),
    fail: trouble('fail'),
  };
}

/** A check that fails is a finding: the others are worth as much as before. */
export async function guarded(check: Finding[] | Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await check;
  } catch (error) {
    const { warn } = findingsOf('configuration');
    const why = 'what it looks at is not known';
    return [warn('doctor', `a check failed: ${told(error)}`, why, 'see the other findings for the reason')];
  }
}

export interface Report {
  readonly at: string;
  /** How many of each. */
  readonly totals: Readonly<Record<Level, number>>;
  readonly findings: readonly Finding[];
}

export function reportOf(findings: readonly Finding[], now: Date): Report {
  const count = (level: Level) => findings.filter((one) => one.level === level).length;
  return {
    at: now.toISOString(),
    totals: { ok: count('ok'), warn: count('warn'), fail: count('fail') },
    findings,
  };
}

export function describeReport({ findings, totals }: Report): string {
  const { ok, warn, fail } = totals;
  return `${findings.map(describeFinding).join('')}\n${ok} ok, ${warn} to look at, ${fail} wrong\n`;
}

function describeFinding({ check, level, subject, fact, why, cure }: Finding): string {
  const head = `${level.padEnd(6)}${check.padEnd(15)}${subject}: ${fact}\n`;
  const more = [why && `why: ${why}`, cure && `do:  ${cure}`].filter((line) => line !== undefined);
  return [head, ...more.map((line) => `${' '.repeat(21)}${line}\n`)].join('');
}

/** What went wrong, in words; a cure that the error knows is told apart from it. */
export function told(error: unknown): string {
  if (error instanceof DnsError) return error.subject;
  return describeError(error).message;
}
