// The search by hand, as deep as you like: node test/acme/model/run.ts --replicas 3 --crashes 2 --losses 2 --silences 1

import { parseArgs } from 'node:util';
import type { Writing } from './replica.ts';
import { search } from './search.ts';

const { values } = parseArgs({
  options: {
    replicas: { type: 'string', default: '3' },
    begins: { type: 'string', default: 'empty' },
    crashes: { type: 'string', default: '1' },
    losses: { type: 'string', default: '1' },
    silences: { type: 'string', default: '0' },
    stragglers: { type: 'string', default: '0' },
    wakes: { type: 'string', default: '0' },
    switches: { type: 'string', default: '2' },
    guards: { type: 'boolean', default: false },
    validates: { type: 'boolean', default: false },
    writing: { type: 'string', default: 'by version' },
  },
});
const { crashes, losses, silences, stragglers, wakes, switches } = values;
const began = process.cpuUsage();
const found = await search(
  {
    replicas: Number(values.replicas),
    begins: values.begins as 'empty' | 'due',
    guards: values.guards,
    validates: values.validates,
    faults: {
      crashes: Number(crashes),
      losses: Number(losses),
      silences: Number(silences),
      stragglers: Number(stragglers),
      wakes: Number(wakes),
      switches: Number(switches),
    },
  },
  { writing: values.writing as Writing },
  { tell: ({ states, nodes, reruns }) => console.error({ states, nodes, reruns }) },
);
const { user, system } = process.cpuUsage(began);
const { violation, ...figures } = found;
console.log({ ...figures, cpuSeconds: Math.round((user + system) / 1e5) / 10 });
if (violation !== undefined) {
  console.log(violation.path.join('\n'));
  console.log(violation.why);
  process.exitCode = 1;
}
