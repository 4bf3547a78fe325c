// A process that obtains one certificate and can be told to die before its n-th step; its parent is its DNS provider.

import type { DnsRecord } from '../../dns/provider.ts';
import { type IssuanceSettings, issueOnce } from './issuance.ts';

export interface ChildSettings extends IssuanceSettings {
  /** Dies before this step, named as it reports them; empty: lives. */
  dieBefore: string;
}

const settings: ChildSettings = JSON.parse(process.argv[2]!);
const seen = new Map<string, number>();

/** Tells the parent the step's name and waits for nothing but the message's departure, then dies if it is time. */
async function step(name: string): Promise<void> {
  const occurrence = (seen.get(name) ?? 0) + 1;
  seen.set(name, occurrence);
  const label = `${name} #${occurrence}`;
  await new Promise<void>((resolve) => process.send!({ step: label }, () => resolve()));
  if (label === settings.dieBefore) {
    process.kill(process.pid, 'SIGKILL');
    await new Promise(() => {});
  }
}

let asked = 0;
const waiting = new Map<number, () => void>();
process.on('message', ({ done }: { done: number }) => waiting.get(done)?.());
function askParent(change: 'add' | 'remove', record: DnsRecord): Promise<void> {
  asked += 1;
  const id = asked;
  process.send!({ id, change, record });
  return new Promise((resolve) => waiting.set(id, resolve));
}

const provider = {
  add: (record: DnsRecord) => askParent('add', record),
  remove: (record: DnsRecord) => askParent('remove', record),
};
await issueOnce(settings, { provider, step, stream: process.stderr });
process.disconnect!();
