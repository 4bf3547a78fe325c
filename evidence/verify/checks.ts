// Every check there is: its id, where it belongs, and what its failure means for whoever relies on the host.

import type { Verdict } from './verdict.ts';

export const groups = {
  connection: 'The connection',
  bundle: 'The files under /evidences/',
  quote: 'The quote',
  log: 'The event log',
  app: 'The app and the machine',
  statement: 'The statement and its history',
  attest: 'The fresh quote, for this connection',
  dns: 'DNS',
  ct: 'Certificate Transparency',
} as const;
export type Group = keyof typeof groups;

interface About {
  readonly group: Group;
  /** If it failed: what that means, and what to do. */
  readonly means: string;
  readonly cure: string;
}

const OTHER_SIDE = 'do not use this host, and tell whoever runs it';

/** In the order in which they are told. */
export const checkTable = {
  'tls.chain': {
    group: 'connection',
    means: 'visitors get a warning, and whoever answers need not be the owner of the name',
    cure: 'look at the certificate; give --ca if the CA is a private one',
  },
  'tls.pinned': {
    group: 'connection',
    means: 'the next connection may end at another machine than the one that was checked',
    cure: 'run it again; several instances with keys of their own cannot be told from an impostor',
  },
  'bundle.fetch': {
    group: 'bundle',
    means: 'the host does not publish the evidence that an ingress publishes',
    cure: 'check the address, and that nothing in front of the ingress answers for it',
  },
  'bundle.format': {
    group: 'bundle',
    means: 'the evidence is damaged, or was not made by an ingress',
    cure: OTHER_SIDE,
  },
  'bundle.sums': {
    group: 'bundle',
    means: 'a file is not the one that the quote vouches for, or one that has to be vouched for is not',
    cure: OTHER_SIDE,
  },
  'bundle.leaf': {
    group: 'bundle',
    means: 'the key of this connection is not the one in the evidence: somebody may sit in between',
    cure: 'run it again in a minute, should a certificate be changing; if it stays, do not use this host',
  },
  'quote.collateral': {
    group: 'quote',
    means:
      'what the vendor says of its processors is forged or out of date, so nothing can be said of this one',
    cure: 'fetch the collateral anew, or name another PCCS with --pccs',
  },
  'quote.signature': {
    group: 'quote',
    means: 'no genuine processor vouches for this machine',
    cure: `${OTHER_SIDE}; for a simulated platform give its --root`,
  },
  'quote.revocation': {
    group: 'quote',
    means: 'the vendor has revoked the processor or what vouches for it: its keys may be known',
    cure: OTHER_SIDE,
  },
  'quote.tcb': {
    group: 'quote',
    means: 'the processor or its firmware has known holes, through which the machine may be read',
    cure: 'ask for an update of the platform, or allow the state in a --policy if you know what it means',
  },
  'quote.attributes': {
    group: 'quote',
    means: 'the machine may be read or changed from outside while it runs',
    cure: OTHER_SIDE,
  },
  'quote.binding': {
    group: 'quote',
    means: 'the quote was made for other files than these',
    cure: OTHER_SIDE,
  },
  'log.replay': {
    group: 'log',
    means: 'the event log is not that of this machine, so nothing in it can be believed',
    cure: OTHER_SIDE,
  },
  'log.system': {
    group: 'log',
    means:
      'what the machine measured at boot can be read in two ways, and an app may have written a part of it',
    cure: OTHER_SIDE,
  },
  'app.id': {
    group: 'app',
    means: 'this is another app than the one that you expect',
    cure: 'check the id that you gave; if it is right, do not use this host',
  },
  'app.compose': {
    group: 'app',
    means: 'this machine runs another compose file, that is other programs, than you expect',
    cure: 'get the file that is deployed, read it, and give it with --compose',
  },
  'app.config': {
    group: 'app',
    means: 'the machine was started for another app than its log names',
    cure: OTHER_SIDE,
  },
  'os.image': {
    group: 'app',
    means:
      'this machine runs another operating system than you trust, and everything it says of itself depends on that',
    cure: 'compare with the measurements of the releases that you trust',
  },
  'key.provider': {
    group: 'app',
    means: 'the keys of the app come from a service that you did not name',
    cure: 'ask who runs that service, and name it in the --policy if you trust it',
  },
  'statement.quote': {
    group: 'statement',
    means: 'no machine vouches for the statement as it is published',
    cure: OTHER_SIDE,
  },
  'statement.content': {
    group: 'statement',
    means: 'the machine does not say that it serves this host with this key under this account',
    cure: 'run it again in a minute, should a certificate be changing; if it stays, do not use this host',
  },
  'statement.history': {
    group: 'statement',
    means: 'a statement was left out, changed or put in, so certificates may be hidden',
    cure: 'compare with a history that somebody kept, and ask whoever runs the host',
  },
  'fleet.replicas': {
    group: 'statement',
    means: 'another replica, which the next connection may end at, is not the machine that it should be',
    cure: OTHER_SIDE,
  },
  'attest.quote': {
    group: 'attest',
    means: 'no genuine machine vouches for what was just said about this connection',
    cure: OTHER_SIDE,
  },
  'attest.nonce': {
    group: 'attest',
    means: 'the answer is to another question, and may be an old one',
    cure: OTHER_SIDE,
  },
  'attest.exporter': {
    group: 'attest',
    means:
      'this connection does not end in the machine that answers: somebody who has its key sits in between',
    cure: OTHER_SIDE,
  },
  'attest.key': {
    group: 'attest',
    means: 'the machine that answers does not have the key of this connection',
    cure: OTHER_SIDE,
  },
  'attest.identity': {
    group: 'attest',
    means: 'the machine that answers is not the one that made the evidence',
    cure: 'run it again; if several instances stand behind the name, each has evidence of its own',
  },
  'dns.agreement': {
    group: 'dns',
    means: 'a resolver lies or has old answers, so a CA may see other records than these',
    cure: 'wait for the time to live of the records, and name other resolvers with --resolver',
  },
  'dns.authority': {
    group: 'dns',
    means:
      "the zone's own servers say something else than the resolvers: an answer is forged, or a change is on its way",
    cure: 'wait for the time to live of the records, and run it again',
  },
  'caa.present': {
    group: 'dns',
    means: 'any CA may issue a certificate for this name to whoever answers for it',
    cure: 'ask whoever owns the zone for a CAA record that names the account in acme-account.json',
  },
  'caa.account': {
    group: 'dns',
    means: 'somebody else than this machine may get a certificate for this name',
    cure: 'ask whoever owns the zone to remove what lets others issue',
  },
  'caa.method': {
    group: 'dns',
    means: 'the account may prove its right to the name in a way that the machine does not use',
    cure: 'ask whoever owns the zone to add validationmethods to the CAA records',
  },
  'ct.sources': {
    group: 'ct',
    means: 'certificates that one source does not show cannot be seen in another',
    cure: 'name other sources with --ct',
  },
  'ct.logged': {
    group: 'ct',
    means: 'this certificate was kept from the public logs, and nobody can watch for its like',
    cure: OTHER_SIDE,
  },
  'ct.history': {
    group: 'ct',
    means:
      'somebody has a certificate for this name that the machine never had: he can read what visitors send',
    cure: 'ask whoever owns the zone who ordered it, and have it revoked',
  },
} as const satisfies Readonly<Record<string, About>>;

