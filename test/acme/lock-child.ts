// A process that holds the lock of a state folder until it is told to let go, or killed.

import { createStore } from '../../acme/store.ts';

const [stateDir, directoryUrl] = process.argv.slice(2) as [string, string];
const store = await createStore({ stateDir, directoryUrl });
await store.hold(AbortSignal.timeout(60_000), async () => {
  process.send!('held');
  await new Promise((resolve) => process.once('message', resolve));
});
process.disconnect!();
