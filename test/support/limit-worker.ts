// A worker that does nothing but ask of limits: told how often on its standard input, it says on its standard output what passed.

import { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Admission, LimitZones, Passage } from '../../proxy/rules/limits.ts';
import { CHANNEL_FD, readOrders, writeMessage } from '../../src/workers/channel.ts';
import { createLimitQuestions } from '../../src/workers/limit-questions.ts';

export interface Asking {
  readonly times: number;
  readonly charges?: readonly { readonly key: string; readonly burst: number }[];
  readonly seats?: readonly { readonly key: string; readonly max: number }[];
}

export interface Asked {
  readonly passed: number;
  readonly requests: number;
  readonly seats: number;
}

const supervisor = new Socket({ fd: CHANNEL_FD, readable: true, writable: true });
const limits = createLimitQuestions({
  send: (asked) => writeMessage(supervisor, { limits: asked }),
  patienceMs: 60_000,
});
const held: Passage[] = [];
let zones: LimitZones = { requestZones: [], connectionZones: [] };

readOrders(supervisor, (order) => {
  if (order.type === 'counted') limits.counted(order.counted);
  const { id } = order;
  if (order.type === 'serve' && order.snapshot.kind === 'limits') {
    const { generation, value } = order.snapshot;
    zones = value.zones;
    limits.set(generation, value);
    writeMessage(supervisor, { id, done: true, generation });
  } else writeMessage(supervisor, { id, done: true });
});

createInterface({ input: process.stdin }).on('line', async (line) => {
  if (line === 'leave') {
    for (const passage of held.splice(0)) passage.leave();
    console.log('{}');
    return;
  }
  const asking = JSON.parse(line) as Asking;
  const charges = (asking.charges ?? []).map((charge, zone) => ({ ...charge, zone, delay: charge.burst }));
  const seats = (asking.seats ?? []).map((seat, zone) => ({ ...seat, zone }));
  const admissions: Admission[] = await Promise.all(
    Array.from({ length: asking.times }, () => limits.charge(zones, charges, seats)),
  );
  const passages = admissions.filter((admission) => typeof admission === 'object');
  held.push(...passages);
  const count = (what: Admission) => admissions.filter((admission) => admission === what).length;
  const asked: Asked = { passed: passages.length, requests: count('requests'), seats: count('seats') };
  console.log(JSON.stringify(asked));
});
