// By hand: `run.ts SEED COUNT` compares so many generated files, and prints what differs with its file and its seed.

import { BATCH, compareGenerated } from './generated.ts';

const [seed = 1, count = 1000] = process.argv.slice(2).map(Number);
let found = 0;
for (let done = 0; done < count; done += BATCH) {
  for (const { conf, message } of await compareGenerated(seed + done, BATCH, 8)) {
    found++;
    console.log(`seed ${seed + done}\n${conf}\n${message}\n`);
  }
  console.error(`${done + BATCH} files, ${found} of them unlike`);
}
process.exitCode = found === 0 ? 0 : 1;
