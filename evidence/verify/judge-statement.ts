// The statement and its history -> verdicts: whether a machine vouches for it, what it says, what came before.

import { covers } from '../../src/lib/domain.ts';
import { readHistory } from '../history.ts';
import { type StatedCertificate, type Statement, statementDigest } from '../statement.ts';
import type { Verdicts } from './checks.ts';
import { readAttestation, type StatedQuote, sha256, textIn } from './documents.ts';
import { type Identity, judgeWithLog, readLog } from './identity.ts';
import type { ReadBundle } from './judge-host.ts';
import type { QuoteJudge } from './judge-quotes.ts';
import { type Fetched, ownConnection, type Seen } from './seen.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

type StatementChecks = Pick<Verdicts, 'statement.quote' | 'statement.content' | 'statement.history'>;

export interface StatementJudgement {
  readonly verdicts: StatementChecks;
  /** Undefined unless the report data of its quote is its own. */
  readonly statement: Statement | undefined;
  /** Every certificate of an intact history; undefined if it is not known to be intact. */
  readonly certificates: readonly StatedCertificate[] | undefined;
}

export async function judgeStatement(
  seen: Seen,
  bundle: ReadBundle,
  quotes: QuoteJudge,
  ofBundle: Identity | undefined,
): Promise<StatementJudgement> {
  const read = readStated(seen.statement);
  const quote = 'verdict' in read ? read : await judgeStated(read, quotes, ofBundle);
  const statement = 'verdict' in read ? undefined : read.statement;
  const history = judgeHistory(seen.history, statement);
  return {
    statement,
    certificates: history.verdict.verdict === 'pass' ? history.certificates : undefined,
    verdicts: {
      'statement.quote': quote,
      'statement.content':
        statement === undefined
          ? notRun('there is no statement that a quote is for')
          : judgeContent(statement, seen, bundle),
      'statement.history': history.verdict,
    },
  };
}

/** The file as it is to be read, or why it is not. */
function readStated(file: Fetched): StatedQuote | Verdict {
  if (file.state === 'absent') return notRun(`attestation.json is not there (${file.why})`);
  if (file.state === 'missing') return notRun(`attestation.json: ${file.why}`);
  if (file.state === 'refused') return fail(`attestation.json: ${file.why}`);
  const read = readAttestation(file.body);
  return typeof read === 'string' ? fail(read) : read;
}

/** Any machine can have a quote made over any statement: it has to be that of the evidence. */
async function judgeStated(
  { document }: StatedQuote,
  quotes: QuoteJudge,
  ofBundle: Identity | undefined,
): Promise<Verdict> {
  const sound = await judgeWithLog(document, (quote) => quotes.judge(quote));
  const { identity } = readLog(document);
  if (sound.verdict !== 'pass' || ofBundle === undefined) return sound;
  if (identity?.appId === ofBundle.appId && identity.composeHash === ofBundle.composeHash) return sound;
  return fail(
    `its quote is of the app ${identity?.appId} with compose hash ${identity?.composeHash}, that of the bundle of ${ofBundle.appId} with ${ofBundle.composeHash}`,
  );
}

function judgeContent(statement: Statement, seen: Seen, { account }: ReadBundle): Verdict {
  const { host } = seen;
  const connection = ownConnection(seen);
  if (!statement.domains.some((domain) => covers(domain, host)))
    return fail(`the statement is for ${list(statement.domains)}, not for ${host}`);
  const wire = connection === undefined ? undefined : sha256(connection.spki);
  const own = statement.certificates.find(({ spki }) => spki === wire);
  if (wire !== undefined && own === undefined)
    return fail(
      `the key served is ${wire}, the statement has ${list(statement.certificates.map(({ spki }) => spki))}`,
    );
  if (own !== undefined && !own.names.some((name) => covers(name, host)))
    return fail(`the certificate with this key is for ${list(own.names)} by the statement`);
  if (account !== undefined && statement.account.uri !== account)
    return fail(`the account is ${account} by the bundle, ${statement.account.uri} by the statement`);
  if (wire === undefined || account === undefined)
    return notRun('the key or the account to compare with is missing');
  return pass(`the statement of ${statement.time} names ${host}, the key ${wire} and ${account}`);
}

function list(values: readonly string[]): string {
  const shown = values.slice(0, 5).join(', ');
  if (values.length === 0) return 'nothing';
  return values.length > 5 ? `${shown} and ${values.length - 5} more` : shown;
}

/** A statement takes more than 256 bytes, and a file has a mebibyte. */
const MOST_STATEMENTS = 4096;

function judgeHistory(
  file: Fetched,
  statement: Statement | undefined,
): { readonly verdict: Verdict; readonly certificates: readonly StatedCertificate[] } {
  const of = (verdict: Verdict) => ({ verdict, certificates: [] });
  if (file.state === 'absent') return of(notRun(`history.jsonl is not there (${file.why})`));
  if (file.state === 'missing') return of(notRun(`history.jsonl: ${file.why}`));
  if (file.state === 'refused') return of(fail(`history.jsonl: ${file.why}`));
  const text = textIn(file.body);
  if (text === undefined) return of(fail('history.jsonl is not UTF-8'));
  if (text.split('\n', MOST_STATEMENTS + 1).length > MOST_STATEMENTS)
    return of(fail(`history.jsonl has more than ${MOST_STATEMENTS} lines`));
  const { entries, faults } = readHistory(text);
  const [fault] = faults;
  if (fault !== undefined) return of(fail(`history.jsonl: ${fault.message}`));
  const last = entries.at(-1);
  if (last === undefined) return of(fail('history.jsonl is empty'));
  if (statement === undefined) return of(notRun('there is no proven statement in which it should end'));
  if (last.digest !== statementDigest(statement))
    return of(fail(`the history ends in ${last.digest}, the statement is ${statementDigest(statement)}`));
  return {
    verdict: pass(`${entries.length} statements, each linked to the one before, end in this one`),
    certificates: entries.flatMap((entry) => entry.statement.certificates),
  };
}
