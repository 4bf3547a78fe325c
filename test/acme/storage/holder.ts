// A process that holds a lease, is stopped by its parent, and tries to write when it goes on.

import type { Lease } from '../../../acme/storage.ts';
import { type OpenOptions, openStorage, type Recipe } from './engines.ts';

const { recipe, options } = JSON.parse(process.argv[2]!) as { recipe: Recipe; options: OpenOptions };
const storage = openStorage(recipe, options);
const late = Buffer.from('late');

async function outcome(write: () => Promise<string | undefined>): Promise<string> {
  try {
    return (await write()) === undefined ? 'refused' : 'written';
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

await storage
  .lease('work/lease', AbortSignal.timeout(60_000), async (lease) => {
    const before = (await storage.read('work/record'))!;
    process.send!('held');
    await new Promise((resolve) => process.once('message', resolve));
    // Without what this process knows itself: as one that was stopped between looking and writing.
    const blind: Lease = { ...lease, isHeld: () => true };
    process.send!({
      blind: await outcome(() => storage.replace('work/record', late, before.version, { lease: blind })),
      anew: await outcome(async () => storage.create('work/new', late, { lease: blind })),
      knowing: await outcome(() => storage.replace('work/record', late, before.version, { lease })),
      byVersion: await outcome(() => storage.replace('work/record', late, before.version)),
      told: lease.signal.aborted,
    });
  })
  .catch(() => {});
process.exit();
