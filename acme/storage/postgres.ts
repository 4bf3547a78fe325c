// Records as rows of PostgreSQL: a write and the lease that guards it are one statement, by the server's own clock.

import { randomBytes } from 'node:crypto';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { silentLog } from '../../src/lib/log.ts';
import { type Engine, StorageError, type Stored, type WriteOptions } from '../storage.ts';
import { type Bounds, bounded } from './bounded.ts';
import { createLeases, type LeaseVerbs, refuseIfLost } from './leases.ts';
import { Client, Pool, type PoolConfig } from './postgres-package.ts';
import type { ServerOptions } from './server-options.ts';

export interface PostgresOptions extends ServerOptions {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  /** False: in the clear. */
  readonly tls: boolean;
}

const RECORDS = 'dstack_ingress_records';
const LEASES = 'dstack_ingress_leases';
const CHANNEL = 'dstack_ingress';
const REST_AFTER_LOSS_MS = 10_000;

/** No advisory locks: a pooler between us and the server gives each statement another session. */
export function createPostgres(options: PostgresOptions): Engine {
  const { namespace, timeoutMs = 5_000, clock = systemClock, log = silentLog } = options;
  const config = configOf(options, timeoutMs);
  const where = `postgres://${options.host}:${options.port}/${options.database}`;
  const bounds: Bounds = { timeoutMs, where, secrets: [options.password ?? ''] };
  const pool = new Pool({ ...config, max: 4, idleTimeoutMillis: 60_000, allowExitOnIdle: true });
  // Of idle connections; whoever uses one is told by its own error.
  pool.on('error', () => {});
  const place = (name: string) => `${where} ${name}`;
  const query: Query = (text, values, signal) =>
    bounded(bounds, signal, async () => (await pool.query<Row>(text, [...values])).rows);
  const { ttlMs = 30_000, pollMs = 1_000 } = options.lease ?? {};
  return {
    place,
    ...recordsOf(namespace, query),
    lease: createLeases({ verbs: leaseVerbs(namespace, query), ttlMs, pollMs, place, clock, log }),
    watch: (_folder, changed) => listen(config, namespace, changed, clock),
    async setAside(name, why) {
      throw new StorageError('unreadable', `${place(name)}: ${why.message}`);
    },
    prove: (signal) => prove(query, signal, where),
    // A connection that hangs must not keep the process from ending.
    close: () => Promise.race([pool.end(), clock.sleep(1_000)]),
  };
}

function recordsOf(
  namespace: string,
  query: Query,
): Pick<Engine, 'read' | 'create' | 'replace' | 'remove' | 'list'> {
  /** Resolves to the version that the statement returns. Its first parameter is the namespace. */
  async function write(text: string, values: readonly unknown[], { signal, lease }: WriteOptions = {}) {
    refuseIfLost(lease);
    const all = [namespace, ...values];
    const [row] = await query(
      guarded(text, all.length),
      [...all, lease?.name ?? '', lease?.token ?? ''],
      signal,
    );
    if (row?.held === false)
      throw new StorageError(
        'lease-lost',
        `nothing was written: another replica has the lease ${lease?.name}`,
      );
    return typeof row?.version === 'string' ? row.version : undefined;
  }

  return {
    async read(name, { signal } = {}) {
      const text = `SELECT version, body FROM ${RECORDS} WHERE namespace = $1 AND name = $2`;
      const [row] = await query(text, [namespace, name], signal);
      return row && storedOf(row);
    },
    create: (name, bytes, options) =>
      write(
        `INSERT INTO ${RECORDS} (namespace, name, version, body) SELECT $1, $2, $3, $4 FROM guard WHERE held
         ON CONFLICT DO NOTHING RETURNING version`,
        [name, newVersion(), Buffer.from(bytes)],
        options,
      ),
    replace: (name, bytes, version, options) =>
      write(
        `UPDATE ${RECORDS} SET version = $3, body = $4 FROM guard
         WHERE namespace = $1 AND name = $2 AND version = $5 AND held RETURNING version`,
        [name, newVersion(), Buffer.from(bytes), version],
        options,
      ),
    async remove(name, version, options) {
      const text = `DELETE FROM ${RECORDS} USING guard
         WHERE namespace = $1 AND name = $2 AND version = $3 AND held RETURNING version`;
      return (await write(text, [name, version], options)) !== undefined;
    },
    async list(folder, { signal } = {}) {
      const text = `SELECT name FROM ${RECORDS} WHERE namespace = $1 AND starts_with(name, $2)`;
      const rows = await query(text, [namespace, `${folder}/`], signal);
      const names = rows.map(({ name }) => String(name).slice(folder.length + 1));
      return names.filter((name) => !name.includes('/'));
    },
  };
}

type Row = Record<string, unknown>;
type Query = (text: string, values: readonly unknown[], signal?: AbortSignal) => Promise<Row[]>;

function configOf(options: PostgresOptions, timeoutMs: number): PoolConfig {
  const { host, port, database, user, password, tls, ca } = options;
  return {
    host,
    port,
    database,
    user,
    ...(password !== undefined && { password }),
    ssl: tls ? { rejectUnauthorized: true, ...(ca !== undefined && { ca }) } : false,
    application_name: 'dstack-ingress',
    connectionTimeoutMillis: timeoutMs,
    // statement_timeout is the server's: after a cut link nobody would hear of it.
    query_timeout: timeoutMs,
    keepAlive: true,
  };
}

/** Another one every time, so that a write whose answer was lost is known by it, and no version comes twice. */
function newVersion(): string {
  return randomBytes(12).toString('hex');
}

