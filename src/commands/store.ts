// The store command: is what replicas share fit, what is in it, and taking all of it out or in.

import { text } from 'node:stream/consumers';
import * as z from 'zod';
import type { Storage } from '../../acme/storage.ts';
import { directoryFolder } from '../../acme/store.ts';
import { createAgent } from '../../evidence/agent.ts';
import { type Config, ConfigError, readConfig } from '../config/config.ts';
import type { ExitCodes } from '../exit-codes.ts';
import { silentLog } from '../lib/log.ts';
import { type OpenedStore, openStore } from '../open-store.ts';
import { migrateState } from '../store-migration.ts';
import { describeMisuse } from './usage.ts';

interface Streams {
  readonly in: NodeJS.ReadableStream;
  readonly out: NodeJS.WritableStream;
  readonly err: NodeJS.WritableStream;
}

export interface StoreQuestion {
  readonly verb: string;
  /** Of import: what is there is replaced. */
  readonly replace: boolean;
}

interface Work extends StoreQuestion, Streams {
  readonly config: Config;
  readonly storage: Storage;
  readonly prove: OpenedStore['prove'];
  /** Always there for FLEET_VERBS. */
  readonly sealed: OpenedStore['sealed'];
}

/** Each resolves to whether all is well. */
const verbs: Readonly<Record<string, (work: Work) => Promise<boolean>>> = {
  check,
  list,
  export: exportAll,
  import: importAll,
  migrate,
  reseal,
  accept,
};
/** They make sense only where replicas share a store. */
const FLEET_VERBS = ['check', 'migrate', 'reseal', 'accept'];
/** What an export does not write over. */
const READING = ['check', 'list', 'export'];
const DEADLINE_MS = 60_000;

/** Resolves with the exit code. */
export async function store(
  asked: StoreQuestion,
  env: NodeJS.ProcessEnv,
  streams: Streams,
  exits: ExitCodes,
): Promise<number> {
  const { err } = streams;
  const carryOut = verbs[asked.verb];
  if (carryOut === undefined) {
    const hint = `wants one of ${Object.keys(verbs).join(', ')}`;
    err.write(describeMisuse(`store: no such thing to do: ${asked.verb}`, hint));
    return exits.usage;
  }
  try {
    const config = readConfig(env);
    if (config.store === undefined && FLEET_VERBS.includes(asked.verb)) {
      err.write(
        describeMisuse(`store ${asked.verb}: STORE_URL is not set`, 'docs/fleet.md says what it can be'),
      );
      return exits.configuration;
    }
    return (await withStorage(config, asked, streams, carryOut)) ? exits.ok : exits.failed;
  } catch (error) {
    err.write(`store ${asked.verb}: ${(error as Error).message}\n`);
    return error instanceof ConfigError ? exits.configuration : exits.failed;
  }
}

async function withStorage(
  config: Config,
  asked: StoreQuestion,
  streams: Streams,
  carryOut: (work: Work) => Promise<boolean>,
): Promise<boolean> {
  const { agentEndpoint } = config.evidence;
  const agent = createAgent({ ...(agentEndpoint !== undefined && { endpoint: agentEndpoint }) });
  const readOnly = READING.includes(asked.verb)
    ? { readOnly: { damaged: (path: string, why: string) => void streams.err.write(`${path}: ${why}\n`) } }
    : {};
  const opened = await openStore(config, { agent, log: silentLog, ...readOnly });
  try {
    const { storage, prove, sealed } = opened;
    return await carryOut({ ...asked, ...streams, config, storage, prove, sealed });
  } finally {
    await opened.close();
  }
}

interface Found {
  readonly name: string;
  readonly bytes: Buffer | undefined;
  /** Why it cannot be read, if so. */
  readonly problem: string | undefined;
}

/** Of this ACME directory; challenges are over in a moment. */
async function recordsIn(storage: Storage, config: Config): Promise<Found[]> {
  const found = await Promise.all(
    (await namesIn(storage, config)).map((name) =>
      storage.read(name).then(
        (stored) => ({ name, bytes: stored?.bytes, problem: undefined }),
        (error: Error) => ({ name, bytes: undefined, problem: error.message }),
      ),
    ),
  );
  return found.filter(({ bytes, problem }) => bytes !== undefined || problem !== undefined);
}

