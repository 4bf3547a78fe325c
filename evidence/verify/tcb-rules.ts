// The patch levels of platform, TDX module and quoting enclave, and the attributes of module and TD: what is said of them.

import type { Quote } from '../quote.ts';
import type { EnclaveReport } from './authentication.ts';
import type { Platform } from './platform.ts';
import { sameUnder } from './signature-rules.ts';
import { type EnclaveLevel, type QeIdentity, type TcbInfo, type TcbStatus, tcbStatuses } from './tcb-info.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

export interface TcbAllowance {
  readonly allowedTcb: readonly TcbStatus[];
  readonly allowedAdvisories: readonly string[] | undefined;
}

export interface TcbFacts {
  readonly quote: Quote;
  readonly platform: Platform | undefined;
  readonly enclave: EnclaveReport | undefined;
  readonly tcbInfo: TcbInfo | undefined;
  readonly qeIdentity: QeIdentity | undefined;
}

/** What the vendor says of one of the three; undefined where he says nothing. */
interface Level {
  readonly subject: string;
  readonly status: TcbStatus | undefined;
  readonly advisories: readonly string[];
}

export function judgeTcb(facts: TcbFacts, allowance: TcbAllowance): Verdict {
  const { quote, platform, enclave, tcbInfo, qeIdentity } = facts;
  const levels: Level[] = [];
  if (tcbInfo !== undefined && platform !== undefined) {
    const mismatch = platformMismatch(platform, tcbInfo);
    if (mismatch !== undefined) return fail(mismatch);
    levels.push(platformLevel(quote, platform, tcbInfo), ...moduleLevel(quote, tcbInfo));
  }
  if (qeIdentity !== undefined && enclave !== undefined)
    levels.push(enclaveLevel('the quoting enclave', enclave.isvSvn, qeIdentity.tcbLevels));
  const faults = levels.flatMap((level) => levelFault(level, allowance) ?? []);
  if (faults.length > 0) return fail(faults.join('; '));
  if (tcbInfo === undefined) return notRun('there is no TCB info that is proven');
  if (platform === undefined)
    return notRun("the platform is not proven: the processor's chain does not lead to the root");
  if (qeIdentity === undefined || enclave === undefined)
    return notRun('there is no QE identity that is proven');
  return pass(`${merged(levels)}, by TCB info of ${tcbInfo.issueDate.toISOString().slice(0, 10)}`);
}

function platformMismatch(platform: Platform, tcbInfo: TcbInfo): string | undefined {
  if (platform.fmspc !== tcbInfo.fmspc)
    return `the TCB info is of FMSPC ${tcbInfo.fmspc}, the quote's platform has ${platform.fmspc}`;
  if (platform.pceId !== tcbInfo.pceId)
    return `the TCB info is of PCE ${tcbInfo.pceId}, the quote's platform has ${platform.pceId}`;
  return undefined;
}

/**
 * The first level that the platform reaches. With a TDX module that has an identity of its own the first two TDX components,
 * its version and patch level, are not compared here (Intel DCAP, TCB info version 3).
 */
function platformLevel(quote: Quote, { sgxSvns, pceSvn }: Platform, { tcbLevels }: TcbInfo): Level {
  const tdxSvns = [...Buffer.from(quote.teeTcbSvn, 'hex')];
  const firstCompared = tdxSvns[1]! > 0 ? 2 : 0;
  const found = tcbLevels.find(
    ({ tcb }) =>
      pceSvn >= tcb.pcesvn &&
      tcb.sgxtcbcomponents.every((least, index) => sgxSvns[index]! >= least) &&
      tcb.tdxtcbcomponents.every((least, index) => index < firstCompared || tdxSvns[index]! >= least),
  );
  return levelOf('the platform', found);
}

/** None for a module of version 0: the platform's components are all there is. */
function moduleLevel(quote: Quote, tcbInfo: TcbInfo): Level[] {
  const [svn, version] = Buffer.from(quote.teeTcbSvn, 'hex') as Iterable<number> as [number, number];
  if (version === 0) return [];
  const subject = `the TDX module (${moduleId(version)})`;
  return [enclaveLevel(subject, svn, moduleIdentity(quote, tcbInfo)?.tcbLevels ?? [])];
}

