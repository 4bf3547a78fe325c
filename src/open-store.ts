// Opens what is kept: files of the state folder, or the storage that replicas share, and takes over what was kept before.

import { adoptEarlierState } from '../acme/adopt.ts';
import type { AcmeOptions } from '../acme/connect.ts';
import type { Sealed } from '../acme/storage/sealed.ts';
import { isStoreAway, type Storage } from '../acme/storage.ts';
import { createStore, filesUnder, type Store, type StoreOptions } from '../acme/store.ts';
import type { Agent } from '../evidence/agent.ts';
import type { Config } from './config/config.ts';
import type { Log } from './lib/log.ts';
import type { StoreFigures } from './store-figures.ts';

export interface OpenedStore {
  readonly store: Store;
  readonly storage: Storage;
  /** The storage, where replicas share it. */
  readonly sealed: Sealed | undefined;
  /** Where replicas share it: whether it can be relied upon. Resolves to what is doubtful. */
  prove(): Promise<readonly string[]>;
  /** Where replicas share it: why it cannot be used now, if so. */
  trouble(): string | undefined;
  close(): Promise<void>;
}

export interface OpenStoreOptions {
  readonly agent: Pick<Agent, 'info' | 'deriveKey'>;
  /** Of the storage that replicas share: told of all that is asked of it. */
  readonly figures?: StoreFigures | undefined;
  readonly log: Log;
  /** See StoreOptions. Nothing is written to disk either. */
  readonly readOnly?: StoreOptions['readOnly'];
}

type Settings = Pick<Config, 'stateDir' | 'acme' | 'store' | 'dns'>;

/** Rejects with StoreError, and with AgentError and StorageError where replicas share a storage that is unfit. */
export async function openStore(
  config: Settings,
  { agent, figures, log, readOnly }: OpenStoreOptions,
): Promise<OpenedStore> {
  const { stateDir, store: settings } = config;
  const { directoryUrl } = config.acme;
  if (settings === undefined) {
    const store = await createStore({
      stateDir,
      directoryUrl,
      log,
      ...(readOnly !== undefined && { readOnly }),
    });
    return {
      store,
      storage: filesUnder({ stateDir, log }),
      sealed: undefined,
      prove: async () => [],
      trouble: () => undefined,
      close: async () => {},
    };
  }
  const { openFleetStore } = await import('./fleet-store.ts');
  const sealed = await openFleetStore({
    settings,
    agent,
    appId: config.dns.appId,
    stateDir,
    readOnly: readOnly !== undefined,
    figures,
    log,
  });
  // What does not answer now is proven before it is used; what is unfit ends the start.
  await sealed.prove().catch((error: unknown) => {
    if (!isAway(error)) throw error;
    log.warn({ err: error }, 'store does not answer, starting with the copy on this disk');
  });
  const store = await createStore({ stateDir, directoryUrl, log, storage: sealed });
  const { trouble, close } = sealed;
  return { store, storage: sealed, sealed, prove: () => sealed.prove(), trouble, close };
}

function isAway(error: unknown): boolean {
  return isStoreAway(error) && (error as { code?: unknown }).code === 'unavailable';
}

/** Resolves to why no account may be made, if so, or to what finds that out as soon as the store answers. */
export async function adopt(
  config: Settings & Pick<Config, 'certificates'>,
  { store, storage }: OpenedStore,
  log: Log,
): Promise<AcmeOptions['refuseToRegister']> {
  if (config.store === undefined) return adoptFiles(config, store, log);
  let found: Promise<string | undefined> | undefined;
  const find = () => {
    found ??= (async () => {
      // Asked first: while the store does not answer, nothing can be said.
      await storage.list('probe');
      const { migrateState } = await import('./store-migration.ts');
      await migrateState(config, storage, log);
      return adoptFiles(config, store, log);
    })();
    found.catch(() => {
      found = undefined;
    });
    return found;
  };
  return find().catch((err: unknown) => {
    log.warn({ err }, 'what was kept before cannot be taken over yet');
    return find;
  });
}

/** Unreadable state of an earlier image must not stop this one from serving. */
async function adoptFiles(
  { stateDir, acme, certificates: wanted }: Settings & Pick<Config, 'certificates'>,
  store: Store,
  log: Log,
): Promise<string | undefined> {
  try {
    return await adoptEarlierState({
      stateDir,
      directoryUrl: acme.directoryUrl,
      wanted,
      store,
      derivedKey: acme.accountKey === 'kms',
      log,
    });
  } catch (err) {
    log.error({ err }, 'state of an earlier image cannot be adopted');
    return `whether ${stateDir} holds an account of an earlier image cannot be told: ${(err as Error).message}`;
  }
}
