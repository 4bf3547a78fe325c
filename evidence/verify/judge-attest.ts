// The answer to our nonce -> verdicts: a fresh quote, for this nonce, this connection, this key, by the same machine.

import {
  type AttestAnswer,
  attestAnswerSchema,
  attestLeaf,
  attestReportData,
  foldPath,
  verifyKeyProof,
} from '../attest-claims.ts';
import type { Verdicts } from './checks.ts';
import { jsonIn, type QuoteDocument, readQuoteFields, sha256 } from './documents.ts';
import { type Identity, readLog } from './identity.ts';
import type { QuoteJudge } from './judge-quotes.ts';
import type { Fetched, Seen } from './seen.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

type AttestChecks = Pick<
  Verdicts,
  'attest.quote' | 'attest.nonce' | 'attest.exporter' | 'attest.key' | 'attest.identity'
>;

export async function judgeAttest(
  { attest, connections }: Seen,
  ofBundle: Identity | undefined,
  quotes: QuoteJudge,
): Promise<AttestChecks> {
  const read = readAnswer(attest.answer);
  if ('fault' in read) {
    const rest = notRun('there is no answer to compare with');
    return {
      'attest.quote': read.fault,
      'attest.nonce': rest,
      'attest.exporter': rest,
      'attest.key': rest,
      'attest.identity': rest,
    };
  }
  const { answer, document } = read;
  return {
    'attest.quote': await judgeFresh(answer, document, quotes),
    'attest.nonce': compare('nonce', answer.nonce, attest.nonce),
    'attest.exporter': compare('keying material of the connection', answer.exporter, attest.exporter),
    'attest.key': judgeKey(answer, connections[attest.connection]?.spki),
    'attest.identity': judgeIdentity(document, ofBundle),
  };
}

type Read = { readonly fault: Verdict } | { readonly answer: AttestAnswer; readonly document: QuoteDocument };

function readAnswer(file: Fetched): Read {
  if (file.state === 'absent') return { fault: notRun(`the host gives no fresh quotes (${file.why})`) };
  if (file.state === 'missing') return { fault: notRun(`no fresh quote: ${file.why}`) };
  if (file.state === 'refused') return { fault: fail(`no fresh quote: ${file.why}`) };
  const read = attestAnswerSchema.safeParse(jsonIn(file.body));
  if (!read.success) {
    const [issue] = read.error.issues;
    const place = issue?.path.slice(0, 3).join('.') || 'the answer';
    return { fault: fail(`the answer is not what it should be: ${place}: ${issue?.message ?? ''}`) };
  }
  const document = readQuoteFields(read.data);
  if (typeof document === 'string')
    return { fault: fail(`the answer is not what it should be: ${document}`) };
  return { answer: read.data, document };
}

async function judgeFresh(
  answer: AttestAnswer,
  { quote, parsed }: QuoteDocument,
  quotes: QuoteJudge,
): Promise<Verdict> {
  const root = foldPath(attestLeaf(answer), answer.path);
  if (root.toString('hex') !== answer.root)
    return fail(`the path leads from the claims to ${root.toString('hex')}, the answer says ${answer.root}`);
  const wanted = attestReportData(root).toString('hex');
  if (parsed.reportData !== wanted)
    return fail(`the quote is for report data ${parsed.reportData}, the claims make ${wanted} of it`);
  const sound = await quotes.judge(quote);
  if (sound.verdict !== 'pass') return sound;
  return pass(`${sound.reason}, over what is claimed of this connection (${answer.path.length} steps)`);
}

function compare(what: string, claimed: string, ours: string): Verdict {
  return claimed === ours
    ? pass(`the ${what} is ours: ${ours}`)
    : fail(`the ${what} is ${claimed} in the answer, ours is ${ours}`);
}

function judgeKey(answer: AttestAnswer, spki: Buffer | undefined): Verdict {
  if (spki === undefined) return notRun('there is no connection to compare with');
  const ours = sha256(spki);
  if (answer.spki !== ours) return fail(`the key is ${answer.spki} in the answer, on the wire ${ours}`);
  if (!verifyKeyProof(attestLeaf(answer), spki, Buffer.from(answer.signature, 'hex')))
    return fail('the claims are not signed with the key of the certificate');
  return pass(`the claims are signed with the key of the certificate, ${ours}`);
}

function judgeIdentity(document: QuoteDocument, ofBundle: Identity | undefined): Verdict {
  if (ofBundle === undefined) return notRun('the bundle does not say for sure which machine made it');
  const { replay, system, identity } = readLog(document);
  if (identity === undefined) return fail(`its event log: ${(system ?? replay).reason}`);
  const names = ['appId', 'composeHash', 'instanceId'] as const;
  const other = names.find((name) => identity[name] !== ofBundle[name]);
  if (other !== undefined)
    return fail(`${words[other]} is ${identity[other]} now, in the bundle ${ofBundle[other]}`);
  return pass(`the same app, compose file and instance ${identity.instanceId}`);
}

const words = { appId: 'the app id', composeHash: 'the compose hash', instanceId: 'the instance' } as const;
