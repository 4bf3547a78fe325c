// All that was seen of a host, and what its reader expects -> every verdict. Asks nobody, and says the same every time.

import type { Report, Verdicts } from './checks.ts';
import { reportOf } from './checks.ts';
import type { Expected } from './expected.ts';
import { judgeAttest } from './judge-attest.ts';
import { judgeCt } from './judge-ct.ts';
import { judgeDns } from './judge-dns.ts';
import { judgeFleet } from './judge-fleet.ts';
import { judgeBundle, judgeConnection, readBundle } from './judge-host.ts';
import { judgeMachine } from './judge-machine.ts';
import { judgeQuotes } from './judge-quotes.ts';
import { judgeStatement } from './judge-statement.ts';
import { intelRoot } from './quote-rules.ts';
import type { Seen } from './seen.ts';

/** `at` rules every date. */
export async function judge(seen: Seen, expected: Expected, at: Date): Promise<Report> {
  const bundle = readBundle(seen.bundle);
  const quotes = await judgeQuotes(
    bundle.quote?.quote,
    seen.collateral,
    {
      root: expected.quoteRoot ?? (await intelRoot()),
      at,
      ...(expected.tcb !== undefined && { allowedTcb: expected.tcb }),
      ...(expected.advisories !== undefined && { allowedAdvisories: expected.advisories }),
    },
    seen.withoutCollateral,
  );
  const machine = judgeMachine(bundle.quote, expected);
  const {
    statement,
    certificates,
    verdicts: stated,
  } = await judgeStatement(seen, bundle, quotes, machine.identity);
  const { host } = seen;
  const fleet = await judgeFleet(seen, {
    quotes,
    ownQuote: bundle.quote?.quote,
    identity: machine.identity,
    statement,
    expected,
  });
  const verdicts: Verdicts = {
    ...judgeConnection(seen, { at, ca: expected.ca }),
    ...judgeBundle(seen),
    ...quotes.verdicts,
    ...machine.verdicts,
    ...stated,
    ...(fleet !== undefined && { 'fleet.replicas': fleet }),
    ...(await judgeAttest(seen, machine.identity, quotes)),
    ...judgeDns(seen.dns, { host, account: bundle.account, statement, expected: expected.caa }),
    ...judgeCt(seen, { at, certificates, expected: expected.ct }),
  };
  return reportOf(verdicts);
}
