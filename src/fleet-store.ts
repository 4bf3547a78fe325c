// Opens the storage that replicas share: engine, key, sealed copy, in this order; only where STORE_URL is set.

import { join } from 'node:path';
import { createSealing, sealingKey } from '../acme/sealing.ts';
import { openLocalCopy } from '../acme/storage/local-copy.ts';
import { createSealed, type Sealed } from '../acme/storage/sealed.ts';
import { type Engine, StorageError } from '../acme/storage.ts';
import type { Agent } from '../evidence/agent.ts';
import type { StoreSettings } from './config/store.ts';
import type { Log } from './lib/log.ts';
import type { StoreFigures } from './store-figures.ts';

export interface FleetStoreOptions {
  readonly settings: StoreSettings;
  readonly agent: Pick<Agent, 'info' | 'deriveKey'>;
  /** In the place of the agent's. */
  readonly appId: string | undefined;
  readonly stateDir: string;
  /** Nothing is written to this disk. */
  readonly readOnly: boolean;
  /** Counts what is asked of the engine. */
  readonly figures: StoreFigures | undefined;
  readonly log: Log;
}

/** Each generation of the key has a path of its own at the KMS. */
const KEY_PATH = 'ingress/store';

/**
 * Contacts the agent, and not yet the engine. Rejects with AgentError, and with StorageError `unfit` where there is no key
 * that outlives this machine.
 */
export async function openFleetStore(options: FleetStoreOptions): Promise<Sealed> {
  const { settings, agent, stateDir, readOnly, log } = options;
  const namespace = options.appId ?? (await agent.info()).appId;
  const secrets = settings.keys ?? (await keysFromKms(agent, settings.generation));
  const [first, ...others] = secrets.map(sealingKey);
  const sealing = createSealing([first!, ...others], namespace);
  const copy = await openLocalCopy(join(stateDir, 'dstack-ingress', 'store-copy'), sealing, {
    log,
    readOnly,
  });
  const created = await createEngine(settings, namespace, log);
  const engine = options.figures?.watch(created) ?? created;
  return createSealed({ engine, sealing, copy, log });
}

async function keysFromKms(agent: FleetStoreOptions['agent'], generation: number): Promise<Uint8Array[]> {
  const { keyProvider } = await agent.info();
  if (keyProvider?.name !== 'kms') {
    const provider = keyProvider === undefined ? 'not told by the agent' : JSON.stringify(keyProvider.name);
    throw new StorageError(
      'unfit',
      `STORE_URL needs a key that all replicas have, and this app's key provider is ${provider}: ` +
        'set STORE_KEY, the same for every replica',
    );
  }
  // The next one opens as well: while the number is being raised, replicas that have it already seal with it.
  const earlier = Array.from({ length: generation - 1 }, (_, i) => generation - 1 - i);
  const generations = [generation, generation + 1, ...earlier];
  const paths = generations.map((each) => (each === 1 ? KEY_PATH : `${KEY_PATH}/${each}`));
  const derived = await Promise.all(paths.map((path) => agent.deriveKey(path, 'storage')));
  return derived.map(({ key }) => key);
}

/** Each engine is loaded by whoever uses it. */
async function createEngine(
  { place, password, ca }: StoreSettings,
  namespace: string,
  log: Log,
): Promise<Engine> {
  const common = { password, ca, namespace, log };
  switch (place.engine) {
    case 'postgres': {
      const { createPostgres } = await import('../acme/storage/postgres.ts');
      return createPostgres({ ...place, ...common });
    }
    case 'redis': {
      const { createRedis } = await import('../acme/storage/redis.ts');
      return createRedis({ ...place, ...common });
    }
    case 's3': {
      const { createS3 } = await import('../acme/storage/s3.ts');
      return createS3({ ...place, ...common });
    }
  }
}
