// The CAA records that we wrote, remembered on disk: after a change of account the old ones are known to be ours to remove.

import { dirname } from 'node:path';
import { z } from 'zod';
import type { DnsRecord } from '../../dns/provider.ts';
import { parseCaa, sameRecord } from '../../dns/wire/presentation.ts';
import { ensurePrivateFolder, readFileIfPresent, writeFileAtomic } from '../lib/atomic-file.ts';
import type { Log } from '../lib/log.ts';

export interface WrittenPins {
  /** The remembered records that one of `wanted` replaces: same name, same tag, another value. */
  outlived(wanted: readonly DnsRecord[]): Promise<DnsRecord[]>;
  /** To be called before they are written: then a crash in between forgets none. */
  remember(wanted: readonly DnsRecord[]): Promise<void>;
  forget(gone: readonly DnsRecord[]): Promise<void>;
}

const fileSchema = z.array(z.object({ name: z.string(), value: z.string() }));

/**
 * A record that is not in the file is never taken for ours, whatever it says: the pin of another deployment looks just
 * like one of our own from earlier. Pins of all ACME directories are in one file, for they stand at the same names.
 */
export function createWrittenPins(path: string, log: Log): WrittenPins {
  async function read(): Promise<DnsRecord[]> {
    const bytes = await readFileIfPresent(path);
    if (bytes === undefined) return [];
    try {
      const known = fileSchema.parse(JSON.parse(bytes.toString('utf8')));
      return known.map(({ name, value }) => ({ name, type: 'CAA', value }));
    } catch (err) {
      // Without the list old pins stay where they are; nothing else depends on it.
      log.warn(
        { path, err },
        'the list of CAA records written before cannot be read, none of them will be removed',
      );
      return [];
    }
  }
  async function write(records: readonly DnsRecord[]): Promise<void> {
    await ensurePrivateFolder(dirname(path));
    const known = records.map(({ name, value }) => ({ name, value }));
    await writeFileAtomic(path, `${JSON.stringify(known, null, 2)}\n`);
  }
  return {
    async outlived(wanted) {
      const known = await read();
      return known.filter((old) => wanted.some((fresh) => takesPlaceOf(fresh, old)) && !isAmong(old, wanted));
    },
    async remember(wanted) {
      const known = await read();
      const fresh = wanted.filter((record) => record.type === 'CAA' && !isAmong(record, known));
      if (fresh.length > 0) await write([...known, ...fresh]);
    },
    async forget(gone) {
      const known = await read();
      const left = known.filter((record) => !isAmong(record, gone));
      if (left.length < known.length) await write(left);
    },
  };
}

function isAmong(record: DnsRecord, records: readonly DnsRecord[]): boolean {
  return records.some((other) => sameRecord(other, record));
}

function takesPlaceOf(fresh: DnsRecord, old: DnsRecord): boolean {
  return (
    fresh.type === 'CAA' && fresh.name === old.name && parseCaa(fresh.value)?.tag === parseCaa(old.value)?.tag
  );
}
