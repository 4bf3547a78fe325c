// The doctor in short form, at each start: what this machine alone can tell, said only where there is something to say.

import type { Config } from '../config/config.ts';
import type { Log } from '../lib/log.ts';
import { diskFindings, folderFindings, thisDisk } from './doctor-folders.ts';
import { memoryFindings, nodeFindings, thisMachine } from './doctor-machine.ts';
import { guarded } from './doctor-report.ts';

/** Nobody else is asked, for the start itself asks them. Never rejects. */
export async function tellFindings(
  config: Config,
  log: Log,
  machine = thisMachine,
  disk = thisDisk,
): Promise<void> {
  const checks = [
    nodeFindings(machine),
    memoryFindings(config, machine),
    folderFindings(config, disk),
    diskFindings(config, disk),
  ];
  for (const { level, ...finding } of (await Promise.all(checks.map(guarded))).flat()) {
    if (level === 'warn') log.warn(finding, 'the doctor found something to look at');
    else if (level === 'fail') log.error(finding, 'the doctor found something wrong');
  }
}
