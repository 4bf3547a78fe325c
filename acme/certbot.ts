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
  /** Undefined if there is none, or several and nothing says which. */
  readonly account: FoundAccount | undefined;
  /** Why there is an account but none that could be taken. */
  readonly unclear: string | undefined;
  readonly certificates: readonly Certificate[];
}

interface RenewalConf {
  readonly lineage: string;
  readonly account: string | undefined;
  readonly server: string | undefined;
}

/** Damaged parts are reported and left out; nothing in `folder` is changed. */
export async function readCertbot(
  folder: string,
  directoryUrl: string,
  log: Log = silentLog,
): Promise<FoundState> {
  const confs = (await readConfs(folder, log)).filter((conf) => conf.server === directoryUrl);
  const { accounts, damaged } = await readAccounts(folder, directoryUrl, log);
  // certbot renews with the account that the renewal conf names: CAA pins are about that one.
  const named = new Set(confs.map((conf) => conf.account));
  const fitting = accounts.length > 1 ? accounts.filter((each) => named.has(each.id)) : accounts;
  const account = fitting.length === 1 ? fitting[0] : undefined;
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
  const urls = accounts.map((each) => each.url).join(', ');
  const several =
    accounts.length > 1 ? `${folder} has several certbot accounts and does not say which: ${urls}` : damaged;
  return {
    account: account && { url: account.url, key: account.key, from: account.from },
    unclear: account === undefined ? several : undefined,
    certificates,
  };
}

async function readConfs(tree: string, log: Log): Promise<RenewalConf[]> {
  const folder = join(tree, 'renewal');
  const confs: RenewalConf[] = [];
  for (const file of (await entries(folder)).filter((each) => each.endsWith('.conf'))) {
    const path = join(folder, file);
    try {
      const text = await readWithin(tree, path);
      const value = (name: string) => new RegExp(`^\\s*${name}\\s*=\\s*(\\S+)\\s*$`, 'm').exec(text)?.[1];
      const lineage = file.slice(0, -'.conf'.length);
      confs.push({ lineage, account: value('account'), server: value('server') });
    } catch (err) {
      log.warn({ file: path, err }, 'certbot renewal file cannot be read');
    }
  }
  return confs;
}

/** certbot's `live` is links into its `archive`: they are followed, and not out of the tree. */
export async function readWithin(tree: string, path: string): Promise<string> {
  return (await readGuardedFile(path, { links: { within: tree } })).toString('utf8');
}

interface CertbotAccount extends FoundAccount {
  readonly id: string;
}

/** accounts/<host>/<path>/<id>/{regr,private_key}.json; the path may be a link to that of the older API. */
async function readAccounts(folder: string, directoryUrl: string, log: Log) {
  const { host, pathname } = new URL(directoryUrl);
  const parent = join(folder, 'accounts', host, pathname);
  const accounts: CertbotAccount[] = [];
  let damaged: string | undefined;
  for (const id of await entries(parent)) {
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

async function entries(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}
