// The storages that must all keep the same promises, each over its real server, and reached through a link that can be cut.

import type { TestContext } from 'node:test';
import { createFiles } from '../../../acme/storage/files.ts';
import type { LeaseTimes } from '../../../acme/storage/leases.ts';
import { createPostgres } from '../../../acme/storage/postgres.ts';
import { createRedis } from '../../../acme/storage/redis.ts';
import { createS3 } from '../../../acme/storage/s3.ts';
import type { Engine, Storage } from '../../../acme/storage.ts';
import { startPostgres } from '../../support/postgres.ts';
import { startRedis } from '../../support/redis.ts';
import { startRelay } from '../../support/relay.ts';
import { startS3Double } from '../../support/s3-double.ts';

export interface OpenOptions {
  readonly namespace: string;
  readonly timeoutMs: number;
  readonly lease: LeaseTimes;
}

/** All that another process needs to open the same storage. */
export type Recipe =
  | { readonly engine: 'files'; readonly root: string }
  | { readonly engine: 'postgres'; readonly options: Omit<Parameters<typeof createPostgres>[0], 'namespace'> }
  | { readonly engine: 'redis'; readonly options: Omit<Parameters<typeof createRedis>[0], 'namespace'> }
  | { readonly engine: 's3'; readonly options: Omit<Parameters<typeof createS3>[0], 'namespace'> };

export interface Server {
  readonly recipe: Recipe;
  /** Undefined where there is no link. */
  readonly link: { cut(): void; mend(): void } | undefined;
  /** Kills the server and starts it again on the same data; undefined where there is none. */
  readonly restart: (() => Promise<void>) | undefined;
  /** Whether the server itself refuses what is written under a lost lease. */
  readonly guards: boolean;
  stop(): Promise<void>;
}

export function openStorage(recipe: Recipe, { namespace, timeoutMs, lease }: OpenOptions): Storage | Engine {
  switch (recipe.engine) {
    case 'files':
      return createFiles({
        root: `${recipe.root}/${namespace}`,
        lockPollMs: lease.pollMs,
        lockStaleMs: lease.ttlMs,
      });
    case 'postgres':
      return createPostgres({ ...recipe.options, namespace, timeoutMs, lease });
    case 'redis':
      return createRedis({ ...recipe.options, namespace, timeoutMs, lease });
    case 's3':
      return createS3({ ...recipe.options, namespace, timeoutMs, lease });
  }
}

export const servers: Readonly<Record<string, (t: TestContext, folder: string) => Promise<Server>>> = {
  files: async (_t, folder) => ({
    recipe: { engine: 'files', root: folder },
    link: undefined,
    restart: undefined,
    guards: false,
    stop: async () => {},
  }),
  async PostgreSQL() {
    const server = await startPostgres();
    const relay = await startRelay(server.port);
    const { user, password, database, ca } = server;
    return {
      recipe: {
        engine: 'postgres',
        options: { host: '127.0.0.1', port: relay.port, user, password, database, ca, tls: true },
      },
      link: relay,
      guards: true,
      async restart() {
        await server.kill();
        await server.restart();
      },
      async stop() {
        await relay.stop();
        await server.stop();
      },
    };
  },
  async Redis() {
    const server = await startRedis();
    const relay = await startRelay(server.port);
    const { password, ca } = server;
    return {
      recipe: {
        engine: 'redis',
        options: {
          nodes: [{ host: '127.0.0.1', port: relay.port }],
          mode: 'single',
          database: 3,
          password,
          ca,
          tls: true,
        },
      },
      link: relay,
      guards: true,
      async restart() {
        await server.kill();
        await server.restart();
      },
      async stop() {
        await relay.stop();
        await server.stop();
      },
    };
  },
  async S3() {
    const server = await startS3Double();
    const relay = await startRelay(server.port);
    const { bucket, accessKeyId, secret: password, region, ca } = server;
    const endpoint = `https://127.0.0.1:${relay.port}`;
    return {
      recipe: {
        engine: 's3',
        options: { endpoint, bucket, prefix: 'of/ours', accessKeyId, password, region, ca },
      },
      link: relay,
      guards: false,
      async restart() {
        await server.kill();
        await server.restart();
      },
      async stop() {
        await relay.stop();
        await server.stop();
      },
    };
  },
};
