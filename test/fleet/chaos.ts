// By hand: node test/fleet/chaos.ts --engine postgres --seconds 600 --seed 1

import { parseArgs } from 'node:util';
import { chaos } from './chaos-run.ts';

const { values } = parseArgs({
  options: {
    engine: { type: 'string', default: 'postgres' },
    seconds: { type: 'string', default: '600' },
    seed: { type: 'string', default: '1' },
    replicas: { type: 'string', default: '4' },
    logs: { type: 'string' },
  },
});
const outcome = await chaos({
  engine: values.engine,
  seconds: Number(values.seconds),
  seed: Number(values.seed),
  replicas: Number(values.replicas),
  logs: values.logs,
  tell: (text) => console.error(text),
});
console.log(JSON.stringify({ ...values, ...outcome }, null, 2));
process.exit(outcome.wrong.length === 0 ? 0 : 1);
