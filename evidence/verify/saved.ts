// What was seen of a host, kept in a folder: for judging it again later and elsewhere, and for others to look at.

import { X509Certificate } from 'node:crypto';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { whyUnwritable } from '../../src/lib/atomic-file.ts';
import { CodedError } from '../../src/lib/coded-error.ts';
import { readGuardedFile } from '../../src/lib/guarded-file.ts';
import { FLEET_FILE } from '../fleet.ts';
import { type Collateral, parseCollateral } from './collateral.ts';
import { sha256 } from './documents.ts';
import { type Fetched, notAsked, ownConnection, type Seen, type SeenConnection } from './seen.ts';

export class SavedError extends CodedError<'not-empty' | 'not-writable' | 'not-saved' | 'unintelligible'> {
  override readonly name = 'SavedError';
}

const SEEN = 'seen.json';
const COLLATERAL = 'quote-collateral.json';
const WIRE = 'wire.pem';
const ATTEST = 'attest.json';
const FILES = 'evidences';
const VERSION = 1;

/** Makes the folder; one that holds anything is refused, so that nothing is mixed. Rejects with SavedError. */
export async function prepareFolder(folder: string): Promise<void> {
  const found = await writing(folder, async () => {
    await mkdir(folder, { recursive: true });
    return readdir(folder);
  });
  if (found.length > 0)
    throw new SavedError('not-empty', `${folder} is not empty: name a folder that is not there yet`);
}

async function writing<T>(folder: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (cause) {
    throw new SavedError('not-writable', `${folder} cannot be written: ${whyUnwritable(cause)}`, { cause });
  }
}

/**
 * The files as they came under `evidences/`, the answer to our nonce, the collateral, the certificates of the connection,
 * and in seen.json the rest. Rejects with SavedError.
 */
export async function saveSeen(folder: string, seen: Seen): Promise<void> {
  await prepareFolder(folder);
  await writing(folder, () => writeAll(folder, seen));
}

async function writeAll(folder: string, seen: Seen): Promise<void> {
  await mkdir(join(folder, FILES));
  const { bundle, statement, history, fleet, attest, collateral } = seen;
  const kept = [
    ['sha256sum.txt', bundle.sums],
    ['quote.json', bundle.quote],
    ...bundle.files,
    ['attestation.json', statement],
    ['history.jsonl', history],
    [FLEET_FILE, fleet ?? notAsked('it was not asked for')],
  ] as const;
  for (const [name, file] of kept) await keep(join(folder, FILES, nameOnDisk(name)), file);
  await keep(join(folder, ATTEST), attest.answer);
  if (collateral !== undefined) await writeFile(join(folder, COLLATERAL), JSON.stringify(collateral));
  await writeFile(join(folder, WIRE), (ownConnection(seen)?.chain ?? []).map(pem).join(''));
  await writeFile(join(folder, SEEN), `${JSON.stringify(withoutBodies(seen), undefined, 2)}\n`);
}

const LONGEST_NAME_ON_DISK = 255;

/** A host may choose names that no disk takes. */
function nameOnDisk(name: string): string {
  return name.length > LONGEST_NAME_ON_DISK ? sha256(Buffer.from(name)) : name;
}

async function keep(path: string, file: Fetched): Promise<void> {
  if (file.state === 'got') await writeFile(path, file.body);
}

function pem(der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}

type SavedSeen = z.infer<typeof savedSchema>;

function withoutBodies(seen: Seen): SavedSeen {
  const { bundle, statement, history, fleet, attest, collateral: _, connections, ...rest } = seen;
  return {
    version: VERSION,
    ...rest,
    dns: seen.dns as SavedSeen['dns'],
    ct: seen.ct as SavedSeen['ct'],
    proofs: seen.proofs as SavedSeen['proofs'],
    connections: connections.map(({ chain, spki, protocol, distrust }) => ({
      chain: chain.map((der) => der.toString('base64')),
      spki: spki.toString('base64'),
      protocol,
      distrust,
    })),
    connection: bundle.connection,
    sums: withoutBody(bundle.sums),
    quote: withoutBody(bundle.quote),
    files: [...bundle.files].map(([name, file]) => ({ name, ...withoutBody(file) })),
    statement: withoutBody(statement),
    history: withoutBody(history),
    ...(fleet !== undefined && { fleet: withoutBody(fleet) }),
    attest: { ...attest, answer: withoutBody(attest.answer) },
  };
}

function withoutBody(file: Fetched): z.infer<typeof fileSchema> {
  return file.state === 'got' ? { state: 'got' } : file;
}

