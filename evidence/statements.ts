// Makes statements: what is served now, linked to what was stated before, with a quote over it, kept before it is shown.

import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import type { Certificate } from '../src/lib/certificate.ts';
import { type Clock, systemClock } from '../src/lib/clock.ts';
import type { Log } from '../src/lib/log.ts';
import type { Agent } from './agent.ts';
import { spkiDigest } from './attest-claims.ts';
import { type BundleFile, fileOf } from './bundle.ts';
import { historyLine } from './history.ts';
import { createHistoryFile, type HistoryFile } from './history-file.ts';
import {
  type Attestation,
  STATEMENT_TYPE,
  type StatedCertificate,
  type Statement,
  statementReportData,
  statementSchema,
} from './statement.ts';

/** What a statement says of the account. */
export type StatedAccount = Pick<Statement, 'account' | 'caa'>;

export interface StatementsOptions {
  readonly agent: Pick<Agent, 'info' | 'quote'>;
  /** Where the histories are kept, one for each instance. */
  readonly folder: string;
  /** For the account of this URL and these names. */
  account(uri: string, names: readonly string[]): Promise<StatedAccount>;
  readonly bootId: string;
  readonly revision: string;
  readonly log: Log;
  readonly clock?: Clock;
}

export interface Statements {
  /** A statement about these and a quote over it; nothing of it is kept yet. Rejects if one of the two cannot be had. */
  draft(account: { readonly uri: string }, certificates: readonly Certificate[]): Promise<Attestation>;
  /**
   * Adds it to the history. Resolves, once that is on the disk, to the two files that show it. Rejects as
   * HistoryFile.append() does; then it was never made.
   */
  commit(attestation: Attestation): Promise<readonly BundleFile[]>;
}

/** As long as every digest is. */
const SOME_DIGEST = '0'.repeat(64);

export function createStatements(options: StatementsOptions): Statements {
  const { agent, bootId, revision, clock = systemClock, log } = options;

  // Instances may share a folder: each has a history of its own, for none can link to what another is about to say.
  async function history(): Promise<HistoryFile> {
    const { instanceId } = await agent.info();
    const name = instanceId === '' ? 'history.jsonl' : `history-${instanceId.toLowerCase()}.jsonl`;
    known ??= createHistoryFile(join(options.folder, name), { log, clock });
    return known;
  }
  let known: HistoryFile | undefined;

  async function describe(uri: string, certificates: readonly Certificate[]): Promise<Statement> {
    const domains = [...new Set(certificates.flatMap(({ names }) => names))].sort();
    const { appId, instanceId, composeHash = '' } = await agent.info();
    return statementSchema.parse({
      type: STATEMENT_TYPE,
      time: clock.now().toISOString(),
      domains,
      certificates: certificates.map(stated),
      ...(await options.account(uri, domains)),
      appId: appId.toLowerCase(),
      instanceId: instanceId.toLowerCase(),
      composeHash: composeHash.toLowerCase(),
      bootId,
      revision,
      previous: SOME_DIGEST,
    });
  }

  return {
    async draft({ uri }, certificates) {
      const described = await describe(uri, certificates);
      const previous = await (await history()).previous(Buffer.byteLength(historyLine(described)));
      const statement = { ...described, previous };
      return { statement, ...(await agent.quote(statementReportData(statement))) };
    },
    async commit(attestation) {
      const text = await (await history()).append(attestation.statement);
      return [
        fileOf(
          'attestation.json',
          'application/json',
          `${JSON.stringify(attestation)}\n`,
          'what this instance serves and for whom, with a TDX quote over it',
        ),
        fileOf(
          'history.jsonl',
          'application/jsonl',
          text,
          'every such statement so far, the last one is that of attestation.json',
        ),
      ];
    },
  };
}

function stated(certificate: Certificate): StatedCertificate {
  const { names, chain, serial, issuer, sha256, notBefore, notAfter } = certificate;
  return {
    names: [...names],
    serial: serial.toLowerCase(),
    issuer,
    spki: spkiDigest(new X509Certificate(chain).publicKey),
    sha256,
    notBefore: notBefore.toISOString(),
    notAfter: notAfter.toISOString(),
  };
}
