// What a certbot volume holds for one ACME directory: the account and the certificates. Reads only.

import { createPrivateKey, type webcrypto } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Certificate, readCertificate } from '../src/lib/certificate.ts';
import { readGuardedFile } from '../src/lib/guarded-file.ts';
import { type Log, silentLog } from '../src/lib/log.ts';

export interface FoundAccount {
  readonly url: string;
  /** PEM, PKCS#8. Secret. */
  readonly key: string;
  /** The folder it was read from. */
  readonly from: string;
}

export interface FoundState {
  /** Undefined if there is none, or if there are several and nothing says which is in use. */
  readonly account: FoundAccount | undefined;
  /** Why an account that exists could not be taken. */
  readonly unclear: string | undefined;
  readonly certificates: readonly Certificate[];
}

interface RenewalConf {
  readonly lineage: string;
  readonly account: string | undefined;
  readonly server: string | undefined;
}

/** Logs damaged parts and leaves them out. Changes nothing in `folder`. */
export async function readCertbot(
  folder: string,
  directoryUrl: string,
  log: Log = silentLog,
): Promise<FoundState> {
  const { confs, unread } = await readConfs(folder, log);
  const ours = confs.filter((conf) => conf.server === directoryUrl);
  const { accounts, damaged } = await readAccounts(folder, directoryUrl, log);
  // certbot renews with the account that the renewal conf names: CAA pins are about that one.
  const named = new Set(ours.map((conf) => conf.account));
  const fitting = accounts.length > 1 ? accounts.filter((each) => named.has(each.id)) : accounts;
  const account = fitting.length === 1 ? fitting[0] : undefined;
  const several =
    accounts.length > 1
      ? [
          `${folder} has several certbot accounts and does not say which: ${accounts.map(({ url }) => url).join(', ')}`,
          ...unread.map((path) => `${path} cannot be read`),
        ].join('; ')
      : damaged;
  return {
    account: account && { url: account.url, key: account.key, from: account.from },
    unclear: account === undefined ? several : undefined,
    certificates: await readCertificates(folder, ours, log),
  };
}

async function readCertificates(
  folder: string,
  confs: readonly RenewalConf[],
  log: Log,
): Promise<Certificate[]> {
  const certificates: Certificate[] = [];
  for (const { lineage } of confs) {
    const live = join(folder, 'live', lineage);
    try {
      const chain = await readWithin(folder, join(live, 'fullchain.pem'));
      certificates.push(readCertificate(chain, await readWithin(folder, join(live, 'privkey.pem'))));
    } catch (err) {
      log.warn({ lineage: live, err }, 'certbot certificate cannot be read');
    }
  }
  return certificates;
}

/** `unread` are the paths of those that were set aside because they cannot be read. */
async function readConfs(tree: string, log: Log): Promise<{ confs: RenewalConf[]; unread: string[] }> {
  const folder = join(tree, 'renewal');
  const confs: RenewalConf[] = [];
  const unread: string[] = [];
  const files = await entries(folder).catch((err: unknown) => {
    log.warn({ folder, err }, 'certbot renewal files cannot be listed');
    unread.push(folder);
    return [];
  });
  for (const file of files.filter((each) => each.endsWith('.conf'))) {
    const path = join(folder, file);
    try {
      const text = await readWithin(tree, path);
      const value = (name: string) => new RegExp(`^\\s*${name}\\s*=\\s*(\\S+)\\s*$`, 'm').exec(text)?.[1];
      const lineage = file.slice(0, -'.conf'.length);
      confs.push({ lineage, account: value('account'), server: value('server') });
    } catch (err) {
      log.warn({ file: path, err }, 'certbot renewal file set aside, the others are adopted');
      unread.push(path);
    }
  }
  return { confs, unread };
}

/** Follows links, as certbot's `live` links into its `archive`, but never out of the tree. */
export async function readWithin(tree: string, path: string): Promise<string> {
  return (await readGuardedFile(path, { links: { within: tree } })).toString('utf8');
}

interface CertbotAccount extends FoundAccount {
  readonly id: string;
}

/** accounts/<host>/<path>/<id>/{regr,private_key}.json; the path may be a link to the folder of the older API. */
async function readAccounts(folder: string, directoryUrl: string, log: Log) {
  const { host, pathname } = new URL(directoryUrl);
  const parent = join(folder, 'accounts', host, pathname);
  const accounts: CertbotAccount[] = [];
  let damaged: string | undefined;
  const ids = await entries(parent).catch((err: unknown) => {
    log.warn({ folder: parent, err }, 'certbot accounts cannot be listed');
    damaged = `the certbot accounts in ${parent} cannot be read`;
    return [];
  });
  for (const id of ids) {
    const from = join(parent, id);
    try {
      const { uri } = JSON.parse(await readWithin(folder, join(from, 'regr.json'))) as { uri: unknown };
      const jwk = JSON.parse(
        await readWithin(folder, join(from, 'private_key.json')),
      ) as webcrypto.JsonWebKey;
      const key = createPrivateKey({ key: jwk, format: 'jwk' })
        .export({ type: 'pkcs8', format: 'pem' })
        .toString();
      if (typeof uri !== 'string' || !URL.canParse(uri)) throw new Error('regr.json names no account URL');
      accounts.push({ id, url: uri, key, from });
    } catch (error) {
      // Parsers quote what they read, and this is a key.
      const why = error instanceof SyntaxError ? new Error('it is not JSON') : error;
      log.warn({ account: from, err: why }, 'certbot account cannot be read');
      damaged = `the certbot account in ${from} cannot be read`;
    }
  }
  return { accounts, damaged };
}

/** What a folder of an earlier image holds; empty if it is not there. */
export async function entries(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}
