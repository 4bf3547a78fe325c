// The environment as settings: unset, unfilled and misspelt variables told apart, every mistake collected.

import { DomainError } from '../lib/domain.ts';
import { nearestName } from '../lib/spelling.ts';
import type { ReadFile } from './files.ts';
import type { Mistake, Place } from './mistake.ts';
import { readSecretFile } from './secret-files.ts';
import { quote, ValueError, withoutUserInfo } from './values.ts';
import { fileVariableOf, knownVariables, mayBeFiles, namesOf, variables } from './variables.ts';

export interface ConfigWarning {
  readonly variable: string;
  readonly warning: string;
}

export type Env = Readonly<Record<string, string | undefined>>;

export interface Environment {
  /** The variables that are set and can be read, trimmed; those from files under the names of what they hold. */
  readonly values: Env;
  /** Variable -> the file that its value was read from. */
  readonly files: ReadonlyMap<string, string>;
  /** What was set, under the newest name of each. */
  given(): ReadonlyMap<string, Given>;
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

/** A setting as its operator gave it. */
export interface Given {
  /** The name under which it was given. */
  readonly variable: string;
  /** Undefined: it is secret. */
  readonly text: string | undefined;
  /** Where it was read from, if not from the variable itself. */
  readonly file: string | undefined;
}

/** An empty value is no value: compose writes `${X:-}` so. Without `readFile` no secret is read from a file. */
export function readEnvironment(env: Env, readFile?: ReadFile): Environment {
  const mistakes: Mistake[] = [];
  const warnings: ConfigWarning[] = [];
  const values: Record<string, string> = {};
  const files = new Map<string, string>();
  // An error of a library may quote the whole value.
  const refuse = (place: string | Place, subject: string, cure: string) =>
    void mistakes.push({
      place: typeof place === 'string' ? placeOf(place, files) : place,
      subject: withoutUserInfo(subject),
      cure: withoutUserInfo(cure),
    });
  const warn = (variable: string, warning: string) => void warnings.push({ variable, warning });
  const has = (name: string) =>
    isSet(env, name) || (mayBeFiles.has(name) && isSet(env, fileVariableOf(name)));
  for (const name of knownVariables) {
    const text = env[name]?.trim() ?? '';
    const fault = faultOf(text);
    if (fault !== undefined) refuse(name, fault.subject, fault.cure);
    else if (text !== '') values[name] = text;
  }
  if (readFile !== undefined) readSecretFiles(env, { values, files, refuse, readFile });
  for (const { name, like } of misspelt(env)) warn(name, `is not a setting: was ${like} meant?`);
  return {
    values,
    files,
    given: () => givenIn(values, files),
    mistakes,
    warnings,
    refuse,
    warn,
    has,
    isWrong: (...names) => {
      const places = new Set(names.flatMap((name) => [name, fileVariableOf(name)]));
      return mistakes.some(({ place }) => places.has(place.variable ?? ''));
    },
    read(names, parse) {
      const all = typeof names === 'string' ? [names] : names;
      const untold = all.find((one) => !knownVariables.has(one));
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

function givenIn(values: Env, files: ReadonlyMap<string, string>): Map<string, Given> {
  const given = new Map<string, Given>();
  for (const known of variables) {
    const variable = namesOf(known).find((name) => name in values);
    if (variable === undefined) continue;
    const text = known.secret ? undefined : withoutUserInfoOf(known.name, values[variable]!);
    given.set(known.name, { variable, text, file: files.get(variable) });
  }
  return given;
}

/** An e-mail address has an @ and no password before it. */
function withoutUserInfoOf(name: string, text: string): string {
  return name === 'ACME_EMAIL' ? text : withoutUserInfo(text);
}

function isSet(env: Env, name: string): boolean {
  return (env[name]?.trim() ?? '') !== '';
}

/** What is wrong with a value is wrong in the file that it came from. */
function placeOf(name: string, files: ReadonlyMap<string, string>): Place {
  const file = files.get(name);
  return file === undefined ? { variable: name } : { variable: fileVariableOf(name), file };
}

interface SecretFiles {
  readonly values: Record<string, string>;
  readonly files: Map<string, string>;
  readonly refuse: Environment['refuse'];
  readonly readFile: ReadFile;
}

function readSecretFiles(env: Env, { values, files, refuse, readFile }: SecretFiles): void {
  for (const name of mayBeFiles) {
    const variable = fileVariableOf(name);
    const path = env[variable]?.trim() ?? '';
    if (path === '') continue;
    if (isSet(env, name)) {
      refuse(variable, `is set, and so is ${name}`, 'wants one of the two unset');
      delete values[name];
      continue;
    }
    try {
      const secret = readSecretFile(path, readFile);
      if (isQuoted(secret)) refuse(variable, `${quote(path)} ${QUOTED.subject}`, QUOTED.cure);
      else values[name] = secret;
      files.set(name, path);
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      refuse(variable, error.subject, error.cure);
    }
  }
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
  return isQuoted(text) ? QUOTED : undefined;
}

const QUOTED = {
  subject: 'begins and ends with quotation marks, which are part of the value',
  cure: 'write it without',
};

function isQuoted(text: string): boolean {
  return /^(["']).*\1$/s.test(text) && text.length > 1;
}

function misspelt(env: Env): { name: string; like: string }[] {
  const known = new Set([...knownVariables, ...[...mayBeFiles].map(fileVariableOf)]);
  const unknown = Object.keys(env).filter((name) => /^[A-Z][A-Z0-9_]{3,39}$/.test(name) && !known.has(name));
  return unknown.flatMap((name) => {
    const like = nearestName(name, known);
    return like === undefined ? [] : [{ name, like }];
  });
}
