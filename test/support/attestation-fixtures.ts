// Real answers of guest agents, kept beside the project: a test that wants one is skipped, and says so, without it.

import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../../../shared/fixtures/', import.meta.url));

export type Fixture = 'quote-report.json' | 'tdx-lite-getquote.json' | 'tdx-collateral.json';

/** For the `skip` option of a test: false if it can run, else the reason. */
export function withoutFixtures(...names: Fixture[]): string | false {
  const missing = names.filter((name) => !existsSync(folder + name));
  return missing.length > 0 && `real attestation data is not here: ${missing.join(', ')} in ${folder}`;
}

export function readFixture<T>(name: Fixture): T {
  return JSON.parse(readFileSync(folder + name, 'utf8')) as T;
}
