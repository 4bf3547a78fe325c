// The environment as settings: unset, unfilled and misspelt variables told apart, every mistake collected.

import { DomainError } from './lib/domain.ts';
import { quote, ValueError, withoutUserInfo } from './setting-values.ts';

/** One mistake: whose it is; what is wrong, and what is wanted. Never holds a secret's value. */
export interface ConfigProblem {
  readonly variable: string;
  readonly problem: string;
}

export interface ConfigWarning {
  readonly variable: string;
  readonly warning: string;
}

export type Env = Readonly<Record<string, string | undefined>>;

export interface Environment {
  /** The variables that are set and can be read, trimmed. */
  readonly values: Env;
  readonly problems: ConfigProblem[];
  readonly warnings: ConfigWarning[];
  /** The value of the first of these names that is set. Undefined if none is, or after noting why it cannot be read. */
  read<T>(names: string | readonly string[], parse: (text: string, name: string) => T): T | undefined;
  /** Whether it is set, readable or not. */
  has(name: string): boolean;
  /** Whether one of these has been found wrong so far. */
  isWrong(...names: string[]): boolean;
  refuse(variable: string, problem: string): void;
  warn(variable: string, warning: string): void;
}

/** `known`: every name that means something. An empty value is no value: compose writes `${X:-}` so. */
export function readEnvironment(env: Env, known: ReadonlySet<string>): Environment {
  const problems: ConfigProblem[] = [];
  const warnings: ConfigWarning[] = [];
  const values: Record<string, string> = {};
  // Texts of others' errors may quote the value whole.
  const refuse = (variable: string, problem: string) =>
    void problems.push({ variable, problem: withoutUserInfo(problem) });
  const warn = (variable: string, warning: string) => void warnings.push({ variable, warning });
  for (const name of known) {
    const text = env[name]?.trim() ?? '';
    const fault = faultOf(text);
    if (fault !== undefined) refuse(name, fault);
    else if (text !== '') values[name] = text;
  }
  for (const { name, like } of misspelt(env, known)) warn(name, `is not a setting: was ${like} meant?`);
  return {
    values,
    problems,
    warnings,
    refuse,
    warn,
    has: (name) => (env[name]?.trim() ?? '') !== '',
    isWrong: (...names) => problems.some(({ variable }) => names.includes(variable)),
    read(names, parse) {
      const all = typeof names === 'string' ? [names] : names;
      const untold = all.find((one) => !known.has(one));
      if (untold !== undefined) throw new Error(`${untold} is missing from the table of settings`);
      const [name, ...others] = all.filter((one) => one in values);
      if (name === undefined) return undefined;
      for (const other of others) {
        if (values[other] !== values[name]) warn(other, `is not used: ${name} is set and differs`);
      }
      try {
        return parse(values[name]!, name);
      } catch (error) {
        if (!(error instanceof ValueError) && !(error instanceof DomainError)) throw error;
        refuse(name, error.message);
        return undefined;
      }
    },
  };
}

/** What tells that the value never was what its writer meant; quotes nothing of it but the placeholder's name. */
function faultOf(text: string): string | undefined {
  const placeholder = /\$\{[A-Za-z_][A-Za-z0-9_]*[^}]*\}/.exec(text);
  if (placeholder !== null) {
    const name = /[A-Za-z_][A-Za-z0-9_]*/.exec(placeholder[0])![0];
    return `still holds the placeholder ${quote(`\${${name}}`)}: nothing filled it in`;
  }
  if (/^(["']).*\1$/s.test(text) && text.length > 1) {
    return 'begins and ends with quotation marks, which are part of the value: write it without';
  }
  return undefined;
}

function misspelt(env: Env, known: ReadonlySet<string>): { name: string; like: string }[] {
  const unknown = Object.keys(env).filter((name) => /^[A-Z][A-Z0-9_]{3,39}$/.test(name) && !known.has(name));
  return unknown.flatMap((name) => {
    const like = [...known].find((candidate) => isLike(name, candidate));
    return like === undefined ? [] : [{ name, like }];
  });
}

/** One slip in a short name, two in a long one: a letter lost, added, changed, or two neighbours swapped. */
function isLike(name: string, known: string): boolean {
  const most = Math.min(name.length, known.length) >= 8 ? 2 : 1;
  return Math.abs(name.length - known.length) <= most && slipsBetween(name, known) <= most;
}

/** The optimal string alignment distance. */
function slipsBetween(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1;
      let slips = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + change);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) slips = Math.min(slips, beforeLast[j - 2]! + 1);
      row.push(slips);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length]!;
}
