// The proof that two writes which conflict really do: an engine that lets both succeed would let replicas undo each other.

import { randomBytes } from 'node:crypto';
import { type Storage, StorageError } from '../storage.ts';

const FOLDER = 'probe';

/** Rejects with StorageError `unfit`. Leaves nothing behind, unless it is cut off. */
export async function proveConflicts(storage: Storage, signal?: AbortSignal): Promise<void> {
  const name = `${FOLDER}/${randomBytes(9).toString('hex')}`;
  const options = { signal };
  const unfit = (why: string) =>
    new StorageError(
      'unfit',
      `${storage.place(name)} cannot be relied upon: ${why}; replicas would undo each other`,
    );
  const created = await Promise.all(
    ['a', 'b', 'c'].map((text) => storage.create(name, Buffer.from(text), options)),
  );
  const [first, ...more] = created.filter((version) => version !== undefined);
  if (first === undefined) throw unfit('a new record was refused as if there were one');
  try {
    if (more.length > 0)
      throw unfit('of several processes that make the same record more than one is told it did');
    const second = await storage.replace(name, Buffer.from('d'), first, options);
    if (second === undefined) throw unfit('the version that it gave out is not known to it');
    if ((await storage.replace(name, Buffer.from('e'), first, options)) !== undefined)
      throw unfit('a record is replaced although it has changed meanwhile');
    if ((await storage.create(name, Buffer.from('f'), options)) !== undefined)
      throw unfit('a record is made anew although it is there');
    const left = await storage.read(name, options);
    if (left?.bytes.toString() !== 'd' || left.version !== second)
      throw unfit('what was written is not what is read afterwards');
  } finally {
    await tidy(storage, name);
  }
}

async function tidy(storage: Storage, name: string): Promise<void> {
  const left = await storage.read(name).catch(() => undefined);
  if (left !== undefined) await storage.remove(name, left.version).catch(() => {});
}
