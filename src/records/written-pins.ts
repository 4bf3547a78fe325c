// The CAA records that we wrote, remembered: after a change of account the old ones are known to be ours to remove.

import * as z from 'zod';
import { type Storage, StorageError } from '../../acme/storage.ts';
import type { DnsRecord } from '../../dns/provider.ts';
import { parseCaa, sameRecord } from '../../dns/wire/presentation.ts';
import type { Log } from '../lib/log.ts';

export interface WrittenPins {
  /** The remembered records that one of `wanted` replaces: same name, same tag, another value. */
  outlived(wanted: readonly DnsRecord[]): Promise<DnsRecord[]>;
  /** To be called before they are written: then a crash in between forgets none. */
  remember(wanted: readonly DnsRecord[]): Promise<void>;
  forget(gone: readonly DnsRecord[]): Promise<void>;
}

const schema = z.array(z.object({ name: z.string(), value: z.string() }));
const NAME = 'caa-records.json';
/** Others change the list once in a while. */
const MOST_TRIES = 20;

/**
 * A record that is not in the list is never taken for ours, whatever it says: the pin of another deployment looks just
 * like one of our own from earlier. Pins of all ACME directories are in one list, for they stand at the same names.
 */
export function createWrittenPins(
  storage: Pick<Storage, 'place' | 'read' | 'create' | 'replace'>,
  log: Log,
): WrittenPins {
  async function read(): Promise<{ known: DnsRecord[]; version: string | undefined }> {
    const stored = await storage.read(NAME);
    if (stored === undefined) return { known: [], version: undefined };
    const { version } = stored;
    try {
      const known = schema.parse(JSON.parse(stored.bytes.toString('utf8')));
      return { known: known.map(({ name, value }) => ({ name, type: 'CAA', value })), version };
    } catch (err) {
      // Without the list old pins stay where they are; nothing else depends on it.
      log.warn(
        { path: storage.place(NAME), err },
        'the list of CAA records written before cannot be read, none of them will be removed',
      );
      return { known: [], version };
    }
  }

  /** Nothing is written when `changed` returns what it was given. */
  async function change(changed: (known: DnsRecord[]) => DnsRecord[]): Promise<void> {
    for (let tries = 0; tries < MOST_TRIES; tries += 1) {
      const { known, version } = await read();
      const after = changed(known);
      if (after === known) return;
      const bytes = bytesOf(after);
      const written =
        version === undefined
          ? await storage.create(NAME, bytes)
          : await storage.replace(NAME, bytes, version);
      if (written !== undefined) return;
    }
    throw new StorageError('overtaken', `${storage.place(NAME)} is changed by others without end`);
  }

  return {
    async outlived(wanted) {
      const { known } = await read();
      return known.filter((old) => wanted.some((fresh) => takesPlaceOf(fresh, old)) && !isAmong(old, wanted));
    },
    remember: (wanted) =>
      change((known) => {
        const fresh = wanted.filter((record) => record.type === 'CAA' && !isAmong(record, known));
        return fresh.length > 0 ? [...known, ...fresh] : known;
      }),
    forget: (gone) =>
      change((known) => {
        const left = known.filter((record) => !isAmong(record, gone));
        return left.length < known.length ? left : known;
      }),
  };
}

function bytesOf(records: readonly DnsRecord[]): Buffer {
  const known = records.map(({ name, value }) => ({ name, value }));
  return Buffer.from(`${JSON.stringify(known, null, 2)}\n`);
}

function isAmong(record: DnsRecord, records: readonly DnsRecord[]): boolean {
  return records.some((other) => sameRecord(other, record));
}

function takesPlaceOf(fresh: DnsRecord, old: DnsRecord): boolean {
  return (
    fresh.type === 'CAA' && fresh.name === old.name && parseCaa(fresh.value)?.tag === parseCaa(old.value)?.tag
  );
}
