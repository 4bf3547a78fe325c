// Takes over the account and the certificates that an earlier image left in the state folder; done once.

import { createPublicKey } from 'node:crypto';
import type { Domain } from '../src/lib/domain.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import { type FoundState, readCertbot } from './certbot.ts';
import { tellExposedKeys } from './exposed-keys.ts';
import { readLego } from './lego.ts';
import { pick, sameSet } from './selection.ts';
import { NOTHING, type Store } from './store.ts';

export interface AdoptOptions {
  stateDir: string;
  directoryUrl: string;
  /** As in ManagerOptions. */
  wanted: readonly (readonly Domain[])[];
  store: Store;
  /** Whether the account key is derived: then the earlier account cannot be used. */
  derivedKey?: boolean;
  now?: Date;
  log?: Log;
}

/**
 * Copies into our own state. The earlier files stay as they are, so that the earlier image can be started again. Never
 * replaces our own account, nor a certificate that ends later. Contacts nobody. Resolves to the reason why no new account
 * may be made, for AcmeOptions.refuseToRegister. Rejects when our own state cannot be read or written.
 */
export async function adoptEarlierState(options: AdoptOptions): Promise<string | undefined> {
  const { stateDir, directoryUrl, log = silentLog } = options;
  await tellExposedKeys(stateDir, log);
  // We have an account: then this was done before, or there was nothing to take over.
  const ours = await options.store.readAccount();
  if (ours?.url !== undefined) return undefined;
  const found = [
    await readCertbot(stateDir, directoryUrl, log),
    await readLego(`${stateDir}/lego`, directoryUrl, log),
  ];
  // The account comes last, because it marks that all is done.
  for (const state of found) await adoptCertificates(state, options);
  const account = found.find((state) => state.account !== undefined)?.account;
  // A new account would silently break the CAA pin of the earlier one.
  if (account === undefined) return found.find((state) => state.unclear !== undefined)?.unclear;
  const { key, url } = account;
  if (options.derivedKey === true) {
    log.warn(
      { account: url, from: account.from },
      'account of an earlier image is left: the account key is derived',
    );
    return undefined;
  }
  await options.store.writeAccount({ key, url, publicKey: publicKeyOf(key) }, ours ?? NOTHING);
  log.info({ account: account.url, from: account.from }, 'account of an earlier image adopted');
  return undefined;
}

async function adoptCertificates({ certificates }: FoundState, options: AdoptOptions): Promise<void> {
  const { wanted, store, now = new Date(), log = silentLog } = options;
  for (const names of wanted) {
    const valid = certificates
      .filter((each) => each.notAfter > now)
      .sort((a, b) => +b.notAfter - +a.notAfter);
    // A certificate for fewer names serves until there is one for all.
    const fitting =
      valid.find((each) => sameSet(each.names, names)) ??
      valid.find((each) => each.names.includes(names[0]!));
    if (fitting === undefined) continue;
    const ours = pick(await store.readCertificates(), names);
    if (ours !== undefined && ours.notAfter >= fitting.notAfter) continue;
    await store.keepCertificate({
      ...fitting,
      names: [names[0]!, ...fitting.names.filter((name) => name !== names[0])],
    });
    log.info({ domain: names[0], serial: fitting.serial }, 'certificate of an earlier image adopted');
  }
}

/** As a JWK with its members in the order of RFC 7638. */
function publicKeyOf(key: string): Record<string, string> {
  const jwk = createPublicKey(key).export({ format: 'jwk' }) as Record<string, string>;
  return Object.fromEntries(Object.entries(jwk).sort(([a], [b]) => (a < b ? -1 : 1)));
}
