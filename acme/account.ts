// The account at the CA: looked up before one is made, never exchanged silently, and published as a document.

import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import * as z from 'zod';
import { CodedError } from '../src/lib/coded-error.ts';
import { type Log, silentLog } from '../src/lib/log.ts';
import { isPrivateKey } from '../src/lib/private-key.ts';
import { AcmeProblem, absentIfNull, isBusy, readObject } from './answer.ts';
import { NOTHING, type Store } from './store.ts';
import type { StoredAccount } from './stored.ts';
import type { ExternalAccount, Session, Transport } from './transport.ts';

/** What evidence publishes: certbot's regr.json without contact data. */
export interface AccountDocument {
  readonly body: { readonly key?: Readonly<Record<string, string>> };
  /** The account's URL, which CAA pins as `accounturi` (RFC 8657 §3). */
  readonly uri: string;
}

export interface Account {
  readonly url: string;
  readonly document: AccountDocument;
  readonly session: Session;
}

export type AccountErrorCode =
  | 'account-gone'
  | 'account-changed'
  | 'account-refused'
  | 'account-key-differs'
  | 'account-key-fleeting'
  | 'account-key-damaged'
  | 'account-unclear'
  | 'key-change-impossible'
  | 'external-account-required';

/** Stops new orders until an operator has decided which account is to be used. */
export class AccountError extends CodedError<AccountErrorCode> {
  override readonly name = 'AccountError';
}

export interface AccountOptions {
  transport: Transport;
  store: Store;
  /** Sent to the CA when an account is made; optional (RFC 8555 §7.3). */
  email?: string | undefined;
  externalAccount?: ExternalAccount | undefined;
  /** PEM, PKCS#8: a derived key, which is then not written to disk. */
  key?: string | undefined;
  /** The reason why no new account may be made, if there is one. */
  refuseToRegister?: string | undefined;
  log?: Log;
}

const AnswerSchema = z.object({ status: absentIfNull(z.string()) });

/**
 * The account of this directory. If there may be one, it is looked up by its key (RFC 8555 §7.3.1); one is made only if
 * none was ever confirmed. Rejects with AccountError, StoreError, AcmeProblem or AcmeTransportError, and then no account
 * was made.
 */
export async function openAccount(options: AccountOptions, signal: AbortSignal): Promise<Account> {
  const { transport, store, log = silentLog } = options;
  const stored = await accountKey(options);
  const session = transport.session(options.key ?? stored.key!);
  const found = needsLookUp(options, stored)
    ? await lookUp(transport, session, signal, stored.url !== undefined)
    : undefined;
  const successor = found === undefined ? await finishedRollOver(options, stored, signal) : undefined;
  if (successor !== undefined) return successor;
  if (found === undefined && stored.url !== undefined) {
    throw new AccountError(
      'account-gone',
      `${transport.directoryUrl} does not know account ${stored.url}, to which earlier certificates and CAA records ` +
        `are bound: restore the state folder or check the directory URL; remove ${store.folder}/account.json to start anew`,
    );
  }
  if (found !== undefined && stored.url !== undefined && found !== stored.url) {
    throw new AccountError(
      'account-changed',
      `${transport.directoryUrl} says that our key belongs to account ${found}, but we are bound to ${stored.url}`,
    );
  }
  if (found === undefined && options.key === undefined) refuseIfUnclear(options);
  const made = found === undefined ? await register(options, session, signal) : undefined;
  const url = found ?? made!.url;
  if (stored.url === undefined) {
    await store.writeAccount({ ...stored, url, publicKey: { ...session.jwk } }, stored);
    log.info({ account: url, made: made?.isNew ?? false }, 'account ready');
  }
  return { url, session, document: documentOf(url, session.jwk) };
}

/**
 * Gives the account another key (RFC 8555 §7.3.5). Its URL stays, and so do all CAA pins. Both keys are on disk until the
 * CA has answered, so that a crash loses neither. Rejects with AcmeProblem or AcmeTransportError; the old key then stays.
 */
export async function rollOver(
  options: AccountOptions,
  account: Account,
  signal: AbortSignal,
): Promise<Account> {
  const { transport, store, log = silentLog } = options;
  const { keyChange } = await transport.directory(signal);
  const stored = await store.readAccount();
  if (keyChange === undefined || stored?.key === undefined) {
    const why = keyChange === undefined ? 'the CA offers no key change' : 'its key is derived';
    throw new AccountError(
      'key-change-impossible',
      `the key of account ${account.url} cannot be changed: ${why}`,
    );
  }
  const nextKey =
    stored.nextKey !== undefined && isPrivateKey(stored.nextKey) ? stored.nextKey : generateKey();
  const both = { ...stored, nextKey };
  await store.writeAccount(both, stored);
  const session = transport.session(nextKey);
  const inner = session.sign(keyChange, { account: account.url, oldKey: account.session.jwk });
  await account.session.post(keyChange, inner, { kid: account.url, signal });
  await store.writeAccount({ key: nextKey, url: account.url, publicKey: { ...session.jwk } }, both);
  log.info({ account: account.url }, 'account key changed');
  return { url: account.url, session, document: documentOf(account.url, session.jwk) };
}

/** Finishes a key change that the CA had made before the process was killed. */
async function finishedRollOver(
  { transport, store }: AccountOptions,
  stored: StoredAccount,
  signal: AbortSignal,
): Promise<Account | undefined> {
  const { nextKey, url } = stored;
  if (nextKey === undefined || url === undefined || !isPrivateKey(nextKey)) return undefined;
  const session = transport.session(nextKey);
  if ((await lookUp(transport, session, signal)) !== url) return undefined;
  await store.writeAccount({ key: nextKey, url, publicKey: { ...session.jwk } }, stored);
  return { url, session, document: documentOf(url, session.jwk) };
}