function moduleIdentity(quote: Quote, { tdxModuleIdentities }: TcbInfo) {
  const version = Buffer.from(quote.teeTcbSvn, 'hex')[1]!;
  return tdxModuleIdentities.find(({ id }) => id.toUpperCase() === moduleId(version));
}

function moduleId(version: number): string {
  return `TDX_${version.toString(16).padStart(2, '0').toUpperCase()}`;
}

function enclaveLevel(subject: string, svn: number, levels: readonly EnclaveLevel[]): Level {
  return levelOf(
    subject,
    levels.find(({ tcb }) => svn >= tcb.isvsvn),
  );
}

function levelOf(
  subject: string,
  level: { readonly tcbStatus: TcbStatus; readonly advisoryIDs: readonly string[] } | undefined,
): Level {
  return { subject, status: level?.tcbStatus, advisories: level?.advisoryIDs ?? [] };
}

function levelFault({ subject, status, advisories }: Level, allowance: TcbAllowance): string | undefined {
  if (status === undefined) return `${subject} is below every patch level that the vendor knows`;
  const { allowedTcb, allowedAdvisories } = allowance;
  const which = advisories.length === 0 ? '' : ` (${advisories.join(', ')})`;
  // Whoever names Revoked as allowed has misunderstood it.
  if (status === 'Revoked' || !allowedTcb.includes(status)) return `${subject} is ${status}${which}`;
  const open = advisories.filter((advisory) => allowedAdvisories?.includes(advisory) === false);
  return open.length === 0 ? undefined : `${subject} is ${status} and open to ${open.join(', ')}`;
}

/** The worst wins. */
function merged(levels: readonly Level[]): string {
  const worst = Math.max(...levels.map(({ status }) => tcbStatuses.indexOf(status!)));
  const advisories = [...new Set(levels.flatMap((level) => level.advisories))];
  const subjects = levels.map(({ subject }) => subject.replace(/^the /, '')).join(', ');
  return `${tcbStatuses[worst]}: ${subjects}${advisories.length === 0 ? '' : `; ${advisories.join(', ')}`}`;
}

// Attributes: eight bytes, least significant bit first (Intel TDX Module Base Architecture Specification, TD attributes).

const SEPT_VE_DISABLE = 1n << 28n;
const PKS = 1n << 30n;
const KEY_LOCKER = 1n << 31n;
const PERFMON = 1n << 63n;
const UNDER_DEBUG = 0xffn;
/** What none of those is must be zero: a meaning that is not known may be a weakness. */
const KNOWN = UNDER_DEBUG | SEPT_VE_DISABLE | PKS | KEY_LOCKER | PERFMON;

export function judgeAttributes(quote: Quote, tcbInfo: TcbInfo | undefined): Verdict {
  const faults = [...tdFaults(quote), ...(tcbInfo === undefined ? [] : moduleFaults(quote, tcbInfo))];
  if (faults.length > 0) return fail(faults.join('; '));
  if (tcbInfo === undefined) return notRun('there is no proven TCB info to compare MRSIGNERSEAM with');
  return pass("not under debug, SEPT_VE_DISABLE, the vendor's TDX module, no service TD");
}

function tdFaults(quote: Quote): string[] {
  const bits = Buffer.from(quote.tdAttributes, 'hex').readBigUInt64LE();
  const reserved = bits & ~KNOWN;
  return [
    ...(quote.debug ? ['the TD is under debug: the host may read its memory'] : []),
    ...((bits & SEPT_VE_DISABLE) === 0n
      ? ['SEPT_VE_DISABLE is off: the host may take pages away unnoticed']
      : []),
    ...(reserved === 0n ? [] : [`reserved TD attributes are set: 0x${reserved.toString(16)}`]),
    ...(/^0*$/.test(quote.mrServiceTd ?? '') ? [] : ['a service TD is bound to the TD: it may change it']),
  ];
}

/** By the identity of the module's version where it has one, as for its patch level. */
function moduleFaults(quote: Quote, tcbInfo: TcbInfo): string[] {
  const expected = moduleIdentity(quote, tcbInfo) ?? tcbInfo.tdxModule;
  return [
    ...(quote.mrSignerSeam === expected.mrsigner
      ? []
      : ["the TDX module is not the vendor's (MRSIGNERSEAM)"]),
    ...(sameUnder(expected.attributesMask, quote.seamAttributes, expected.attributes)
      ? []
      : ['the SEAM attributes of the TDX module are not what they should be']),
  ];
}
