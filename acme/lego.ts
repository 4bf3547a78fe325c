// What a lego volume holds for one ACME directory: the account and the certificates, as lego 4 or 5 wrote them. Reads only.

import { createPrivateKey } from 'node:crypto';
import { join } from 'node:path';
import { type Certificate, readCertificate } from '../src/lib/certificate.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import { entries, type FoundAccount, type FoundState, readWithin } from './certbot.ts';

/** `folder` has `accounts` and `certificates`. Logs damaged parts and leaves them out. Changes nothing. */
export async function readLego(
  folder: string,
  directoryUrl: string,
  log: Log = silentLog,
): Promise<FoundState> {
  const { accounts, damaged } = await readAccounts(folder, directoryUrl, log);
  const account = accounts.length === 1 ? accounts[0] : undefined;
  const urls = accounts.map((each) => each.url).join(', ');
  const several = accounts.length > 1 ? `${folder} has several lego accounts: ${urls}` : damaged;
  const certificates = await readCertificates(folder, new URL(directoryUrl).host, log);
  return { account, unclear: account === undefined ? several : undefined, certificates };
}

/** Version 4: accounts/<host[_port]>/<email>/{account.json,keys/<email>.key}; version 5: the key beside, under its id. */
async function readAccounts(folder: string, directoryUrl: string, log: Log) {
  const server = join(folder, 'accounts', new URL(directoryUrl).host.replaceAll(':', '_'));
  const accounts: FoundAccount[] = [];
  let damaged: string | undefined;
  const ids = await entries(server).catch((err: unknown) => {
    log.warn({ folder: server, err }, 'lego accounts cannot be listed');
    damaged = `the lego accounts in ${server} cannot be read`;
    return [];
  });
  for (const id of ids) {
    const from = join(server, id);
    try {
      const account = JSON.parse(await readWithin(folder, join(from, 'account.json'))) as {
        registration?: { uri?: unknown; accountURL?: unknown };
      };
      const url = account.registration?.uri ?? account.registration?.accountURL;
      if (typeof url !== 'string' || !URL.canParse(url)) throw new Error('account.json names no account URL');
      const files = [join(from, 'keys', `${id}.key`), join(from, `${id}.key`)];
      accounts.push({ url, key: await readKey(folder, files), from });
    } catch (error) {
      const why = error instanceof SyntaxError ? new Error('it is not JSON') : error;
      log.warn({ account: from, err: why }, 'lego account cannot be read');
      damaged = `the lego account in ${from} cannot be read`;
    }
  }
  return { accounts, damaged };
}

/** lego 4 writes SEC1 and PKCS#1; our signer needs PKCS#8. */
async function readKey(tree: string, files: readonly string[]): Promise<string> {
  for (const file of files) {
    const pem = await readWithin(tree, file).catch(() => undefined);
    if (pem === undefined) continue;
    try {
      return createPrivateKey(pem).export({ type: 'pkcs8', format: 'pem' }).toString();
    } catch {
      // The parser's error may quote the key, so it is not passed on.
      throw new Error(`the key ${file} cannot be parsed`);
    }
  }
  throw new Error('its key is missing');
}

/** <name>.json says which CA issued the certificate; without it, it could be one of staging. */
async function readCertificates(tree: string, host: string, log: Log): Promise<Certificate[]> {
  const folder = join(tree, 'certificates');
  const found: Certificate[] = [];
  const files = await entries(folder).catch((err: unknown) => {
    log.warn({ folder, err }, 'lego certificates cannot be listed');
    return [];
  });
  for (const file of files.filter((each) => each.endsWith('.json'))) {
    const path = join(folder, file.slice(0, -'.json'.length));
    try {
      const about = JSON.parse(await readWithin(tree, `${path}.json`)) as { certUrl?: unknown };
      if (!URL.canParse(String(about.certUrl)) || new URL(String(about.certUrl)).host !== host) continue;
      found.push(
        readCertificate(await readWithin(tree, `${path}.crt`), await readWithin(tree, `${path}.key`)),
      );
    } catch (err) {
      log.warn({ certificate: path, err }, 'lego certificate cannot be read');
    }
  }
  return found;
}
