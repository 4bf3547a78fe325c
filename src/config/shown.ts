// The configuration as it may be shown: every variable that is set, and of secrets only that they are.

import type { Env } from './environment.ts';
import { withoutUserInfo } from './values.ts';
import { isSecret, namesOf, variables } from './variables.ts';

export interface ShownSetting {
  readonly name: string;
  /** Undefined of a secret. */
  readonly value: string | undefined;
}

const known = new Set(variables.flatMap(namesOf));

/** The table of variables says which are secret. What is not in it is not shown. */
export function shownSettings(values: Env): ShownSetting[] {
  return Object.entries(values)
    .flatMap(([name, value]) => {
      if (value === undefined || !known.has(name)) return [];
      return [{ name, value: isSecret(name) ? undefined : withoutSecrets(value) }];
    })
    .sort((one, other) => (one.name < other.name ? -1 : 1));
}

/** User names and passwords of URLs, and their queries, which often hold a key. */
function withoutSecrets(value: string): string {
  return withoutUserInfo(value).replace(/(\w:\/\/[^\s?,]*)\?[^\s,]*/g, '$1?…');
}
