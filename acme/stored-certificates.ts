// Certificates as they are kept: each with its key in one record, so that no crash can leave one without the other.

import { createHash } from 'node:crypto';
import * as z from 'zod';
import { type Certificate, CertificateError, readCertificate } from '../src/lib/certificate.ts';
import { type Domain, DomainError, parseDomain } from '../src/lib/domain.ts';
import { GuardedFileError } from '../src/lib/guarded-file.ts';
import type { Log } from '../src/lib/log.ts';
import { NOT_WRITTEN, type Records } from './records.ts';
import { type Storage, StorageError } from './storage.ts';

/** A stored certificate that cannot be served. */
export interface DamagedCertificate {
  readonly path: string;
  readonly why: string;
}

export interface StoredCertificates {
  readAll(): Promise<Certificate[]>;
  damaged(name: Domain): Promise<DamagedCertificate[]>;
  write(certificate: Certificate): Promise<void>;
  /** See Store.hasNewer. */
  hasNewer(name: Domain, than: Certificate | undefined): Promise<boolean>;
}

const CertificateSchema = z.object({ name: z.string(), chain: z.string(), key: z.string() });

export function createStoredCertificates(
  folder: string,
  { storage, records, log }: { storage: Storage; records: Records; log: Log },
): StoredCertificates {
  /** What each record held when it was read last: an unchanged text is not parsed again. */
  const parsed = new Map<string, { text: string; certificate: Certificate }>();
  const recordOf = (name: Domain) => `${folder}/${fileName(name)}.json`;

  async function read(record: string): Promise<Certificate | undefined> {
    const name = `${folder}/${record}`;
    try {
      const text = (await storage.read(name))?.bytes.toString('utf8');
      if (text === undefined) return undefined;
      const known = parsed.get(record);
      if (known?.text === text) return known.certificate;
      const certificate = parseStored(text);
      parsed.set(record, { text, certificate });
      return certificate;
    } catch (error) {
      const path = storage.place(name);
      if (isDiskError(error)) log.error({ path, err: error }, 'certificate cannot be read from disk');
      else await storage.setAside(name, redacted(error));
      return undefined;
    }
  }

  /** Undefined if it loads after all: another OpenSSL may have set it aside. */
  async function judgeDamaged(record: string): Promise<DamagedCertificate | undefined> {
    const name = `${folder}/${record}`;
    try {
      parseStored((await storage.read(name))?.bytes.toString('utf8') ?? '');
      return undefined;
    } catch (error) {
      return { path: storage.place(name), why: redacted(error).message };
    }
  }

  return {
    async readAll() {
      const names = (await storage.list(folder)).filter((record) => record.endsWith('.json')).sort();
      const found = await Promise.all(names.map(read));
      return found.filter((certificate) => certificate !== undefined);
    },
    async damaged(name) {
      const start = `${fileName(name)}.json.`;
      const candidates = (await storage.list(folder))
        .filter(
          (record) => `${record}.` === start || (record.startsWith(start) && record.endsWith('.damaged')),
        )
        .sort()
        .reverse();
      const found = await Promise.all(candidates.map(judgeDamaged));
      return found.filter((each) => each !== undefined);
    },
    write(certificate) {
      const { names, chain, key } = certificate;
      const name = names[0]!;
      const value = { name, chain, key };
      return records.write(recordOf(name), value, CertificateSchema, (before) =>
        isNewer(before, certificate) ? undefined : value,
      );
    },
    async hasNewer(name, than) {
      const there = await records.read(recordOf(name), CertificateSchema, { current: true });
      return than === undefined ? there !== undefined : isNewer(there, than);
    },
  };
}

/** A process that was suspended comes back with what it obtained long ago: what was issued last stays. */
function isNewer(there: z.infer<typeof CertificateSchema> | undefined, than: Certificate): boolean {
  if (there === undefined) return false;
  try {
    return readCertificate(there.chain, there.key).notBefore > than.notBefore;
  } catch {
    return false;
  }
}

/** A domain has no underscore, and a file name at most 255 bytes with what atomic writes add. */
export function fileName(name: Domain): string {
  const plain = name.replace('*', '_');
  if (plain.length <= 200) return plain;
  return `${plain.slice(0, 150)}_${createHash('sha256').update(name).digest('hex').slice(0, 32)}`;
}

/** Throws what readCertificate throws, or the error of a parser if the text is no such file. */
function parseStored(text: string): Certificate {
  const stored = JSON.parse(text) as { name?: unknown; chain?: unknown; key?: unknown };
  const name = parseDomain(String(stored.name));
  return withFirst(readCertificate(String(stored.chain), String(stored.key), name), name);
}

function withFirst(certificate: Certificate, first: Domain): Certificate {
  return { ...certificate, names: [first, ...certificate.names.filter((name) => name !== first)] };
}

function isDiskError(error: unknown): boolean {
  if (error instanceof StorageError) return true;
  return error instanceof GuardedFileError || typeof (error as NodeJS.ErrnoException).syscall === 'string';
}

/** Parsers quote what they read, and in a damaged file a key may stand anywhere. */
function redacted(error: unknown): Error {
  if (error instanceof CertificateError || error instanceof StorageError) return error;
  const why = error instanceof DomainError ? 'one of its names is no domain name' : NOT_WRITTEN;
  return new Error(why);
}
