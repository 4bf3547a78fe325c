// The process of an attacker: attacker.ts NAME, told its target and its end by messages.

import { setPriority } from 'node:os';
import type { Target } from './attack.ts';
import { attacks } from './attacks.ts';

const attack = attacks.find(({ name }) => name === process.argv[2]);
if (attack === undefined) throw new Error(`no attack is called ${process.argv[2]}`);
setPriority(10);

process.once('message', async (target: Target) => {
  const running = await attack.start(target);
  process.send!('started');
  let stopped = false;
  const stop = async () => {
    if (stopped) return;
    stopped = true;
    await running.stop();
    process.exit(0);
  };
  process.once('message', stop);
  process.once('disconnect', stop);
  await running.over;
  process.exit(0);
});
