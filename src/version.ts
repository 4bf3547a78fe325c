// What this program is called when it says which version it is.

import { readFileSync } from 'node:fs';

declare const BUILD_VERSION: string | undefined;

/** Fixed when the program is bundled; from source it is what package.json says. */
export function version(): string {
  if (typeof BUILD_VERSION === 'string') return BUILD_VERSION;
  const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return `${manifest.version} (from source)`;
}