function storedOf({ version, body }: Row): Stored {
  return { version: String(version), bytes: body as Buffer };
}

/**
 * The row of the lease is locked until the write is done, so it cannot change hands in between. An empty name asks for no
 * lease. Two parameters follow those of the write: the lease's name and token.
 */
function guarded(text: string, parameters: number): string {
  const [name, token] = [`$${parameters + 1}::text`, `$${parameters + 2}::text`];
  return `WITH lease AS (
      SELECT 1 FROM ${LEASES}
      WHERE namespace = $1 AND name = ${name} AND token = ${token} AND expires > clock_timestamp() FOR SHARE),
    guard AS (SELECT ${name} = '' OR EXISTS (SELECT 1 FROM lease) AS held),
    written AS (${text})
    SELECT (SELECT held FROM guard) AS held, (SELECT version FROM written) AS version`;
}

function leaseVerbs(namespace: string, query: Query): LeaseVerbs {
  const until = `clock_timestamp() + $4::int * interval '1 millisecond'`;
  return {
    async take(name, token, ttlMs) {
      const text = `INSERT INTO ${LEASES} AS held (namespace, name, token, expires) VALUES ($1, $2, $3, ${until})
        ON CONFLICT (namespace, name) DO UPDATE SET token = $3, expires = ${until}
        WHERE held.expires <= clock_timestamp() OR held.token = $3 RETURNING token`;
      return (await query(text, [namespace, name, token, ttlMs])).length > 0;
    },
    async renew(name, token, ttlMs) {
      const text = `UPDATE ${LEASES} SET expires = ${until}
        WHERE namespace = $1 AND name = $2 AND token = $3 AND expires > clock_timestamp() RETURNING token`;
      return (await query(text, [namespace, name, token, ttlMs])).length > 0;
    },
    async release(name, token) {
      const text = `UPDATE ${LEASES} SET expires = '-infinity' WHERE namespace = $1 AND name = $2 AND token = $3`;
      await query(text, [namespace, name, token]);
    },
  };
}

async function prove(query: Query, signal: AbortSignal | undefined, where: string): Promise<string[]> {
  const [server] = await query(
    `SELECT pg_is_in_recovery() AS standby, current_setting('fsync') AS fsync,
      current_setting('synchronous_commit') AS commit`,
    [],
    signal,
  );
  if (server?.standby === true)
    throw new StorageError('unfit', `${where} is a standby, which takes no writes: name the primary`);
  await makeTables(query, signal, where);
  return [
    ...(server?.fsync === 'off' ? [`${where}: fsync is off, a crash of the server can lose everything`] : []),
    ...(server?.commit === 'off'
      ? [`${where}: synchronous_commit is off, a crash of the server loses what it confirmed last`]
      : []),
  ];
}

/** Two replicas may come at once: IF NOT EXISTS still fails for the second (unique_violation, duplicate_table). */
async function makeTables(query: Query, signal: AbortSignal | undefined, where: string): Promise<void> {
  const isThere = async () => {
    const [row] = await query(
      `SELECT to_regclass($1) IS NOT NULL AND to_regclass($2) IS NOT NULL AS there`,
      [RECORDS, LEASES],
      signal,
    );
    return row?.there === true;
  };
  if (await isThere()) return;
  const statements = [
    `CREATE TABLE IF NOT EXISTS ${RECORDS} (namespace text NOT NULL, name text NOT NULL, version text NOT NULL,
      body bytea NOT NULL, PRIMARY KEY (namespace, name))`,
    `CREATE TABLE IF NOT EXISTS ${LEASES} (namespace text NOT NULL, name text NOT NULL, token text NOT NULL,
      expires timestamptz NOT NULL, PRIMARY KEY (namespace, name))`,
    // For the hint: a server that forbids triggers is asked again every few seconds, and that is all.
    `CREATE OR REPLACE FUNCTION ${CHANNEL}_tell() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_notify('${CHANNEL}', NEW.namespace); RETURN NULL; END $$`,
    `CREATE OR REPLACE TRIGGER ${CHANNEL}_told AFTER INSERT OR UPDATE ON ${RECORDS}
      FOR EACH ROW EXECUTE FUNCTION ${CHANNEL}_tell()`,
  ];
  let refusal: unknown;
  for (const statement of statements)
    await query(statement, [], signal).catch((error: unknown) => {
      refusal ??= error;
    });
  if (await isThere()) return;
  const why = refusal instanceof Error ? refusal.message : 'they are not there';
  throw new StorageError('unfit', `the tables ${RECORDS} and ${LEASES} cannot be made at ${where}: ${why}`);
}

/** A connection of its own, begun again whenever it ends. */
function listen(config: PoolConfig, namespace: string, changed: () => void, clock: Clock): () => void {
  const ending = new AbortController();
  let client: Client | undefined;
  const once = async () => {
    const fresh = new Client(config);
    client = fresh;
    const gone = new Promise<void>((resolve) => fresh.on('end', resolve).on('error', () => resolve()));
    fresh.on('notification', ({ payload }) => payload === namespace && changed());
    await fresh.connect();
    await fresh.query(`LISTEN ${CHANNEL}`);
    await gone;
  };
  const end = () => void client?.end().catch(() => {});
  const run = async () => {
    while (!ending.signal.aborted) {
      await once().catch(() => {});
      end();
      await clock.sleep(REST_AFTER_LOSS_MS, ending.signal).catch(() => {});
    }
  };
  void run();
  return () => {
    ending.abort();
    end();
  };
}
