// A process that publishes the bundles of a JSON file in turn until it is killed: publish-loop.ts FOLDER BUNDLES.

import { readFile } from 'node:fs/promises';
import type { Bundle } from '../../evidence/bundle.ts';
import { publishBundle } from '../../evidence/publish.ts';

const [folder, bundles] = process.argv.slice(2) as [string, string];
const turns = JSON.parse(await readFile(bundles, 'utf8')) as Bundle[];
console.log('started');
for (;;) {
  for (const bundle of turns) await publishBundle(folder, bundle);
}
