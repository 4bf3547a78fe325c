// The configuration as it may be shown: every variable that is set, and of secrets only that they are.

import { providerKinds } from '../../dns/providers/choice.ts';
import type { Env } from './environment.ts';
import { settings } from './settings.ts';
import { withoutUserInfo } from './values.ts';

export interface ShownSetting {
  readonly name: string;
  /** Undefined of a secret. */
  readonly value: string | undefined;
}

/** The table of settings says which are secret, and the tables of the DNS providers. What is in neither is not shown. */
const secrecy: ReadonlyMap<string, boolean> = new Map(
  [...settings, ...providerKinds.flatMap(({ variables }) => variables)].flatMap((one) =>
    [one.name, ...(one.aliases ?? [])].map((name): [string, boolean] => [name, one.secret === true]),
  ),
);

export function shownSettings(values: Env): ShownSetting[] {
  return Object.entries(values)
    .flatMap(([name, value]) => {
      const secret = secrecy.get(name);
      if (secret === undefined || value === undefined) return [];
      return [{ name, value: secret ? undefined : withoutSecrets(value) }];
    })
    .sort((one, other) => (one.name < other.name ? -1 : 1));
}

/** User names and passwords of URLs, and their queries, which often hold a key. */
function withoutSecrets(value: string): string {
  return withoutUserInfo(value).replace(/(\w:\/\/[^\s?,]*)\?[^\s,]*/g, '$1?…');
}