export type CheckId = keyof typeof checkTable;
const allIds = Object.keys(checkTable) as readonly CheckId[];

/** A check of something that not every host has: it is left out where there is nothing to be judged. */
type Optional = 'fleet.replicas';
const optional: readonly CheckId[] = ['fleet.replicas'] satisfies Optional[];

/** What every report has. */
export const checkIds = allIds.filter((id) => !optional.includes(id));

export type Verdicts = Readonly<Record<Exclude<CheckId, Optional>, Verdict>> &
  Readonly<Partial<Record<Optional, Verdict>>>;

export interface Check extends Verdict {
  readonly id: CheckId;
}

export interface Report {
  /** `unknown`: nothing failed, and something could not be run. */
  readonly verdict: 'pass' | 'fail' | 'unknown';
  /** Each id once, in the order of the table; fleet.replicas only where the host publishes a fleet.json. */
  readonly checks: readonly Check[];
}

export function reportOf(verdicts: Verdicts): Report {
  const checks = allIds.flatMap((id) => {
    const verdict = verdicts[id];
    return verdict === undefined ? [] : [{ id, ...verdict }];
  });
  const has = (verdict: Verdict['verdict']) => checks.some((check) => check.verdict === verdict);
  return { verdict: has('fail') ? 'fail' : has('not-run') ? 'unknown' : 'pass', checks };
}

/** What the failure of a check means, and what to do. */
export function adviceOn(id: CheckId): { readonly means: string; readonly cure: string } {
  return checkTable[id];
}
