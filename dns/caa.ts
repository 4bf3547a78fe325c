// Whether CAA allows this account to issue for a name: RFC 8659 and RFC 8657, read as strictly as Boulder does.

import { baseOf, type Domain, isWildcard } from '../src/lib/domain.ts';
import type { Resolver } from './views.ts';
import { possibleZones } from './zone.ts';

export interface CaaQuestion {
  readonly domain: Domain;
  /** The CA's names in CAA records: `meta.caaIdentities` of its directory. If empty, nothing can be judged. */
  readonly identities: readonly string[];
  readonly accountUrl: string;
  /** As in `validationmethods`: `dns-01` and its kin. */
  readonly method: string;
}

export interface CaaVerdict {
  readonly allowed: boolean;
  /** Whether only this account may issue: no other account of the CA, and no other CA. */
  readonly pinned: boolean;
  /** The name whose records decide (RFC 8659 §3); undefined if no name up to the top has any. */
  readonly decidedBy: string | undefined;
  /** What an operator should know; the reasons for a refusal come first. */
  readonly findings: readonly string[];
}

interface CaaRecord {
  readonly critical: boolean;
  readonly tag: string;
  readonly value: string;
}

type Reading =
  | { readonly readable: true; readonly issuer: string; readonly parameters: ReadonlyMap<string, string> }
  | { readonly readable: false; readonly why: string };

/** The set of records that decides for a name, and whose it is; undefined if no name up to the top has any. */
export interface DecidingCaa {
  readonly decidedBy: string | undefined;
  readonly values: readonly string[];
}

/** Climbs from the name to the top (RFC 8659 §3), until a name has records. Rejects as the resolver does. */
export async function climbCaa(resolver: Pick<Resolver, 'resolve'>, base: string): Promise<DecidingCaa> {
  for (const name of possibleZones(base)) {
    // The resolver follows CNAMEs, as RFC 8659 §3 wants at every step.
    const values = await resolver.resolve(name, 'CAA');
    if (values.length > 0) return { decidedBy: name, values };
  }
  return { decidedBy: undefined, values: [] };
}

/** Judges the first set of records found. Rejects as the resolver does. */
export async function checkCaa(resolver: Resolver, question: CaaQuestion): Promise<CaaVerdict> {
  const { decidedBy, values } = await climbCaa(resolver, baseOf(question.domain));
  return { ...judgeCaa(values, question), decidedBy };
}

/** What one record lets happen, whoever asks. */
export interface IssuePermission {
  /** As in `issue "letsencrypt.org"`. */
  readonly record: string;
  /** The CA that it lets issue, in lower case; empty: it lets nobody. */
  readonly issuer: string;
  /** Undefined: every account of the CA. */
  readonly account: string | undefined;
  /** Undefined: by every method. */
  readonly methods: readonly string[] | undefined;
}

export interface IssueReading {
  readonly permissions: readonly IssuePermission[];
  /** Records that a CA ignores or must not issue under, and why. */
  readonly unreadable: readonly string[];
}

/** Who may have certificates for a name itself (`wildcard`: for the wildcard over it) by these records, read as a CA reads them. */
export function readPermissions(values: readonly string[], wildcard = false): IssueReading {
  const unreadable: string[] = [];
  const records = values.flatMap((value) => {
    const record = parseRecord(value);
    if (record === undefined) unreadable.push(`${JSON.stringify(value)} cannot be read`);
    return record ?? [];
  });
  const permissions = relevantRecords(records, wildcard).flatMap(({ tag, value }) => {
    const reading = readValue(value);
    const record = `${tag} ${JSON.stringify(value)}`;
    if (!reading.readable) {
      unreadable.push(`${record}: ${reading.why}`);
      return [];
    }
    const { issuer, parameters } = reading;
    const methods = parameters.get('validationmethods')?.split(',');
    return [{ record, issuer, account: parameters.get('accounturi'), methods }];
  });
  return { permissions, unreadable };
}

