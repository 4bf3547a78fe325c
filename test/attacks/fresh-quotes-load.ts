// The process that asks for fresh quotes without waiting for answers, and looks at each answer once all are there.

import { setTimeout as sleep } from 'node:timers/promises';
import { checkAttest, freshNonce, type Reader, readHttp2, type Target } from '../support/evidence-reader.ts';

interface Order {
  readonly target: Target;
  readonly connections: number;
  readonly perConnection: number;
  readonly seconds: number;
  /** Another file than the fresh quote, and then nothing is looked at. */
  readonly instead?: string;
}

process.once('message', (order: Order) => void ask(order));

async function ask({ target, connections, perConnection, seconds, instead }: Order): Promise<void> {
  const readers: Reader[] = [];
  for (let number = 0; number < connections; number++) readers.push(await readHttp2(target));
  process.send!('begins');
  const toCheck: { body: Buffer; nonce: string; reader: Reader }[] = [];
  const report = { answered: 0, refused: 0, other: 0, wrong: 0, seconds: 0 };
  const beganAt = performance.now();
  const one = async (reader: Reader) => {
    const nonce = freshNonce();
    const { status, body } = await reader.get(`/evidences/${instead ?? 'attest'}?nonce=${nonce}`);
    if (status === 200 && instead === undefined) toCheck.push({ body, nonce, reader });
    if (status === 200) report.answered++;
    else if (status === 429) report.refused++;
    else report.other++;
  };
  await Promise.all(
    readers.map(async (reader, number) => {
      // Spread over the time, and not all at once.
      const everyMs = (seconds * 1_000) / perConnection;
      await sleep((everyMs * number) / connections);
      const open: Promise<void>[] = [];
      for (let turn = 0; turn < perConnection; turn++) {
        open.push(one(reader));
        await sleep(everyMs);
      }
      await Promise.all(open);
    }),
  );
  report.seconds = Number(((performance.now() - beganAt) / 1_000).toFixed(1));
  for (const { body, nonce, reader } of toCheck) {
    try {
      checkAttest(body, nonce, reader);
    } catch {
      report.wrong++;
    }
  }
  for (const reader of readers) reader.close();
  process.send!(report, () => process.disconnect?.());
}
