// Fetches the collateral of a quote from Intel's certification service or a cache of it (PCCS): what comes is not judged here.

import 'reflect-metadata';
import { CRLDistributionPointsExtension, GeneralName } from '@peculiar/x509';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { CodedError } from '../../src/lib/coded-error.ts';
import { HttpError, type HttpReply, httpRequest } from '../../src/lib/fetch.ts';
import { QuoteError, readQuote } from '../quote.ts';
import { readAuthentication } from './authentication.ts';
import { nameOf, readChain, readRoot } from './certificates.ts';
import { type Collateral, CollateralError, LARGEST_COLLATERAL } from './collateral.ts';
import { platformOf } from './platform.ts';

/** Intel's own, then the public cache that dstack's verifier asks. */
export const collateralServices: readonly string[] = [
  'https://api.trustedservices.intel.com',
  'https://pccs.phala.network',
];

export interface FetchCollateralOptions {
  /** Asked one after the other until one has all of it. Default: collateralServices. */
  readonly services?: readonly string[];
  /** DER. Its list of revoked authorities is where it says, if the service has none. */
  readonly root: Uint8Array;
  /** For each service. Default 15 s. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly clock?: Clock;
}

export type FetchCollateralErrorCode =
  /** Which collateral is wanted cannot be told from the quote. */
  | 'unintelligible'
  /** No service had all of it. */
  | 'unavailable'
  | 'aborted';

export class FetchCollateralError extends CodedError<FetchCollateralErrorCode> {
  override readonly name = 'FetchCollateralError';
}

const DEFAULT_TIMEOUT_MS = 15_000;
const ATTEMPTS = 3;
const PAUSE_MS = 500;

/** Rejects with FetchCollateralError. */
export async function fetchCollateral(
  quote: string | Uint8Array,
  options: FetchCollateralOptions,
): Promise<Collateral> {
  const wanted = wantedBy(quote, options.root);
  const failures: string[] = [];
  for (const service of options.services ?? collateralServices) {
    try {
      return await askService(service, wanted, options);
    } catch (error) {
      if (options.signal?.aborted)
        throw new FetchCollateralError('aborted', 'fetching the collateral was given up', { cause: error });
      if (!(error instanceof ServiceFailure)) throw error;
      failures.push(error.message);
    }
  }
  throw new FetchCollateralError('unavailable', `no service has the collateral: ${failures.join('; ')}`);
}

/** What to ask for, taken from a certificate that nobody has verified yet. */
interface Wanted {
  readonly fmspc: string;
  /** Two authorities certify processors, each with a list of its own. */
  readonly authority: 'processor' | 'platform';
  readonly rootCrlUrl: string | undefined;
}

function wantedBy(quote: string | Uint8Array, rootDer: Uint8Array): Wanted {
  const root = readRoot(rootDer);
  try {
    const { pckChain } = readAuthentication(readQuote(quote).signature);
    if (pckChain === undefined)
      throw new FetchCollateralError(
        'unintelligible',
        "the quote does not carry its processor's certificate",
      );
    const [pck, issuer] = readChain("the quote's chain", pckChain, root);
    const platform = platformOf(pck);
    if (platform === undefined)
      throw new FetchCollateralError('unintelligible', `${nameOf(pck)} does not describe a platform`);
    const authority =
      issuer !== undefined && /\bProcessor\b/i.test(nameOf(issuer)) ? 'processor' : 'platform';
    return { fmspc: platform.fmspc.toUpperCase(), authority, rootCrlUrl: crlUrlOf(root) };
  } catch (cause) {
    if (!(cause instanceof QuoteError || cause instanceof CollateralError)) throw cause;
    throw new FetchCollateralError('unintelligible', cause.message, { cause });
  }
}

/** Of the root that we trust: the one that a service sends could name any host. */
function crlUrlOf(root: ReturnType<typeof readRoot>): string | undefined {
  const points = root.getExtension(CRLDistributionPointsExtension)?.distributionPoints ?? [];
  const names = points.flatMap(({ distributionPoint }) => distributionPoint?.fullName ?? []);
  return names.map((name) => new GeneralName(name)).find(({ type }) => type === 'url')?.value;
}

class ServiceFailure extends Error {}

type Ask = (url: string) => Promise<HttpReply>;

async function askService(
  service: string,
  wanted: Wanted,
  { timeoutMs = DEFAULT_TIMEOUT_MS, signal, clock = systemClock }: FetchCollateralOptions,
): Promise<Collateral> {
  const deadline = AbortSignal.timeout(timeoutMs);
  // The first request that fails ends the others.
  const failed = new AbortController();
  const signals = [deadline, failed.signal, ...(signal === undefined ? [] : [signal])];
  const ask: Ask = (url) => askPatiently(url, AbortSignal.any(signals), clock);
  // Settings often name the service with the path of its interface.
  const base = service.replace(/\/+$/, '').replace(/\/(sgx|tdx)\/certification\/v4$/, '');
  try {
    const [crl, tcb, qe, rootCrl] = await Promise.all([
      ask(`${base}/sgx/certification/v4/pckcrl?ca=${wanted.authority}&encoding=der`),
      ask(`${base}/tdx/certification/v4/tcb?fmspc=${wanted.fmspc}`),
      ask(`${base}/tdx/certification/v4/qe/identity?update=standard`),
      askForRootCrl(base, wanted, ask),
    ]);
    return {
      pck_crl_issuer_chain: chainIn(crl, 'sgx-pck-crl-issuer-chain'),
      pck_crl: crlIn(crl.body),
      root_ca_crl: crlIn(rootCrl.body),
      tcb_info_issuer_chain: chainIn(tcb, 'tcb-info-issuer-chain', 'sgx-tcb-info-issuer-chain'),
      ...signedJson(tcb.body, 'tcbInfo', 'tcb_info', 'tcb_info_signature'),
      qe_identity_issuer_chain: chainIn(qe, 'sgx-enclave-identity-issuer-chain'),
      ...signedJson(qe.body, 'enclaveIdentity', 'qe_identity', 'qe_identity_signature'),
    };
  } catch (error) {
    if (deadline.aborted)
      throw new ServiceFailure(`${hostOf(service)} did not answer within ${timeoutMs / 1000} s`);
    throw error;
  } finally {
    failed.abort();
  }
}

/** A cache has the root's list beside the others; Intel publishes it where the root says. */
async function askForRootCrl(base: string, { rootCrlUrl }: Wanted, ask: Ask): Promise<HttpReply> {
  const ofService = `${base}/sgx/certification/v4/rootcacrl`;
  if (rootCrlUrl === undefined) return ask(ofService);
  if (base === collateralServices[0]) return ask(rootCrlUrl);
  try {
    return await ask(ofService);
  } catch (error) {
    if (!(error instanceof ServiceFailure)) throw error;
    return ask(rootCrlUrl);
  }
}

/** Tries again what may pass: an overloaded service, a connection that broke. */
async function askPatiently(url: string, signal: AbortSignal, clock: Clock): Promise<HttpReply> {
  for (let attempt = 1; ; attempt++) {
    const { reply, failure } = await askOnce(url, signal);
    if (reply?.status === 200) return reply;
    const passing = reply === undefined ? failure : reply.status === 429 || reply.status >= 500;
    if (!passing || attempt === ATTEMPTS)
      throw new ServiceFailure(
        failure ?? `${hostOf(url)} answers ${new URL(url).pathname} with ${reply?.status}`,
      );
    await clock.sleep(PAUSE_MS * attempt, signal);
  }
}

async function askOnce(url: string, signal: AbortSignal): Promise<{ reply?: HttpReply; failure?: string }> {
  try {
    return { reply: await httpRequest({ url, signal, maxBytes: LARGEST_COLLATERAL }) };
  } catch (error) {
    if (!(error instanceof HttpError)) throw error;
    if (error.code === 'aborted') throw error;
    if (error.code === 'too-large' || error.code === 'bad-request') throw new ServiceFailure(error.message);
    return { failure: error.message };
  }
}

function chainIn({ headers }: HttpReply, ...names: readonly string[]): string {
  const encoded = names.map((name) => headers[name]).find((value) => value !== undefined);
  if (encoded === undefined) throw new ServiceFailure(`a reply has no header ${names[0]}`);
  try {
    return decodeURIComponent(encoded);
  } catch {
    throw new ServiceFailure(`the header ${names[0]} of a reply is not URL-encoded`);
  }
}

/** Services send DER, its hex, or PEM. */
function crlIn(body: Buffer): string {
  const text = body.toString('latin1').trim();
  if (/^([0-9a-f]{2})+$/i.test(text)) return text.toLowerCase();
  const pem = /^-----BEGIN X509 CRL-----([A-Za-z0-9+/=\s]+)-----END X509 CRL-----$/.exec(text)?.[1];
  return (pem === undefined ? body : Buffer.from(pem, 'base64')).toString('hex');
}

/** What is signed is the object within, as compact JSON, in the order that it came in. */
function signedJson<Field extends string, Signature extends string>(
  body: Buffer,
  member: string,
  field: Field,
  signatureField: Signature,
): Record<Field | Signature, string> {
  let signed: unknown;
  let signature: unknown;
  try {
    const reply = JSON.parse(body.toString('utf8')) as Record<string, unknown> | null;
    signature = reply?.signature;
    signed = typeof reply?.[member] === 'object' ? JSON.stringify(reply[member]) : undefined;
  } catch {
    throw new ServiceFailure(`the reply with ${member} is not JSON`);
  }
  if (typeof signed !== 'string' || typeof signature !== 'string' || !/^([0-9a-f]{2})+$/i.test(signature))
    throw new ServiceFailure(`the reply with ${member} has no signed object`);
  return { [field]: signed, [signatureField]: signature.toLowerCase() } as Record<Field | Signature, string>;
}

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : 'the service';
}