/** What is on disk, without asking the CA; undefined before the first registration. */
export async function storedDocument(store: Store): Promise<AccountDocument | undefined> {
  const stored = await store.readAccount();
  return stored?.url === undefined ? undefined : documentOf(stored.url, stored.publicKey);
}

/** A fresh P-256 key as PEM, PKCS#8. */
export function generateKey(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

async function accountKey(options: AccountOptions): Promise<StoredAccount> {
  const { store, key } = options;
  const stored = await store.readAccount();
  if (key !== undefined) {
    if (stored?.key !== undefined && !(isPrivateKey(stored.key) && samePublicKey(stored.key, key))) {
      throw new AccountError(
        'account-key-differs',
        `the state folder ${store.folder} holds an account with a key of its own, not the one configured: ` +
          'set ACME_ACCOUNT_KEY=file to go on with it, or remove account.json there to change to the other account',
      );
    }
    return stored ?? {};
  }
  if (stored?.key !== undefined) {
    if (isPrivateKey(stored.key)) return stored;
    throw new AccountError(
      'account-key-damaged',
      `the key in ${store.folder}/account.json cannot be read: restore that file, or remove it to start with a new account`,
    );
  }
  if (stored?.url !== undefined) {
    throw new AccountError(
      'account-key-differs',
      `account ${stored.url} in ${store.folder} was made with a derived key, which is no longer configured`,
    );
  }
  refuseIfUnclear(options);
  // The key is on disk before the CA sees it: without its key an account is lost.
  const fresh: StoredAccount = { key: generateKey() };
  await store.writeAccount(fresh, NOTHING);
  return fresh;
}

function refuseIfUnclear({ refuseToRegister }: AccountOptions): void {
  if (refuseToRegister === undefined) return;
  throw new AccountError('account-unclear', `no new account is made: ${refuseToRegister}`);
}

/**
 * No look-up is needed for a key that was never confirmed: newAccount returns the account that a killed process may have
 * made with it (RFC 8555 §7.3), and some CAs answer a look-up for an unknown key with errors that do not say so.
 */
function needsLookUp({ key, refuseToRegister }: AccountOptions, { url }: StoredAccount): boolean {
  return key !== undefined || url !== undefined || refuseToRegister !== undefined;
}

/**
 * RFC 8555 §7.3.1. Undefined if the CA does not know the key. Also undefined if the CA refuses to look for a key that was
 * never `confirmed`: newAccount then returns the existing account, if there is one.
 */
async function lookUp(
  transport: Transport,
  session: Session,
  signal: AbortSignal,
  confirmed = true,
): Promise<string | undefined> {
  const { newAccount } = await transport.directory(signal);
  try {
    const answer = await session.post(newAccount, { onlyReturnExisting: true }, { signal });
    return usable(transport, answer.data, answer.headers.location);
  } catch (error) {
    if (!(error instanceof AcmeProblem)) throw error;
    if (error.type === 'accountDoesNotExist') return undefined;
    if (!confirmed && error.status < 500 && !isBusy(error) && error.type !== 'badNonce') return undefined;
    throw error;
  }
}

interface Registered {
  readonly url: string;
  /** Whether the CA made it now; otherwise it existed before. */
  readonly isNew: boolean;
}

async function register(options: AccountOptions, session: Session, signal: AbortSignal): Promise<Registered> {
  const { transport, email, externalAccount, log = silentLog } = options;
  const { newAccount, meta } = await transport.directory(signal);
  if (meta.externalAccountRequired === true && externalAccount === undefined) {
    throw new AccountError(
      'external-account-required',
      `${transport.directoryUrl} makes accounts only for its customers: set ACME_EAB_KID and ACME_EAB_HMAC_KEY`,
    );
  }
  const ask = async (contact: { contact?: readonly string[] }): Promise<Registered> => {
    const payload = { termsOfServiceAgreed: true, ...contact };
    const { status, data, headers } = await session.post(newAccount, payload, { signal, externalAccount });
    // RFC 8555 §7.3: 201 for a new account, 200 for an existing one.
    return { url: usable(transport, data, headers.location), isNew: status === 201 };
  };
  if (email === undefined || email === '') return ask({});
  try {
    return await ask({ contact: [`mailto:${email}`] });
  } catch (err) {
    // RFC 8555 §7.3: a contact is optional, so a contact that the CA refuses must not cost the certificates.
    if (!(err instanceof AcmeProblem && ['invalidContact', 'unsupportedContact'].includes(err.type)))
      throw err;
    log.warn({ variable: 'ACME_EMAIL', err }, 'the ca refused the contact, the account is made without one');
    return ask({});
  }
}

function usable(transport: Transport, data: unknown, url: string | undefined): string {
  const subject = `the account's description by ${transport.directoryUrl}`;
  const { status } = readObject(AnswerSchema, data, subject);
  const location = readObject(z.url(), url, `the account's URL given by ${transport.directoryUrl}`);
  // RFC 8555 §7.1.2: `deactivated` and `revoked` never become valid again.
  if (status !== undefined && status !== 'valid') {
    throw new AccountError(
      'account-refused',
      `account ${location} is ${status} at ${transport.directoryUrl}`,
    );
  }
  return location;
}

function documentOf(uri: string, key: Readonly<Record<string, string>> | undefined): AccountDocument {
  return { body: key === undefined ? {} : { key }, uri };
}

function samePublicKey(a: string, b: string): boolean {
  const publicPart = (key: string) =>
    createPublicKey(createPrivateKey(key)).export({ type: 'spki', format: 'der' }).toString('base64');
  return publicPart(a) === publicPart(b);
}
