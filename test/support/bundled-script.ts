// A script of the tests as one file: started dozens of times, it need not be put together each time.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { build } from 'esbuild';
import { bundleSettings } from '../../build.ts';

/** `path` names a script of TypeScript. Resolves to that of what it became, which is there until this process ends. */
export async function bundledScript(path: string): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'bundled-script-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const outfile = join(folder, `${basename(path, '.ts')}.mjs`);
  await build({ ...bundleSettings, splitting: false, entryPoints: [path], outfile });
  return outfile;
}
