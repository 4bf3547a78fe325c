// What DNS says, as many see it -> verdicts: whether they agree, and whether CAA lets this account alone issue.

import { type IssuePermission, readPermissions } from '../../dns/caa.ts';
import type { Statement } from '../statement.ts';
import type { Verdicts } from './checks.ts';
import type { Expected } from './expected.ts';
import type { SeenDns, SeenRecords, SeenServer } from './seen.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

type DnsChecks = Pick<
  Verdicts,
  'dns.agreement' | 'dns.authority' | 'caa.present' | 'caa.account' | 'caa.method'
>;

export interface DnsQuestion {
  readonly host: string;
  /** Of the bundle. */
  readonly account: string | undefined;
  readonly statement: Statement | undefined;
  readonly expected: Expected['caa'];
}

export function judgeDns({ resolvers, authority, why }: SeenDns, question: DnsQuestion): DnsChecks {
  const answered = resolvers.filter(({ caa }) => caa !== undefined);
  const agreement = judgeAgreement(resolvers, answered);
  const [first] = answered;
  return {
    'dns.agreement': agreement,
    'dns.authority': judgeAuthority(authority, why, agreement.verdict === 'fail' ? undefined : first),
    ...judgeCaa(agreement.verdict === 'fail' ? undefined : first?.caa, question),
  };
}

function judgeAgreement(all: readonly SeenServer[], answered: readonly SeenServer[]): Verdict {
  const [first, ...others] = answered;
  const silent = all.find(({ caa }) => caa === undefined);
  if (all.length === 0) return notRun('there is no resolver to ask about such a host');
  if (first === undefined || others.length === 0) {
    const why = silent === undefined ? '' : `: ${silent.server}: ${silent.why}`;
    return notRun(`${answered.length} of ${all.length} resolvers answered, and two are needed${why}`);
  }
  for (const other of others) {
    const difference = differenceOf(first, other);
    if (difference !== undefined) return fail(difference);
  }
  const said = describeSteps(first.caa ?? []);
  return pass(
    `${answered.length} of ${all.length} resolvers answered, and say the same: ${said}; ${describeValidation(answered)}`,
  );
}

/** No signature of a zone is verified here, so that is all that can be said of DNSSEC. */
function describeValidation(answered: readonly SeenServer[]): string {
  const validated = answered.filter(({ authentic }) => authentic === true).length;
  if (validated === 0) return 'none of them has validated it (DNSSEC)';
  return `${validated === answered.length ? 'all' : validated} of them have validated it (DNSSEC)`;
}

function judgeAuthority(
  servers: readonly SeenServer[],
  why: string | undefined,
  resolver: SeenServer | undefined,
): Verdict {
  const answered = servers.filter(({ caa }) => caa !== undefined);
  if (answered.length === 0)
    return notRun(`no server of the zone answered: ${why ?? servers[0]?.why ?? 'there is none'}`);
  if (resolver === undefined) return notRun('the resolvers do not say one thing to compare with');
  for (const server of answered) {
    const difference = differenceOf(server, resolver);
    if (difference !== undefined) return fail(difference);
  }
  return pass(`${answered.length} of the zone's servers answered, and say what the resolvers say`);
}

/** What both answered, and differently. */
function differenceOf(a: SeenServer, b: SeenServer): string | undefined {
  for (const kind of ['alias', 'app'] as const) {
    const [one, other] = [a[kind], b[kind]];
    if (one === undefined || other === undefined || same(one, other)) continue;
    return `${words[kind]}: ${a.server} says ${shown(one)}, ${b.server} says ${shown(other)}`;
  }
  const [one, other] = [describeSteps(a.caa ?? []), describeSteps(b.caa ?? [])];
  return one === other ? undefined : `CAA: ${a.server} says ${one}, ${b.server} says ${other}`;
}

const words = { alias: 'the alias of the host', app: 'the app that the gateway sends visitors to' } as const;
const LONGEST_SHOWN = 300;

function same(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}

function shown(values: readonly string[]): string {
  const text = values.length === 0 ? 'nothing' : values.join(' and ');
  return text.length > LONGEST_SHOWN ? `${text.slice(0, LONGEST_SHOWN)}…` : text;
}

function describeSteps(steps: readonly SeenRecords[]): string {
  const last = steps.at(-1);
  return last === undefined || last.values.length === 0
    ? 'no CAA up to the top'
    : `${last.name} CAA ${last.values.join(' and ')}`;
}

