// Goes through the deployments one after the other, and says of each on a line whether it holds; for a machine of its own.

import { inspect } from 'node:util';
import { createSurroundings, holds } from './deployment.ts';
import { deployments } from './deployments.ts';

const around = await createSurroundings();
for (const deployment of deployments) {
  const error = await holds(deployment, around).then(
    () => undefined,
    (thrown) => inspect(thrown),
  );
  process.stdout.write(`${JSON.stringify({ file: deployment.file, error })}\n`);
}
await around.stop();
process.exit(0);
