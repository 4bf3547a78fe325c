// A verification as text: JSON in the shape that programs rely on, and a report that begins with what matters.

import {
  adviceOn,
  type Check,
  checkTable,
  type Group,
  groups,
  type Verification,
} from '../../evidence/verify/index.ts';

/** One line. A failed check says what that means and what to do, in its reason. */
export function asDocument({ verdict, checks }: Verification): string {
  const told = checks.map(({ id, verdict: each, reason }) => {
    const { means, cure } = adviceOn(id);
    return {
      id,
      verdict: each,
      reason: each === 'fail' ? `${reason}; this means: ${means}; ${cure}` : reason,
    };
  });
  return `${JSON.stringify({ verdict, checks: told })}\n`;
}

interface ReportOptions {
  /** With the values that were compared. */
  readonly verbose: boolean;
  readonly colour: boolean;
}

const LONGEST_REASON = 160;

/** The summary, then each group of checks; of the failed ones what it means and what to do. */
export function asReport(verification: Verification, options: ReportOptions): string {
  const paint = options.colour ? painted : (text: string) => text;
  const parts = (Object.keys(groups) as Group[]).map((group) => {
    const checks = verification.checks.filter(({ id }) => checkTable[id].group === group);
    return `${groups[group]}\n${checks.map((check) => lineOf(check, options, paint)).join('')}`;
  });
  return `${summaryOf(verification, paint)}\n\n${parts.join('\n')}`;
}

type Colour = 'red' | 'green' | 'yellow';
type Paint = (text: string, colour: Colour) => string;

const codes: Readonly<Record<Colour, number>> = { red: 31, green: 32, yellow: 33 };

function painted(text: string, colour: Colour): string {
  return `\u001b[${codes[colour]}m${text}\u001b[0m`;
}

function summaryOf({ verdict, checks, seen }: Verification, paint: Paint): string {
  const named = (which: Check['verdict']) => checks.filter((check) => check.verdict === which);
  const [failed, open] = [named('fail'), named('not-run')];
  const host = `https://${seen.host.includes(':') ? `[${seen.host}]` : seen.host}${seen.port === 443 ? '' : `:${seen.port}`}`;
  const notRun = open.length === 0 ? '' : `, ${open.length} could not be run`;
  if (verdict === 'fail') {
    const ids = failed.map(({ id }) => id).join(', ');
    return `${paint('FAIL', 'red')}  ${host}: ${failed.length} of ${checks.length} checks failed${notRun}: ${ids}`;
  }
  if (verdict === 'unknown')
    return `${paint('UNKNOWN', 'yellow')}  ${host}: nothing failed, and ${open.length} of ${checks.length} checks could not be run`;
  return `${paint('PASS', 'green')}  ${host}: all ${checks.length} checks passed`;
}

const marks = {
  pass: { text: 'pass   ', colour: 'green' },
  fail: { text: 'FAIL   ', colour: 'red' },
  'not-run': { text: 'not run', colour: 'yellow' },
} as const;

function lineOf({ id, verdict, reason }: Check, { verbose }: ReportOptions, paint: Paint): string {
  const { text, colour } = marks[verdict];
  const shown = verbose || verdict === 'fail' ? reason : abridged(reason);
  const line = `  ${paint(text, colour)}  ${id.padEnd(18)} ${shown}\n`;
  if (verdict !== 'fail') return line;
  const { means, cure } = adviceOn(id);
  const indent = ' '.repeat(30);
  return `${line}${indent}${means}\n${indent}${cure}\n`;
}

/** Digests and the like are for -v. */
function abridged(text: string): string {
  const short = text.replaceAll(/\b[0-9a-f]{24,}\b/gi, (hex) => `${hex.slice(0, 12)}…`);
  return short.length > LONGEST_REASON ? `${short.slice(0, LONGEST_REASON)}…` : short;
}
