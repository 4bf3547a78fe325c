// Replicas with empty disks, a renewal, and an upgrade one by one and back, under visitors. By hand: node test/fleet/many.ts --engine postgres --replicas 10 [--other FOLDER]

import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { createFleet, type FleetReplica, startVisits } from '../support/fleet.ts';

const { values } = parseArgs({
  options: {
    engine: { type: 'string', default: 'postgres' },
    replicas: { type: 'string', default: '10' },
    /** The folder of another bundle, made by build.ts of another revision: the fleet goes over to it, and back. */
    other: { type: 'string' },
  },
});
await using fleet = await createFleet({ engine: values.engine, replicas: Number(values.replicas) });
const { replicas, gateway } = fleet;
const { pebble } = fleet.world;
const report: Record<string, unknown> = { ...values };
// Whoever orders is never the one that the CA comes to.
gateway.avoid = (host) =>
  replicas.find((each) => each.host === host)?.process?.log.some(({ msg }) => msg === 'certificate due') ===
  true;

async function agree(unlike?: string): Promise<string> {
  for (;;) {
    const serials = await Promise.all(replicas.map((each) => each.serial()));
    const [first] = serials;
    if (first !== undefined && first !== unlike && serials.every((each) => each === first)) return first;
    await sleep(500);
  }
}

const began = performance.now();
for (const each of replicas) each.start();
await Promise.all(replicas.map(({ process }) => process!.waitFor('ready', undefined, 600_000)));
const first = await agree();
report['all ready after, s'] = Math.round((performance.now() - began) / 1_000);
report.atFirst = { accounts: pebble.made('account'), orders: pebble.made('order') };

replicas[0]!.process!.kill('SIGUSR2');
const next = await agree(first);
report.renewed = { accounts: pebble.made('account'), orders: pebble.made('order'), changed: next !== first };

gateway.avoid = () => false;
const visits = startVisits(fleet, await fleet.world.roots());
async function replace(each: FleetReplica, folder: string | undefined): Promise<void> {
  const { process } = each;
  // It lets what it carries finish and takes no new connection.
  const leaving = { why: 'leaves', from: performance.now(), to: Number.POSITIVE_INFINITY };
  each.excuses.push(leaving);
  await process!.stop();
  leaving.to = performance.now();
  await each.start(folder === undefined ? {} : { BUNDLE: folder }).waitFor('ready', undefined, 600_000);
}
for (const folder of values.other === undefined ? [undefined] : [values.other, undefined])
  for (const each of replicas) await replace(each, folder);
await visits.stop();
const { done, excused, unexcused } = visits;
report.upgraded = {
  done,
  excused,
  unexcused,
  accounts: pebble.made('account'),
  orders: pebble.made('order'),
};
console.log(JSON.stringify(report, null, 2));
