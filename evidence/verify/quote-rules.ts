// A quote and its collateral -> one verdict each on the collateral, the signatures, revocation, patch level and attributes.

import { QuoteError, readQuote, type SignedQuote } from '../quote.ts';
import { readRoot } from './certificates.ts';
import type { Collateral } from './collateral.ts';
import { type JudgedCollateral, judgeCollateral, judgeRevocation } from './collateral-rules.ts';
import { enclaveFault, type Origin, traceOrigin } from './signature-rules.ts';
import type { TcbStatus } from './tcb-info.ts';
import { judgeAttributes, judgeTcb } from './tcb-rules.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

export interface QuoteRules {
  /** DER of the certificate that everything must lead to: Intel's, unless a platform is simulated. */
  readonly root: Uint8Array;
  /** Rules every date. */
  readonly at: Date;
  /** Default: UpToDate alone. Revoked is never allowed. */
  readonly allowedTcb?: readonly TcbStatus[];
  /** Advisories that a platform may still be open to. Default: any that come with an allowed status. */
  readonly allowedAdvisories?: readonly string[];
}

export interface QuoteVerdicts {
  readonly collateral: Verdict;
  readonly signature: Verdict;
  readonly revocation: Verdict;
  readonly tcb: Verdict;
  readonly attributes: Verdict;
}

/** DER of "Intel SGX Root CA", which the library brings. */
export async function intelRoot(): Promise<Uint8Array> {
  const { constants } = await import('./library.ts');
  return constants.TRUSTED_ROOT_CA_DER;
}

/** The DER of another root: takes the PEM of one certificate. Throws CollateralError. */
export function parseRoot(pem: string): Uint8Array {
  return new Uint8Array(readRoot(pem).rawData);
}

/**
 * `quote` is hex or bytes, and may be anything. Without collateral, only what the quote alone refutes fails. Rejects only if
 * the root is no certificate.
 */
export async function judgeQuote(
  quote: string | Uint8Array,
  collateral: Collateral | undefined,
  rules: QuoteRules,
): Promise<QuoteVerdicts> {
  const root = readRoot(rules.root);
  const signed = parsed(quote);
  if (typeof signed === 'string') {
    const { verdict } = await judgeCollateral(collateral, { root, at: rules.at, pckChain: undefined });
    const unread = notRun('the quote cannot be read');
    return {
      collateral: verdict,
      signature: fail(signed),
      revocation: unread,
      tcb: unread,
      attributes: unread,
    };
  }
  const found = await traceOrigin(signed, {
    root,
    at: rules.at,
    pckChain: collateral?.pck_certificate_chain,
  });
  const origin = typeof found === 'string' ? undefined : found;
  const processor = origin?.proven;
  const judged = await judgeCollateral(collateral, { root, at: rules.at, pckChain: processor?.pckChain });
  const { tcbInfo, qeIdentity } = judged.proven;
  const verdicts = {
    collateral: judged.verdict,
    signature: typeof found === 'string' ? fail(found) : judgeSignature(found, judged),
    revocation: judgeRevocation(judged.proven, processor?.pckChain, root),
    tcb: judgeTcb(
      {
        quote: signed.quote,
        platform: processor?.platform,
        enclave: origin?.authentication.enclave,
        tcbInfo,
        qeIdentity,
      },
      { allowedTcb: rules.allowedTcb ?? ['UpToDate'], allowedAdvisories: rules.allowedAdvisories },
    ),
    attributes: judgeAttributes(signed.quote, tcbInfo),
  };
  if (collateral === undefined || Object.values(verdicts).some(({ verdict }) => verdict !== 'pass'))
    return verdicts;
  const objection = await objectionOfLibrary(signed.bytes, withChainOf(found as Origin, collateral), rules);
  return objection === undefined ? verdicts : { ...verdicts, signature: fail(objection) };
}

function parsed(quote: string | Uint8Array): SignedQuote | string {
  try {
    return readQuote(quote);
  } catch (error) {
    if (error instanceof QuoteError) return error.message;
    throw error;
  }
}

function judgeSignature({ authentication, fault }: Origin, { proven }: JudgedCollateral): Verdict {
  if (fault !== undefined) return fail(fault);
  const { qeIdentity } = proven;
  // Any enclave could have been signed for by the processor: the chain alone does not make it the vendor's.
  if (qeIdentity === undefined)
    return notRun(
      'the chain leads to the root, but there is no proven QE identity to tell the quoting enclave by',
    );
  const stranger = enclaveFault(authentication.enclave, qeIdentity);
  if (stranger !== undefined) return fail(stranger);
  return pass('root, processor, quoting enclave and attestation key have signed, each for the next');
}

/** The library prefers the chain of the collateral; we take the quote's own where it has one, and it must judge the same. */
function withChainOf({ authentication }: Origin, collateral: Collateral): Collateral {
  const { pck_certificate_chain: _, ...others } = collateral;
  return authentication.pckChain === undefined ? collateral : others;
}

/** Of patch levels it compares what belongs to the module's own identity as well: it says this after all signatures. */
const NO_LEVEL = /No matching TCB level/;

/**
 * Where our rules hold throughout, the vendor-neutral library must agree on all that it knows. It is not asked otherwise:
 * it stops at the first fault, has no codes, and does not notice all that is noticed here.
 */
async function objectionOfLibrary(
  quote: Uint8Array,
  collateral: Collateral,
  { root, at }: QuoteRules,
): Promise<string | undefined> {
  const { QuoteVerifier } = await import('./library.ts');
  try {
    QuoteVerifier.newWithRootCa(Buffer.from(root)).verify(quote, collateral, Math.floor(at.getTime() / 1000));
    return undefined;
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    return NO_LEVEL.test(said) ? undefined : `@phala/dcap-qvl refuses the quote: ${said}`;
  }
}
