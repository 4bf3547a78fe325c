// Certificates on disk: each with its key in one file, so that no crash can leave one without the other.

import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { readFileIfPresent } from '../src/lib/atomic-file.ts';
import { type Certificate, CertificateError, readCertificate } from '../src/lib/certificate.ts';
import { type Domain, DomainError, parseDomain } from '../src/lib/domain.ts';
import { GuardedFileError } from '../src/lib/guarded-file.ts';
import type { Log } from '../src/lib/log.ts';
import { filesIn, NOT_WRITTEN, type StateFiles } from './state-files.ts';

/** A stored certificate that cannot be served. */
export interface DamagedCertificate {
  readonly path: string;
  readonly why: string;
}

export interface CertificateFiles {
  readAll(): Promise<Certificate[]>;
  damaged(name: Domain): Promise<DamagedCertificate[]>;
  write(certificate: Certificate): Promise<void>;
}

export function createCertificateFiles(folder: string, files: StateFiles, log: Log): CertificateFiles {
  /** What each file held when it was read last: an unchanged text is not parsed again. */
  const parsed = new Map<string, { text: string; certificate: Certificate }>();

  async function read(file: string): Promise<Certificate | undefined> {
    const path = join(folder, file);
    try {
      const text = (await readFileIfPresent(path))?.toString('utf8');
      if (text === undefined) return undefined;
      const known = parsed.get(file);
      if (known?.text === text) return known.certificate;
      const certificate = parseStored(text);
      parsed.set(file, { text, certificate });
      return certificate;
    } catch (error) {
      if (isDiskError(error)) log.error({ path, err: error }, 'certificate cannot be read from disk');
      else await files.setAside(path, redacted(error));
      return undefined;
    }
  }

  return {
    async readAll() {
      const names = (await filesIn(folder)).filter((file) => file.endsWith('.json')).sort();
      const found = await Promise.all(names.map(read));
      return found.filter((certificate) => certificate !== undefined);
    },
    async damaged(name) {
      const start = `${fileName(name)}.json.`;
      const candidates = (await filesIn(folder))
        .filter((file) => `${file}.` === start || (file.startsWith(start) && file.endsWith('.damaged')))
        .sort()
        .reverse();
      const found = await Promise.all(candidates.map((file) => judgeDamaged(join(folder, file))));
      return found.filter((each) => each !== undefined);
    },
    write({ names, chain, key }) {
      const name = names[0]!;
      return files.write(join(folder, `${fileName(name)}.json`), { name, chain, key });
    },
  };
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

/** Undefined if it loads after all: another OpenSSL may have set it aside. */
async function judgeDamaged(path: string): Promise<DamagedCertificate | undefined> {
  try {
    parseStored((await readFileIfPresent(path))?.toString('utf8') ?? '');
    return undefined;
  } catch (error) {
    return { path, why: redacted(error).message };
  }
}

function withFirst(certificate: Certificate, first: Domain): Certificate {
  return { ...certificate, names: [first, ...certificate.names.filter((name) => name !== first)] };
}

function isDiskError(error: unknown): boolean {
  return error instanceof GuardedFileError || typeof (error as NodeJS.ErrnoException).syscall === 'string';
}

/** Parsers quote what they read, and in a damaged file a key may stand anywhere. */
function redacted(error: unknown): Error {
  if (error instanceof CertificateError) return error;
  const why = error instanceof DomainError ? 'one of its names is no domain name' : NOT_WRITTEN;
  return new Error(why);
}
