// Takes what a single ingress keeps in its state folder into the storage that replicas share; the files stay.

import type { Storage } from '../acme/storage.ts';
import { directoryFolder, filesUnder } from '../acme/store.ts';
import type { Config } from './config/config.ts';
import type { Log } from './lib/log.ts';

export interface Migration {
  /** Names of the records that were taken over. */
  readonly copied: readonly string[];
  /** Why nothing was, if so. */
  readonly left: string | undefined;
}

/** Challenges and orders under way end where they began. */
const RECORDS = ['ledger.json', 'windows.json', 'caa.json'];
const PINS = 'caa-records.json';
const ACCOUNT = 'account.json';

/** Nothing in the storage is replaced. If it has an account, that is the fleet's, and the one in the files is left. */
export async function migrateState(
  { stateDir, acme }: Pick<Config, 'stateDir' | 'acme'>,
  to: Storage,
  log: Log,
): Promise<Migration> {
  const from = filesUnder({ stateDir, log });
  const folder = directoryFolder(acme.directoryUrl);
  const account = `${folder}/${ACCOUNT}`;
  if ((await from.read(account)) === undefined)
    return { copied: [], left: `there is no account in ${from.place(folder)}` };
  if ((await to.read(account)) !== undefined) return { copied: [], left: 'the store has an account already' };
  const certificates = (await from.list(`${folder}/certificates`)).filter((name) => name.endsWith('.json'));
  const names = [
    ...certificates.map((name) => `${folder}/certificates/${name}`),
    ...RECORDS.map((name) => `${folder}/${name}`),
    PINS,
    // Last, because it marks that all is done.
    account,
  ];
  const copied: string[] = [];
  for (const name of names) {
    const found = await from.read(name);
    if (found !== undefined && (await to.create(name, found.bytes)) !== undefined) copied.push(name);
  }
  log.info({ records: copied, from: from.place(folder) }, 'state folder taken over into the store');
  return { copied, left: undefined };
}
