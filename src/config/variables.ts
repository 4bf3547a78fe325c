// Every environment variable that means something: settings, credentials of DNS providers, and files that hold secrets.

import { providerKinds } from '../../dns/providers/choice.ts';
import { retiredSettings, unsupportedSettings } from './retired.ts';
import { settings } from './settings.ts';

/** What can be told of a variable before it is read. */
export interface Variable {
  readonly name: string;
  /** Older names that still work. */
  readonly aliases: readonly string[];
  /** Its value is shown to nobody. */
  readonly secret: boolean;
  /** Its value may stand in a file instead, which `NAME_FILE` names. */
  readonly mayBeFile: boolean;
}

/** Of a provider everything may stand in a file, as with lego: where the password is one, the user name often is too. */
const credentials: readonly Variable[] = providerKinds
  .flatMap(({ variables }) => variables)
  .map(({ name, aliases = [], secret }) => ({ name, aliases, secret, mayBeFile: true }));

export const variables: readonly Variable[] = [
  ...settings.map(({ name, aliases = [], secret = false }) => ({ name, aliases, secret, mayBeFile: secret })),
  ...credentials,
];

export function namesOf({ name, aliases = [] }: { name: string; aliases?: readonly string[] }): string[] {
  return [name, ...aliases];
}

export function fileVariableOf(name: string): string {
  return `${name}_FILE`;
}

/** The names under which a value may stand in a file. */
export const mayBeFiles: ReadonlySet<string> = new Set(
  variables.filter(({ mayBeFile }) => mayBeFile).flatMap(namesOf),
);

const secrets: ReadonlySet<string> = new Set(variables.filter(({ secret }) => secret).flatMap(namesOf));

export function isSecret(name: string): boolean {
  return secrets.has(name);
}

/** All that are read, the files of secrets aside; what once was a setting is among them. */
export const knownVariables: ReadonlySet<string> = new Set([
  ...variables.flatMap(namesOf),
  ...[...retiredSettings, ...unsupportedSettings].map(({ name }) => name),
]);
