// What fleet.json says -> one verdict: how many replicas there are, which answered, and whether each is vouched for by a machine.

import { covers } from '../../src/lib/domain.ts';
import { type Fleet, fleetSchema } from '../fleet.ts';
import type { Attestation, Statement } from '../statement.ts';
import { isFor, jsonIn, readQuoteFields, sha256 } from './documents.ts';
import type { Expected } from './expected.ts';
import { type Identity, readLog } from './identity.ts';
import type { QuoteJudge } from './judge-quotes.ts';
import { modelOf } from './model.ts';
import { ownConnection, type Seen } from './seen.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

export interface FleetQuestion {
  readonly quotes: QuoteJudge;
  /** That of the bundle: the collateral is for its platform. */
  readonly ownQuote: string | undefined;
  /** Of the bundle's quote, and the proven statement of the replica that answered; undefined if they are not proven. */
  readonly identity: Identity | undefined;
  readonly statement: Statement | undefined;
  readonly expected: Pick<Expected, 'composeHash'>;
}

/** Undefined where the host publishes none: it has no replicas, or none that share a store. */
export async function judgeFleet(seen: Seen, question: FleetQuestion): Promise<Verdict | undefined> {
  const { fleet: file } = seen;
  if (file === undefined || file.state === 'absent') return undefined;
  // Where nothing could be asked, nothing says that this host has replicas.
  if (file.state === 'missing')
    return seen.statement.state === 'missing' ? undefined : notRun(`fleet.json: ${file.why}`);
  if (file.state === 'refused') return fail(`fleet.json: ${file.why}`);
  const read = fleetSchema.safeParse(jsonIn(file.body));
  if (!read.success) return fail('fleet.json is not a list of statements with their quotes');
  const verdicts: Verdict[] = [];
  for (const replica of read.data.replicas) verdicts.push(await judgeReplica(replica, seen, question));
  return summed(read.data, verdicts, question.statement);
}

async function judgeReplica(
  { statement, ...fields }: Attestation,
  seen: Seen,
  { quotes, ownQuote, identity, expected }: FleetQuestion,
): Promise<Verdict> {
  const document = readQuoteFields(fields);
  if (typeof document === 'string') return fail(document);
  if (!isFor(document, statement)) return fail('its quote is for something else than its statement');
  if (ownQuote !== undefined && modelOf(document.quote) !== modelOf(ownQuote))
    return notRun('its machine is of another model than the one that answered: run it until that answers');
  const quote = await quotes.judge(document.quote);
  if (quote.verdict !== 'pass') return quote;
  const { replay, system, identity: own } = readLog(document);
  if (own === undefined) return fail((system ?? replay).reason);
  if (own.appId !== statement.appId || own.instanceId !== statement.instanceId)
    return fail(`its machine is instance ${own.instanceId} of app ${own.appId}, which it does not say`);
  if (identity !== undefined && (own.appId !== identity.appId || own.keyProvider !== identity.keyProvider))
    return fail(`it belongs to app ${own.appId}, the one that answered to ${identity.appId}`);
  if (expected.composeHash !== undefined && own.composeHash !== expected.composeHash)
    return fail(`it runs the compose file ${own.composeHash}, which is not the one that is expected`);
  return judgeKey(statement, seen);
}

function judgeKey(statement: Statement, seen: Seen): Verdict {
  const connection = ownConnection(seen);
  if (connection === undefined) return notRun('there is no key of a connection to compare with');
  const wire = sha256(connection.spki);
  const held = statement.certificates.filter(({ names }) => names.some((name) => covers(name, seen.host)));
  if (held.length === 0) return notRun(`it states no certificate for ${seen.host}`);
  if (held.some(({ spki }) => spki === wire)) return pass(wire);
  return notRun(`it states another key than the one that was met: a certificate may be changing`);
}

function summed(
  { replicas }: Fleet,
  verdicts: readonly Verdict[],
  statement: Statement | undefined,
): Verdict {
  const instances = replicas.map((each) => each.statement.instanceId);
  const twice = instances.find((one, i) => instances.indexOf(one) !== i);
  if (twice !== undefined) return fail(`fleet.json has two statements of instance ${twice}`);
  const named = verdicts.map((verdict, i) => ({ ...verdict, instance: instances[i] }));
  const bad = named.find(({ verdict }) => verdict === 'fail');
  if (bad !== undefined) return fail(`instance ${bad.instance}: ${bad.reason}`);
  const open = named.find(({ verdict }) => verdict === 'not-run');
  if (open !== undefined) return notRun(`instance ${open.instance}: ${open.reason}`);
  const composes = new Set(replicas.map((each) => each.statement.composeHash)).size;
  const files = composes === 1 ? 'one compose file' : `${composes} compose files`;
  const count = replicas.length === 1 ? 'one replica' : `${replicas.length} replicas`;
  const answered = statement?.instanceId;
  if (answered === undefined) return notRun(`${count}, and which of them answered is not proven`);
  if (!instances.includes(answered))
    return notRun(`${count}, and the one that answered, instance ${answered}, is not among them yet`);
  return pass(`${count} of ${files}, each attested with the key that was met; instance ${answered} answered`);
}
