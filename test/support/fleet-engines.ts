// The engines that a fleet stands on, as real servers, each with the whole history of what was ever written to it.

import { globSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createPostgres } from '../../acme/storage/postgres.ts';
import { Client } from '../../acme/storage/postgres-package.ts';
import { createRedis } from '../../acme/storage/redis.ts';
import { createS3 } from '../../acme/storage/s3.ts';
import type { Engine } from '../../acme/storage.ts';
import { startPostgres } from './postgres.ts';
import { startRedis } from './redis.ts';
import { startS3Double } from './s3-double.ts';

export interface Written {
  readonly namespace: string;
  readonly name: string;
  readonly bytes: Buffer;
}

export interface FleetEngine {
  readonly port: number;
  /** Settings that lead to it, by way of this port. */
  settings(port: number): Promise<Record<string, string>>;
  /** A client in this process. */
  open(port: number, namespace: string, timeoutMs?: number): Engine;
  kill(): Promise<void>;
  restart(): Promise<void>;
  /** Whether it is a double that can misbehave as services do: slow, busy, answers lost. */
  readonly misbehave: ((random: () => number) => void) | undefined;
  /** Every record that was written, in the order in which the server has it. */
  history(): Promise<Written[]>;
  stop(): Promise<void>;
}

export const fleetEngines: Readonly<Record<string, (folder: string) => Promise<FleetEngine>>> = {
  async postgres(folder) {
    const server = await startPostgres();
    await put(folder, { 'ca.pem': server.ca, password: `${server.password}\n` });
    const common = {
      host: '127.0.0.1',
      user: server.user,
      database: server.database,
      password: server.password,
    };
    const open: FleetEngine['open'] = (port, namespace, timeoutMs = 5_000) =>
      createPostgres({ ...common, port, tls: true, ca: server.ca, namespace, timeoutMs });
    const first = open(server.port, 'first');
    await first.prove();
    await first.close();
    const ask = async (text: string) => {
      const client = new Client({ ...common, port: server.port, ssl: { ca: server.ca } });
      await client.connect();
      try {
        return (await client.query(text)).rows as Record<string, unknown>[];
      } finally {
        await client.end();
      }
    };
    // Written by the server in the same transaction, whoever writes.
    await ask(`CREATE TABLE audit (turn bigserial, namespace text, name text, body bytea);
      CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO audit (namespace, name, body) VALUES (NEW.namespace, NEW.name, NEW.body); RETURN NULL; END $$;
      CREATE TRIGGER audited AFTER INSERT OR UPDATE ON dstack_ingress_records FOR EACH ROW EXECUTE FUNCTION audit()`);
    return {
      port: server.port,
      settings: async (port) => ({
        STORE_URL: `postgres://${server.user}@127.0.0.1:${port}/${server.database}`,
        STORE_PASSWORD_FILE: join(folder, 'password'),
        STORE_CA_FILE: join(folder, 'ca.pem'),
      }),
      open,
      kill: server.kill,
      restart: server.restart,
      misbehave: undefined,
      history: async () =>
        (await ask('SELECT namespace, name, body FROM audit ORDER BY turn')).map((row) => ({
          namespace: String(row.namespace),
          name: String(row.name),
          bytes: row.body as Buffer,
        })),
      stop: server.stop,
    };
  },
  async redis(folder) {
    const server = await startRedis({
      settings: ['appendonly yes', 'appendfsync always', 'auto-aof-rewrite-percentage 0'],
    });
    const urls = new Map<number, string>();
    await put(folder, { 'ca.pem': server.ca });
    return {
      port: server.port,
      async settings(port) {
        const file = join(folder, `url-${port}`);
        await writeFile(file, `rediss://:${server.password}@127.0.0.1:${port}/1`, { mode: 0o600 });
        urls.set(port, file);
        return { STORE_URL_FILE: file, STORE_CA_FILE: join(folder, 'ca.pem') };
      },
      open: (port, namespace, timeoutMs = 5_000) =>
        createRedis({
          nodes: [{ host: '127.0.0.1', port }],
          mode: 'single',
          database: 1,
          password: server.password,
          ca: server.ca,
          tls: true,
          namespace,
          timeoutMs,
        }),
      kill: server.kill,
      restart: server.restart,
      misbehave: undefined,
      history: async () => redisHistory(server.folder),
      stop: server.stop,
    };
  },
  async s3(folder) {
    const server = await startS3Double();
    await put(folder, { 'ca.pem': server.ca, secret: server.secret });
    const { bucket, accessKeyId, secret: password, region, ca } = server;
    return {
      port: server.port,
      settings: async (port) => ({
        STORE_URL: `s3://${accessKeyId}@${bucket}/of/ours?endpoint=https://127.0.0.1:${port}&region=${region}`,
        STORE_PASSWORD_FILE: join(folder, 'secret'),
        STORE_CA_FILE: join(folder, 'ca.pem'),
      }),
      open: (port, namespace, timeoutMs = 10_000) =>
        createS3({
          endpoint: `https://127.0.0.1:${port}`,
          bucket,
          prefix: 'of/ours',
          accessKeyId,
          password,
          region,
          ca,
          namespace,
          timeoutMs,
        }),
      kill: server.kill,
      restart: server.restart,
      misbehave: (random) =>
        server.misbehave({
          delayMs: Math.floor(random() * 150),
          losesAnswers: Math.floor(random() * 3),
          doesAndRefuses: Math.floor(random() * 3),
          refuses: [503, 409, 500].filter(() => random() < 0.5),
        }),
      history: async () =>
        server.written.map(({ key, body }) => {
          const [, , namespace = '', ...name] = key.split('/');
          return { namespace, name: name.join('/'), bytes: body };
        }),
      stop: server.stop,
    };
  },
};

async function put(folder: string, files: Readonly<Record<string, string>>): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const [name, text] of Object.entries(files))
    await writeFile(join(folder, name), text, { mode: 0o600 });
}

/** From its append-only file, which holds the effects of each script as commands. */
function redisHistory(folder: string): Written[] {
  const files = globSync('appendonlydir/*.incr.aof', { cwd: folder }).sort();
  const all = Buffer.concat(files.map((file) => readFileSync(join(folder, file))));
  const found: Written[] = [];
  for (const [command, key, ...fields] of commandsOf(all)) {
    if (command?.toString().toUpperCase() !== 'HSET') continue;
    const match = /^\{dstack-ingress:(.*?)\}:record:(.*)$/.exec(key!.toString());
    const at = fields.findIndex((field, i) => i % 2 === 0 && field.toString() === 'bytes');
    if (match !== null && at !== -1)
      found.push({ namespace: match[1]!, name: match[2]!, bytes: fields[at + 1]! });
  }
  return found;
}

/** Arrays of bulk strings (RESP). Annotations begin with a hash. */
function commandsOf(bytes: Buffer): Buffer[][] {
  const commands: Buffer[][] = [];
  let at = 0;
  const line = () => {
    const end = bytes.indexOf('\r\n', at);
    const text = bytes.toString('latin1', at, end);
    at = end + 2;
    return text;
  };
  while (at < bytes.length) {
    const head = line();
    if (!head.startsWith('*')) continue;
    const command: Buffer[] = [];
    for (let left = Number(head.slice(1)); left > 0; left -= 1) {
      const length = Number(line().slice(1));
      command.push(Buffer.from(bytes.subarray(at, at + length)));
      at += length + 2;
    }
    commands.push(command);
  }
  return commands;
}