async function namesIn(
  storage: Storage,
  { acme }: Config,
  folders: readonly string[] = ['certificates', 'orders'],
): Promise<string[]> {
  const folder = directoryFolder(acme.directoryUrl);
  const names = ['caa-records.json'];
  for (const each of [folder, ...folders.map((one) => `${folder}/${one}`)])
    for (const name of await storage.list(each)) if (name.endsWith('.json')) names.push(`${each}/${name}`);
  return names;
}

/** All that has a name of its own, what lasts a moment included. */
const ALL_FOLDERS = ['certificates', 'orders', 'validations'];

async function reseal({ storage, sealed, config, out }: Work): Promise<boolean> {
  for (const name of await namesIn(storage, config, ALL_FOLDERS))
    if (await sealed!.reseal(name)) out.write(`${name}\n`);
  return true;
}

async function accept({ storage, sealed, config, out }: Work): Promise<boolean> {
  const names = await namesIn(storage, config, ALL_FOLDERS);
  await sealed!.accept(names);
  out.write(`${storage.place('')}: taken as it is now, ${names.length} records\n`);
  return true;
}

async function check({ storage, prove, config, out }: Work): Promise<boolean> {
  for (const warning of await prove()) out.write(`doubtful: ${warning}\n`);
  const found = await recordsIn(storage, config);
  const bad = found.filter(({ problem }) => problem !== undefined);
  for (const { problem } of bad) out.write(`not to be trusted: ${problem}\n`);
  out.write(
    `${storage.place('')}: conflicting writes conflict, ${found.length - bad.length} records can be read\n`,
  );
  return bad.length === 0;
}

async function list({ storage, config, out }: Work): Promise<boolean> {
  const found = await recordsIn(storage, config);
  for (const { name, bytes, problem } of found)
    out.write(`${name}\t${bytes === undefined ? problem : `${bytes.length} bytes`}\n`);
  return found.every(({ problem }) => problem === undefined);
}

const ExportSchema = z.strictObject({
  format: z.literal('dstack-ingress store 1'),
  /** Name -> base64. */
  records: z.record(z.string().regex(/^[\w.%*-]+(\/[\w.%*-]+)*\.json$/), z.base64()),
});

async function exportAll({ storage, config, out, err }: Work): Promise<boolean> {
  const found = await recordsIn(storage, config);
  const whole = found.filter(({ bytes }) => bytes !== undefined);
  const records = Object.fromEntries(whole.map(({ name, bytes }) => [name, bytes!.toString('base64')]));
  out.write(`${JSON.stringify({ format: 'dstack-ingress store 1', records }, null, 2)}\n`);
  for (const { problem } of found) if (problem !== undefined) err.write(`left out: ${problem}\n`);
  err.write('what was printed holds private keys in the clear: keep it where nobody else reads\n');
  return whole.length === found.length;
}

async function importAll(work: Work): Promise<boolean> {
  const { storage, config, out, err, replace } = work;
  const parsed = ExportSchema.safeParse(parseJson(await text(work.in)));
  if (!parsed.success) throw new Error('what is on stdin is no export: wants what store export prints');
  const lock = `${directoryFolder(config.acme.directoryUrl)}/lock`;
  const left: string[] = [];
  await storage.lease(lock, AbortSignal.timeout(DEADLINE_MS), async (lease) => {
    for (const [name, base64] of Object.entries(parsed.data.records)) {
      const bytes = Buffer.from(base64, 'base64');
      const there = await storage.read(name);
      if (there?.bytes.equals(bytes)) continue;
      const written =
        there === undefined
          ? await storage.create(name, bytes, { lease })
          : replace && (await storage.replace(name, bytes, there.version, { lease }));
      if (written) out.write(`${name}\n`);
      else left.push(name);
    }
  });
  for (const name of left) err.write(`left as it is: ${name}\n`);
  return left.length === 0;
}

function parseJson(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

async function migrate({ storage, config, out, err }: Work): Promise<boolean> {
  const { copied, left } = await migrateState(config, storage, silentLog);
  for (const name of copied) out.write(`${name}\n`);
  if (left !== undefined) err.write(`nothing was taken over: ${left}\n`);
  return left === undefined;
}
