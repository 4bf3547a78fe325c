// What the logs show -> verdicts: whether this certificate is in them, and whether another is that the machine never had.

import { X509Certificate } from 'node:crypto';
import { covers } from '../../src/lib/domain.ts';
import type { StatedCertificate } from '../statement.ts';
import { plainSerial } from './ask-ct.ts';
import type { Verdicts } from './checks.ts';
import { sha256 } from './documents.ts';
import type { Expected } from './expected.ts';
import { judgeProofs, type ProofJudgement } from './judge-proofs.ts';
import { type LoggedCertificate, ownConnection, type Seen, type SeenSource } from './seen.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

type CtChecks = Pick<Verdicts, 'ct.sources' | 'ct.logged' | 'ct.history'>;

export interface CtQuestion {
  readonly at: Date;
  /** Of the intact history; undefined if there is none. */
  readonly certificates: readonly StatedCertificate[] | undefined;
  readonly expected: Expected['ct'];
}

const SOURCES = 2;
/** Logs promise to show a certificate within a day (RFC 6962 §3, maximum merge delay). */
const MERGE_MS = 24 * 60 * 60 * 1000;

export function judgeCt(seen: Seen, question: CtQuestion): CtChecks {
  const { ct, host } = seen;
  const answered = ct.filter(({ found }) => found !== undefined);
  const found = answered.flatMap(({ found = [] }) => found).filter((one) => serves(one, host));
  const chain = ownConnection(seen)?.chain ?? [];
  const [leaf] = chain;
  const proof = judgeProofs(chain, seen.proofs);
  return {
    'ct.sources': judgeSources(ct, answered, question.expected?.sources ?? SOURCES),
    'ct.logged':
      leaf === undefined || (answered.length === 0 && proof.proven === undefined)
        ? notRun(leaf === undefined ? 'there is no certificate to look for' : 'no source answered')
        : judgeLogged(new X509Certificate(leaf), found, question.at, proof),
    'ct.history': answered.length === 0 ? notRun('no source answered') : judgeHistory(found, question),
  };
}

function serves({ names }: LoggedCertificate, host: string): boolean {
  return names.some((name) => covers(name.toLowerCase(), host));
}

function judgeSources(all: readonly SeenSource[], answered: readonly SeenSource[], wanted: number): Verdict {
  if (all.length === 0) return notRun('there is no source to ask about such a host');
  const silent = all.find(({ found }) => found === undefined);
  const why = silent === undefined ? '' : `; ${silent.source}: ${silent.why}`;
  const said = `${answered.length} of ${all.length} sources answered`;
  return answered.length >= wanted ? pass(`${said}${why}`) : notRun(`${said}, ${wanted} are needed${why}`);
}

/** A log's own proof goes before the word of those who index the logs. */
function judgeLogged(
  leaf: X509Certificate,
  found: readonly LoggedCertificate[],
  at: Date,
  { proven, faults }: ProofJudgement,
): Verdict {
  const subject = `the certificate ${leaf.serialNumber}`;
  if (proven !== undefined) return pass(`${subject} is proven to be ${proven}`);
  const none = faults.length === 0 ? '' : `; what was given as proof is none: ${faults.join('; ')}`;
  if (found.some((one) => isLeaf(one, leaf)))
    return pass(`${subject} is in the logs by those who index them${none}`);
  if (faults.length > 0) return fail(`${subject} is in no index of the logs${none}`);
  const ageMs = at.getTime() - leaf.validFromDate.getTime();
  if (ageMs < MERGE_MS) return notRun(`${subject} is younger than a day and may not be in the logs yet`);
  return fail(`${subject}, in force since ${leaf.validFromDate.toISOString()}, is in no log`);
}

function isLeaf(one: LoggedCertificate, leaf: X509Certificate): boolean {
  const spki = sha256(leaf.publicKey.export({ type: 'spki', format: 'der' }));
  return isSame(one, {
    spki,
    sha256: sha256(leaf.raw),
    serial: leaf.serialNumber,
    issuer: leaf.issuer.replaceAll('\n', ', '),
    notAfter: leaf.validToDate.toISOString(),
  });
}

type Known = Pick<StatedCertificate, 'spki' | 'sha256' | 'serial' | 'issuer' | 'notAfter'>;

/** By whatever the source tells: the key decides where it is known; a serial counts only with its issuer and its end. */
function isSame(one: LoggedCertificate, known: Known): boolean {
  if (one.sha256 !== undefined && one.sha256 === known.sha256) return true;
  if (!sameSecond(one.notAfter, known.notAfter)) return false;
  if (one.spki !== undefined) return one.spki === known.spki;
  if (one.serial === undefined || one.serial !== plainSerial(known.serial)) return false;
  const [a, b] = [commonName(one.issuer), commonName(known.issuer)];
  return a === undefined || b === undefined || a === b;
}

function sameSecond(a: string, b: string): boolean {
  return Math.floor(Date.parse(a) / 1000) === Math.floor(Date.parse(b) / 1000);
}

/** Of a distinguished name, whichever way round it is written. */
function commonName(name: string | undefined): string | undefined {
  return /(?:^|,\s*)CN=("?)([^,"]+)\1/.exec(name ?? '')?.[2]?.trim();
}

function judgeHistory(
  found: readonly LoggedCertificate[],
  { at, certificates, expected }: CtQuestion,
): Verdict {
  if (certificates === undefined) return notRun('there is no intact history to compare with');
  const inForce = found.filter(({ notAfter }) => Date.parse(notAfter) > at.getTime());
  const known = (expected?.known ?? []).map((text) => text.toLowerCase());
  const stated = indexOf(certificates);
  const foreign = inForce.find((one) => !isKnown(one, stated, known));
  if (foreign !== undefined)
    return fail(`${describe(foreign)} is in the logs and not in the history of ${stated.size} certificates`);
  return pass(`${inForce.length} certificates in force are in the logs, and all of them in the history`);
}

interface Index {
  readonly size: number;
  /** By whatever a source may tell it by: digest, key, serial. */
  readonly by: ReadonlyMap<string, readonly StatedCertificate[]>;
}

/** Each certificate is stated every day, and a source may have thousands to look for. */
function indexOf(certificates: readonly StatedCertificate[]): Index {
  const distinct = new Map(certificates.map((each) => [each.sha256, each]));
  const by = new Map<string, StatedCertificate[]>();
  for (const each of distinct.values())
    for (const key of [each.sha256, each.spki, plainSerial(each.serial)]) {
      const same = by.get(key);
      if (same === undefined) by.set(key, [each]);
      else same.push(each);
    }
  return { size: distinct.size, by };
}

function isKnown(one: LoggedCertificate, { by }: Index, known: readonly string[]): boolean {
  const alike = [one.sha256, one.spki, one.serial].flatMap((key) =>
    key === undefined ? [] : (by.get(key) ?? []),
  );
  if (alike.some((each) => isSame(one, each))) return true;
  return known.some(
    (text) =>
      text === one.spki ||
      text === one.sha256 ||
      (one.serial !== undefined && plainSerial(text) === one.serial),
  );
}

function describe({ id, names, serial, spki, issuer, notAfter }: LoggedCertificate): string {
  const by = issuer === undefined ? '' : ` by ${issuer}`;
  const what = serial === undefined ? `with the key ${spki}` : `of serial ${serial}`;
  return `a certificate ${what}${by} for ${names.slice(0, 3).join(', ')} until ${notAfter} (id ${id})`;
}
