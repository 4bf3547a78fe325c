// Whether a process of another user can read this checkout and run its Node: in a private home folder none can.

import { realpathSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

export const NOT_OPEN = 'another user cannot read this checkout';

/** Every folder on the way to both, links followed, can be entered by anybody. */
export function isOpenToOthers(): boolean {
  return [fileURLToPath(import.meta.url), process.execPath].every((path) => {
    const names = dirname(realpathSync(path)).split('/');
    return names.every((_, i) => (statSync(`/${names.slice(1, i + 1).join('/')}`).mode & 1) === 1);
  });
}
