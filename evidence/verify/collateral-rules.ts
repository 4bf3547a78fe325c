// What of the collateral is signed under the root, and whether it is in force.

import type { X509Certificate, X509Crl } from '@peculiar/x509';
import {
  type Chain,
  certificateDateFault,
  chainFault,
  crlFault,
  dateFault,
  isAuthority,
  isRevoked,
  isSignedRaw,
  nameOf,
  readChain,
  readCrl,
} from './certificates.ts';
import { type Collateral, CollateralError } from './collateral.ts';
import { type QeIdentity, readQeIdentity, readTcbInfo, type TcbInfo } from './tcb-info.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

/** The parts whose signatures lead to the root: what the vendor did say, be it in force or not. */
export interface Proven {
  readonly tcbInfo?: TcbInfo;
  readonly qeIdentity?: QeIdentity;
  readonly rootCrl?: X509Crl;
  readonly pckCrl?: X509Crl;
  /** Everyone below the root who signed one of them. */
  readonly signers: readonly X509Certificate[];
}

export interface JudgedCollateral {
  readonly verdict: Verdict;
  readonly proven: Proven;
}

export interface CollateralContext {
  readonly root: X509Certificate;
  readonly at: Date;
  /** Of the quote, if it leads to the root: its dates are judged with the quote's signature. */
  readonly pckChain: Chain | undefined;
}

/** One part of the collateral. What is proven stays so when it has run out: then there is a fault beside it. */
interface Part {
  readonly proven: Partial<Omit<Proven, 'signers'>>;
  readonly signers: readonly X509Certificate[];
  readonly fault?: string | undefined;
}

export async function judgeCollateral(
  collateral: Collateral | undefined,
  context: CollateralContext,
): Promise<JudgedCollateral> {
  if (collateral === undefined) return { verdict: notRun('there is no collateral'), proven: { signers: [] } };
  const parts = await Promise.all([
    attempt('the TCB info', () => judgeTcbInfo(collateral, context)),
    attempt('the QE identity', () => judgeQeIdentity(collateral, context)),
    attempt("the root's revocation list", () => judgeRootCrl(collateral, context)),
    attempt("the PCK authority's revocation list", () => judgePckCrl(collateral, context)),
  ]);
  const faults = parts.flatMap(({ fault }) => fault ?? []);
  const proven = Object.assign({}, ...parts.map((part) => part.proven), {
    signers: parts.flatMap(({ signers }) => signers),
  }) as Proven;
  if (faults.length > 0) return { verdict: fail(faults.join('; ')), proven };
  return { verdict: pass(inForce(proven)), proven };
}

function inForce({ tcbInfo, pckCrl }: Proven): string {
  const day = (date: Date | undefined) => date?.toISOString().slice(0, 10);
  return `TCB info of ${day(tcbInfo?.issueDate)}, QE identity and both revocation lists (PCK: ${day(pckCrl?.thisUpdate)}) are signed under the root and in force`;
}

/** Names the part in what is wrong with it. */
async function attempt(subject: string, judge: () => Promise<Part>): Promise<Part> {
  const unproven = (fault: string): Part => ({ proven: {}, signers: [], fault });
  try {
    const part = await judge();
    return part.fault === undefined ? part : { ...part, fault: `${subject}: ${part.fault}` };
  } catch (error) {
    // Anything else would be a defect of ours or of the parser of certificates: the part is then as good as not there.
    const why = error instanceof CollateralError ? error.message : 'it cannot be read';
    return unproven(`${subject}: ${why}`);
  }
}

async function judgeTcbInfo(collateral: Collateral, context: CollateralContext): Promise<Part> {
  const { tcb_info, tcb_info_signature, tcb_info_issuer_chain } = collateral;
  const signed = await judgeSignedJson(tcb_info, tcb_info_signature, tcb_info_issuer_chain, context);
  if ('fault' in signed) return unproven(signed.fault);
  const tcbInfo = readTcbInfo(tcb_info);
  const fault = signed.dateFault ?? dateFault('it', tcbInfo.issueDate, tcbInfo.nextUpdate, context.at);
  return { proven: { tcbInfo }, signers: signed.chain, fault };
}

