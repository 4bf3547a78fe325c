// Each deployment of the earlier images runs from its own compose file, with nothing but the image replaced.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { bundle } from '../support/bundle.ts';
import { canHaveOwnMachine, spawnOnOwnMachine } from '../support/own-machine.ts';
import { deployments } from './deployments/deployments.ts';

const skip = !canHaveOwnMachine() && 'this system gives no namespaces (unshare --mount --net)';
const outcomes = new Map(deployments.map(({ file }) => [file, Promise.withResolvers<string | undefined>()]));

if (skip === false) {
  // Made here, where the whole of the repository can be written to.
  bundle();
  const script = fileURLToPath(new URL('deployments/on-own-machine.ts', import.meta.url));
  const child = spawnOnOwnMachine(process.execPath, [script]);
  createInterface({ input: child.stdout! }).on('line', (line) => {
    const { file, error } = JSON.parse(line) as { file: string; error?: string };
    outcomes.get(file)!.resolve(error);
  });
  const ended = once(child, 'exit');
  void ended.then(([code]) => {
    for (const { resolve } of outcomes.values()) resolve(`it never came to this: the run ended with ${code}`);
  });
  after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
}

for (const { title, file } of deployments)
  test(title, { skip }, async () => {
    const error = await outcomes.get(file)!.promise;
    if (error !== undefined) assert.fail(error);
  });