// CAA: the records that decide for the name, and whom they let issue.

function judgeCaa(
  steps: readonly SeenRecords[] | undefined,
  question: DnsQuestion,
): Pick<Verdicts, 'caa.present' | 'caa.account' | 'caa.method'> {
  if (steps === undefined) {
    const none = notRun('DNS does not say one thing about CAA');
    return { 'caa.present': none, 'caa.account': none, 'caa.method': none };
  }
  const deciding = steps.at(-1);
  const { permissions, unreadable } = readPermissions(deciding?.values ?? []);
  if (permissions.length + unreadable.length === 0) {
    const rest = notRun('there is no CAA record that says who may issue');
    const where = deciding?.values.length
      ? `the CAA records of ${deciding.name} have no issue`
      : 'no CAA record';
    return {
      'caa.present': fail(`${where} from ${question.host} up to the top`),
      'caa.account': rest,
      'caa.method': rest,
    };
  }
  const parentNote = noteOnWildcards(question.host, deciding?.name);
  return {
    'caa.present': pass(`${deciding?.name} CAA ${shown(deciding?.values ?? [])}${parentNote}`),
    'caa.account': judgeAccount(permissions, question),
    'caa.method': judgeMethods(permissions, question),
  };
}

/** A certificate for `*.parent` serves the name as well, and the CAA of the parent rules it. */
function noteOnWildcards(host: string, decidedBy: string | undefined): string {
  const parent = host.slice(host.indexOf('.') + 1);
  return decidedBy === host && parent.includes('.')
    ? `; certificates for *.${parent} are ruled by the CAA of ${parent}, not by this`
    : '';
}

/** Of those that let anybody issue at all: `issue ";"` lets nobody. */
function open(permissions: readonly IssuePermission[]): IssuePermission[] {
  return permissions.filter(({ issuer }) => issuer !== '');
}

function judgeAccount(
  permissions: readonly IssuePermission[],
  { account: ofBundle, statement, expected, host }: DnsQuestion,
): Verdict {
  const account = expected?.account ?? ofBundle;
  if (account === undefined) return notRun('the bundle does not name an account');
  const opened = open(permissions);
  if (opened.length === 0) return fail(`no CAA record lets ${account} issue, nor anybody else`);
  const other = opened.find((permission) => permission.account !== account);
  if (other !== undefined) {
    const who = other.account === undefined ? `every account of ${other.issuer}` : other.account;
    return fail(`${other.record} lets ${who} issue, and the account of the evidence is ${account}`);
  }
  if (ofBundle !== undefined && ofBundle !== account)
    return fail(`the account of the bundle is ${ofBundle}, expected is ${account}`);
  // An account's URL binds only a CA that heeds it, and that is the account's own.
  const issuers = statedPermissions(statement, host).map(({ issuer }) => issuer);
  const stranger = opened.find(({ issuer }) => issuers.length > 0 && !issuers.includes(issuer));
  if (stranger !== undefined)
    return fail(`${stranger.record} lets another CA issue than the statement names (${issuers.join(', ')})`);
  return pass(`all that lets anybody issue names ${account} alone`);
}

function judgeMethods(
  permissions: readonly IssuePermission[],
  { statement, expected, host }: DnsQuestion,
): Verdict {
  const allowed =
    expected?.methods ?? statedPermissions(statement, host).flatMap(({ methods }) => methods ?? []);
  if (allowed.length === 0) return notRun('the statement names no method to compare with');
  const wide = open(permissions).find(
    ({ methods }) => methods === undefined || methods.some((method) => !allowed.includes(method)),
  );
  if (wide !== undefined) {
    const what = wide.methods === undefined ? 'every method' : wide.methods.join(', ');
    return fail(`${wide.record} allows ${what}, the statement ${allowed.join(', ')}`);
  }
  return pass(`restricted to ${[...new Set(allowed)].join(', ')}`);
}

/** What the statement says that CAA should be. */
function statedPermissions(statement: Statement | undefined, host: string): readonly IssuePermission[] {
  const caa = statement?.caa ?? {};
  const wildcard = `*${host.slice(host.indexOf('.'))}`;
  const own = Object.hasOwn(caa, host) ? host : wildcard;
  const values = Object.hasOwn(caa, own) ? caa[own]! : [];
  // For a wildcard the records say issuewild, which is read as such.
  return open([...readPermissions(values, own === wildcard).permissions]);
}