/** The verdict over the records of one name, each as in a zone file: `0 issue "letsencrypt.org"`. */
export function judgeCaa(values: readonly string[], question: CaaQuestion): Omit<CaaVerdict, 'decidedBy'> {
  const findings: string[] = [];
  const records: CaaRecord[] = [];
  for (const value of values) {
    const record = parseRecord(value);
    if (record === undefined) return refused([`CAA record ${JSON.stringify(value)} cannot be read`]);
    records.push(record);
  }
  // RFC 8659 §4.1: a CA that does not know a critical property must not issue.
  const unknown = records.find(
    (each) => each.critical && !['issue', 'issuewild', 'iodef'].includes(each.tag),
  );
  if (unknown !== undefined) return refused([`the critical property ${unknown.tag} is unknown to the CA`]);
  const relevant = relevantRecords(records, isWildcard(question.domain));
  if (relevant.length === 0)
    return { allowed: true, pinned: false, findings: ['no CAA record limits who may issue'] };

  let allowed = false;
  let open = false;
  for (const { tag, value } of relevant) {
    const judged = judgeRecord(value, question);
    const subject = `${tag} ${JSON.stringify(value)}`;
    allowed ||= judged.allows;
    // Records add up: a single one that allows somebody else ends the pin.
    open ||= judged.open;
    if (!judged.allows) findings.push(`${subject} does not let us issue: ${judged.why}`);
    else if (judged.open) findings.push(`${subject} lets every account of the CA issue`);
  }
  return { allowed, pinned: allowed && !open, findings };
}

function refused(findings: string[]): Omit<CaaVerdict, 'decidedBy'> {
  return { allowed: false, pinned: false, findings };
}

/** RFC 8659 §4.3: for a wildcard, issuewild records replace issue records. For other names they do not count. */
function relevantRecords(records: readonly CaaRecord[], wildcard: boolean): CaaRecord[] {
  const wild = records.filter((each) => each.tag === 'issuewild');
  return wildcard && wild.length > 0 ? wild : records.filter((each) => each.tag === 'issue');
}

interface Judgement {
  readonly allows: boolean;
  /** Whether it lets anyone else issue. */
  readonly open: boolean;
  readonly why: string;
}

function judgeRecord(value: string, { identities, accountUrl, method }: CaaQuestion): Judgement {
  const no = (why: string, open: boolean): Judgement => ({ allows: false, open, why });
  const reading = readValue(value);
  if (!reading.readable) return no(`${reading.why}, so the CA ignores it`, false);
  if (reading.issuer === '') return no('it names no CA', false);
  if (!identities.includes(reading.issuer)) return no('it names another CA', true);
  const account = reading.parameters.get('accounturi');
  // RFC 8657 §3: compared as a string, so staging is not production.
  if (account !== undefined && account !== accountUrl) return no(`its account is not ${accountUrl}`, true);
  const methods = reading.parameters.get('validationmethods');
  if (methods !== undefined && !methods.split(',').includes(method)) {
    return no(`its methods leave out ${method}`, account === undefined);
  }
  return { allows: true, open: account === undefined, why: '' };
}

function parseRecord(text: string): CaaRecord | undefined {
  const match = /^\s*(\d{1,3})\s+([A-Za-z0-9]{1,255})\s+(?:"((?:[^"\\]|\\.)*)"|(\S*))\s*$/.exec(text);
  if (match === null) return undefined;
  const flags = Number(match[1]);
  if (flags > 255) return undefined;
  const value = (match[3] ?? match[4] ?? '').replace(/\\(.)/g, '$1');
  // RFC 8659 §4.1: bit 0, the highest; tags are compared without regard to case.
  return { critical: (flags & 0x80) !== 0, tag: match[2]!.toLowerCase(), value };
}

/**
 * `issuer; tag=value; …` (RFC 8659 §4.2). Like Boulder, this ignores a whole record for an
 * empty parameter (a semicolon at the end after a parameter), a value with spaces, or a repeated tag.
 */
function readValue(value: string): Reading {
  const unreadable = (why: string): Reading => ({ readable: false, why });
  const [issuer = '', ...rest] = value.split(';').map((part) => part.replace(/^[ \t]+|[ \t]+$/g, ''));
  if (issuer !== '' && !/^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$/.test(issuer))
    return unreadable('its CA is no domain name');
  const parameters = new Map<string, string>();
  const sole = rest.length === 1 && rest[0] === '';
  for (const part of sole ? [] : rest) {
    const match = /^([A-Za-z0-9]+)[ \t]*=[ \t]*([\x21-\x3a\x3c-\x7e]*)$/.exec(part);
    if (match === null)
      return unreadable(part === '' ? 'it has an empty parameter' : `parameter ${part} is malformed`);
    const tag = match[1]!.toLowerCase();
    if (parameters.has(tag)) return unreadable(`it has ${tag} twice`);
    parameters.set(tag, match[2]!);
  }
  return { readable: true, issuer: issuer.toLowerCase(), parameters };
}
