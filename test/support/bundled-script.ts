// A script of the tests as one file: started dozens of times, it need not be put together each time.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { buildSync } from 'esbuild';
import { bundleSettings } from '../../build.ts';

/** `path` names a script of TypeScript. Returns that of what it became, which is there until this process ends. */
export function bundledScript(path: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'bundled-script-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const outfile = join(folder, `${basename(path, '.ts')}.mjs`);
  buildSync({ ...bundleSettings, splitting: false, chunkNames: undefined!, entryPoints: [path], outfile });
  return outfile;
}
