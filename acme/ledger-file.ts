// The ledger in memory and in the store. What the store refuses stays in memory and is written with the next change.

import type { Domain } from '../src/lib/domain.ts';
import { createTurns } from '../src/lib/turns.ts';
import { entryFor } from './ledger.ts';
import type { Store } from './store.ts';
import type { Ledger, LedgerEntry } from './stored.ts';

export interface LedgerFile {
  /** Reads the file again: another process may have written to it. */
  refresh(): Promise<void>;
  entryFor(names: readonly Domain[]): LedgerEntry | undefined;
  /** Counts from the call on, also when it rejects because the disk refused the entry. */
  note(entry: LedgerEntry): Promise<void>;
  forget(names: readonly Domain[]): Promise<void>;
}

export function createLedgerFile(store: Pick<Store, 'readLedger' | 'writeLedger'>): LedgerFile {
  // Several certificates share the file.
  const inTurn = createTurns();
  const unwritten: Ledger = {};
  let ledger: Ledger = {};

  return {
    async refresh() {
      ledger = { ...(await store.readLedger()), ...unwritten };
    },
    entryFor: (names) => entryFor(ledger, names),
    note(entry) {
      const name = entry.names[0]!;
      ledger = { ...ledger, [name]: entry };
      unwritten[name] = entry;
      return inTurn(async () => {
        await store.writeLedger(ledger, Object.keys(unwritten));
        // A newer entry of the same name is still to be written.
        if (unwritten[name] === entry) delete unwritten[name];
      });
    },
    forget(names) {
      const { [names[0]!]: _, ...others } = ledger;
      ledger = others;
      delete unwritten[names[0]!];
      return inTurn(() => store.writeLedger(ledger, [names[0]!]));
    },
  };
}
