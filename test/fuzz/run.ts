// The long run: `node test/fuzz/run.ts [--seconds 600] [--only NAME] [--seed N]` fuzzes each target for that long.

import { parseArgs } from 'node:util';
import { fuzz } from './fuzz.ts';
import { targets } from './targets/all.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '600' },
    only: { type: 'string' },
    seed: { type: 'string' },
  },
});
const chosen = targets.filter(({ name }) => values.only === undefined || name === values.only);
if (chosen.length === 0) {
  console.error(`no target is called ${values.only}: ${targets.map(({ name }) => name).join(', ')}`);
  process.exit(2);
}
for (const target of chosen) {
  const seed = values.seed === undefined ? Date.now() & 0x7fffffff : Number(values.seed);
  const { runs, failure } = await fuzz(target, Number(values.seconds) * 1_000, seed);
  console.log(`${target.name}: ${runs} inputs, seed ${seed}: ${failure ?? 'every promise held'}`);
  if (failure !== undefined) process.exitCode = 1;
}