async function judgeQeIdentity(collateral: Collateral, context: CollateralContext): Promise<Part> {
  const { qe_identity, qe_identity_signature, qe_identity_issuer_chain } = collateral;
  const signed = await judgeSignedJson(qe_identity, qe_identity_signature, qe_identity_issuer_chain, context);
  if ('fault' in signed) return unproven(signed.fault);
  const qeIdentity = readQeIdentity(qe_identity);
  const fault = signed.dateFault ?? dateFault('it', qeIdentity.issueDate, qeIdentity.nextUpdate, context.at);
  return { proven: { qeIdentity }, signers: signed.chain, fault };
}

/** The signer stands directly below the root (Intel's TCB Signing): no processor's certificate, which stands lower, will do. */
async function judgeSignedJson(
  json: string,
  signature: string,
  pem: string,
  { root, at }: CollateralContext,
): Promise<{ chain: Chain; dateFault: string | undefined } | { fault: string }> {
  const chain = readChain("its issuer's chain", pem, root);
  const [signer, ...others] = chain;
  if (others.length > 0)
    return { fault: `its signer ${nameOf(signer)} does not stand directly below the root` };
  if (isAuthority(signer)) return { fault: `its signer ${nameOf(signer)} is a certificate authority` };
  const fault = await chainFault(chain, root);
  if (fault !== undefined) return { fault };
  const bytes = new TextEncoder().encode(json);
  if (!(await isSignedRaw(bytes, Buffer.from(signature, 'hex'), signer)))
    return { fault: `the signature of ${nameOf(signer)} does not verify` };
  return { chain, dateFault: certificateDateFault(chain, at) };
}

async function judgeRootCrl({ root_ca_crl }: Collateral, { root, at }: CollateralContext): Promise<Part> {
  const rootCrl = readCrl('it', root_ca_crl);
  const fault = await crlFault(rootCrl, root);
  if (fault !== undefined) return unproven(fault);
  return {
    proven: { rootCrl },
    signers: [],
    fault: dateFault('it', rootCrl.thisUpdate, rootCrl.nextUpdate, at),
  };
}

async function judgePckCrl(collateral: Collateral, context: CollateralContext): Promise<Part> {
  const { root, at, pckChain } = context;
  const chain = readChain("its issuer's chain", collateral.pck_crl_issuer_chain, root);
  const fault = await chainFault(chain, root);
  if (fault !== undefined) return unproven(fault);
  const pckCrl = readCrl('it', collateral.pck_crl);
  const [issuer] = chain;
  const crlIs = await crlFault(pckCrl, issuer);
  if (crlIs !== undefined) return unproven(crlIs);
  const [pck, pckIssuer] = pckChain ?? [];
  if (pck !== undefined && pck.issuer !== pckCrl.issuer)
    return unproven(`it is of ${nameOf(issuer)}, the quote's processor was certified by another`);
  // The quote's own issuer is dated where the quote is judged: one cause fails one check.
  const toBeDated = pckIssuer?.equal(issuer) ? chain.slice(1) : chain;
  const dates =
    certificateDateFault(toBeDated, at) ?? dateFault('it', pckCrl.thisUpdate, pckCrl.nextUpdate, at);
  return { proven: { pckCrl }, signers: chain, fault: dates };
}

function unproven(fault: string): Part {
  return { proven: {}, signers: [], fault };
}

/** Whether the vendor has taken back one of the certificates, by the lists that are proven. */
export function judgeRevocation(
  { rootCrl, pckCrl, signers }: Proven,
  pckChain: Chain | undefined,
  root: X509Certificate,
): Verdict {
  const certificates = distinct([...(pckChain ?? []), ...signers, root]);
  const lists = [rootCrl, pckCrl].filter((crl) => crl !== undefined);
  const revoked = certificates.find((certificate) => lists.some((crl) => isRevoked(crl, certificate)));
  if (revoked !== undefined)
    return fail(`${nameOf(revoked)} (serial ${revoked.serialNumber}) has been revoked by its issuer`);
  if (pckChain === undefined) return notRun("the processor's chain does not lead to the root");
  if (rootCrl === undefined) return notRun('there is no revocation list that the root signed');
  if (pckCrl === undefined) return notRun("there is no revocation list of the processor's issuer");
  const dates = lists.map(({ thisUpdate }) => thisUpdate.toISOString().slice(0, 10)).join(' and ');
  return pass(`the lists of ${dates} name none of the ${certificates.length} certificates`);
}

/** Both signers are often one, and the issuer of a list that of the processor. */
function distinct(certificates: readonly X509Certificate[]): X509Certificate[] {
  return certificates.filter((one, index) => certificates.findIndex((other) => other.equal(one)) === index);
}