const fileSchema = z.discriminatedUnion('state', [
  z.object({ state: z.literal('got') }),
  z.object({ state: z.enum(['absent', 'refused', 'missing']), why: z.string() }),
]);
const named = z.object({ name: z.string().regex(/^[\w*-][\w.*-]*$/) });
const texts = z.array(z.string());
const hex = z.string().regex(/^([0-9a-f]{2})*$/);
const serverSchema = z.object({
  server: z.string(),
  caa: z.array(z.object({ name: z.string(), values: texts })).optional(),
  alias: texts.optional(),
  app: texts.optional(),
  authentic: z.boolean().optional(),
  why: z.string().optional(),
});
const loggedSchema = z.object({
  id: z.string(),
  names: texts,
  notBefore: z.string().optional(),
  notAfter: z.string(),
  spki: z.string().optional(),
  sha256: z.string().optional(),
  serial: z.string().optional(),
  issuer: z.string().optional(),
});
const savedSchema = z.object({
  version: z.literal(VERSION),
  host: z.string(),
  port: z.int(),
  at: z.iso.datetime(),
  unreachable: z.string().optional(),
  withoutCollateral: z.string().optional(),
  connections: z.array(
    z.object({
      chain: z.array(z.base64()).min(1),
      spki: z.base64(),
      protocol: z.string(),
      distrust: z.string().optional(),
    }),
  ),
  connection: z.int(),
  sums: fileSchema,
  quote: fileSchema,
  files: z.array(z.intersection(named, fileSchema)),
  statement: fileSchema,
  history: fileSchema,
  /** Folders of earlier versions have none. */
  fleet: fileSchema.optional(),
  attest: z.object({
    answer: fileSchema,
    nonce: z.string(),
    exporter: z.string(),
    connection: z.int(),
  }),
  dns: z.object({
    resolvers: z.array(serverSchema),
    authority: z.array(serverSchema),
    why: z.string().optional(),
  }),
  proofs: z
    .array(
      z.object({
        log: z.string(),
        logId: hex,
        key: z.base64(),
        index: z.int().min(0).optional(),
        head: z
          .object({
            size: z.int().min(0),
            root: hex,
            signatures: z.array(z.object({ time: hex, signature: hex })),
          })
          .optional(),
        path: z.array(hex).optional(),
        why: z.string().optional(),
      }),
    )
    .default([]),
  ct: z.array(
    z.object({ source: z.string(), found: z.array(loggedSchema).optional(), why: z.string().optional() }),
  ),
});

/** Rejects with SavedError if the folder does not hold what saveSeen writes. */
export async function loadSeen(folder: string): Promise<Seen> {
  const saved = await readSeen(folder);
  const body = (path: string, file: z.infer<typeof fileSchema>) => restore(join(folder, path), file);
  const {
    sums,
    quote,
    files,
    statement,
    history,
    fleet,
    attest,
    connections,
    connection,
    version: _,
    ...rest
  } = saved;
  const bodies = await Promise.all(
    files.map(async (file) => [file.name, await body(`${FILES}/${nameOnDisk(file.name)}`, file)] as const),
  );
  const collateral = await readWithin(join(folder, COLLATERAL)).catch(() => undefined);
  return {
    ...rest,
    connections: connections.map((one) => restoreConnection(folder, one)),
    bundle: {
      connection,
      sums: await body(`${FILES}/sha256sum.txt`, sums),
      quote: await body(`${FILES}/quote.json`, quote),
      files: new Map(bodies),
    },
    statement: await body(`${FILES}/attestation.json`, statement),
    history: await body(`${FILES}/history.jsonl`, history),
    ...(fleet !== undefined && { fleet: await body(`${FILES}/${FLEET_FILE}`, fleet) }),
    attest: { ...attest, answer: await body(ATTEST, attest.answer) },
    collateral: collateral === undefined ? undefined : restoreCollateral(folder, collateral),
    dns: {
      ...rest.dns,
      resolvers: rest.dns.resolvers.map(whole),
      authority: rest.dns.authority.map(whole),
    },
    proofs: rest.proofs.map(({ log, logId, key, index, head, path, why }) => ({
      log,
      logId,
      key,
      index,
      head,
      path,
      why,
    })),
    ct: rest.ct.map(({ source, found, why }) => ({
      source,
      found: found?.map(({ notBefore, ...one }) => ({ ...one, notBefore })),
      why,
    })),
  };
}

function restoreConnection(
  folder: string,
  { chain, spki, protocol, distrust }: SavedSeen['connections'][number],
): SeenConnection {
  const ders = chain.map((der) => Buffer.from(der, 'base64'));
  const key = Buffer.from(spki, 'base64');
  if (!spkiIn(ders[0]!)?.equals(key))
    throw new SavedError('unintelligible', `${join(folder, SEEN)} has a connection without its certificate`);
  return { chain: ders, spki: key, protocol, distrust };
}

function spkiIn(der: Buffer): Buffer | undefined {
  try {
    return new X509Certificate(der).publicKey.export({ type: 'spki', format: 'der' });
  } catch {
    return undefined;
  }
}

function restoreCollateral(folder: string, body: Buffer): Collateral {
  try {
    return parseCollateral(body.toString('utf8'));
  } catch (cause) {
    throw new SavedError('unintelligible', `${join(folder, COLLATERAL)}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function whole({ server, caa, alias, app, authentic, why }: z.infer<typeof serverSchema>) {
  return { server, caa, alias, app, authentic, why };
}

async function readSeen(folder: string): Promise<SavedSeen> {
  let text: string;
  try {
    text = (await readWithin(join(folder, SEEN))).toString('utf8');
  } catch (cause) {
    throw new SavedError('not-saved', `${folder} holds no ${SEEN}: is it a folder that --save made?`, {
      cause,
    });
  }
  try {
    return savedSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new SavedError('unintelligible', `${join(folder, SEEN)} is not what --save writes`, { cause });
  }
}

async function restore(path: string, file: z.infer<typeof fileSchema>): Promise<Fetched> {
  if (file.state !== 'got') return file;
  try {
    return { state: 'got', body: await readWithin(path) };
  } catch (cause) {
    throw new SavedError('unintelligible', `${path} cannot be read, and ${SEEN} says that it is there`, {
      cause,
    });
  }
}

function readWithin(path: string): Promise<Buffer> {
  return readGuardedFile(path, { links: 'followed' });
}
