// The environment as settings: unset, unfilled and misspelt variables told apart, every mistake collected.

import { DomainError } from '../lib/domain.ts';
import { nearestName } from '../lib/spelling.ts';
import type { Mistake, Place } from './mistake.ts';
import { quote, ValueError, withoutUserInfo } from './values.ts';

export interface ConfigWarning {
  readonly variable: string;
  readonly warning: string;
}

export type Env = Readonly<Record<string, string | undefined>>;

export interface Environment {
  /** The variables that are set and can be read, trimmed. */
  readonly values: Env;
  readonly mistakes: Mistake[];
  readonly warnings: ConfigWarning[];
  /** The value of the first of these names that is set. Undefined if none is, or after noting why it cannot be read. */
  read<T>(names: string | readonly string[], parse: (text: string, name: string) => T): T | undefined;
  /** Whether it is set, readable or not. */
  has(name: string): boolean;
  /** Whether one of these has been found wrong so far. */
  isWrong(...names: string[]): boolean;
  /** `subject`: what is wrong. `cure`: what is wanted. A place may be a line of a file that a variable names. */
  refuse(place: string | Place, subject: string, cure: string): void;
  warn(variable: string, warning: string): void;
}

/** `known`: every name that means something. An empty value is no value: compose writes `${X:-}` so. */
export function readEnvironment(env: Env, known: ReadonlySet<string>): Environment {
  const mistakes: Mistake[] = [];
  const warnings: ConfigWarning[] = [];
  const values: Record<string, string> = {};
  // An error of a library may quote the whole value.
  const refuse = (place: string | Place, subject: string, cure: string) =>
    void mistakes.push({
      place: typeof place === 'string' ? { variable: place } : place,
      subject: withoutUserInfo(subject),
      cure: withoutUserInfo(cure),
    });
  const warn = (variable: string, warning: string) => void warnings.push({ variable, warning });
  for (const name of known) {
    const text = env[name]?.trim() ?? '';
    const fault = faultOf(text);
    if (fault !== undefined) refuse(name, fault.subject, fault.cure);
    else if (text !== '') values[name] = text;
  }
  for (const { name, like } of misspelt(env, known)) warn(name, `is not a setting: was ${like} meant?`);
  return {
    values,
    mistakes,
    warnings,
    refuse,
    warn,
    has: (name) => (env[name]?.trim() ?? '') !== '',
    isWrong: (...names) => mistakes.some(({ place }) => names.includes(place.variable ?? '')),
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
        refuse(name, error.subject, error.cure);
        return undefined;
      }
    },
  };
}

/** Signs that the value is not what its writer meant. Quotes nothing of it but the placeholder's name. */
function faultOf(text: string): Pick<Mistake, 'subject' | 'cure'> | undefined {
  const placeholder = /\$\{[A-Za-z_][A-Za-z0-9_]*[^}]*\}/.exec(text);
  if (placeholder !== null) {
    const name = /[A-Za-z_][A-Za-z0-9_]*/.exec(placeholder[0])![0];
    return {
      subject: `still holds the placeholder ${quote(`\${${name}}`)}`,
      cure: `nothing filled it in: set ${name} where the compose file is deployed`,
    };
  }
  if (/^(["']).*\1$/s.test(text) && text.length > 1) {
    return {
      subject: 'begins and ends with quotation marks, which are part of the value',
      cure: 'write it without',
    };
  }
  return undefined;
}

function misspelt(env: Env, known: ReadonlySet<string>): { name: string; like: string }[] {
  const unknown = Object.keys(env).filter((name) => /^[A-Z][A-Z0-9_]{3,39}$/.test(name) && !known.has(name));
  return unknown.flatMap((name) => {
    const like = nearestName(name, known);
    return like === undefined ? [] : [{ name, like }];
  });
}
