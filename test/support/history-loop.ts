// A process that adds statements to a history until it is killed: history-loop.ts PATH LONGEST.

import { createHistoryFile } from '../../evidence/history-file.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { sampleStatement } from './statements.ts';

const [path, longest] = process.argv.slice(2) as [string, string];
const file = createHistoryFile(path, { log: silentLog, clock: systemClock, longest: Number(longest) });
console.log('started');
for (let revision = 0; ; revision++) {
  const previous = await file.previous(1_500);
  await file.append(sampleStatement({ previous, revision: `${process.pid} ${revision}` }));
}
