// What the doctor finds of the CA: its directory, our certificates and account on disk, and what failures have used up.

import type { Directory } from '../../acme/directory.ts';
import { entryFor, heldUntil } from '../../acme/ledger.ts';
import { pick } from '../../acme/selection.ts';
import type { Store } from '../../acme/store.ts';
import type { Config } from '../config/config.ts';
import type { Certificate } from '../lib/certificate.ts';
import type { Domain } from '../lib/domain.ts';
import { type Finding, findingsOf, told } from './doctor-report.ts';

export async function caFindings({ acme }: Config, directory: () => Promise<Directory>): Promise<Finding[]> {
  const { ok, warn, fail } = findingsOf('ca');
  let meta: Directory['meta'];
  try {
    ({ meta } = await directory());
  } catch (error) {
    return [
      fail(
        acme.directoryUrl,
        told(error),
        'no certificate can be ordered or renewed',
        'let this machine reach the CA, check ACME_DIRECTORY_URL, and ACME_CA_FILE for a CA with a private root',
      ),
    ];
  }
  const findings: Finding[] = [];
  if (meta.externalAccountRequired === true && acme.eab === undefined) {
    findings.push(
      fail(
        acme.directoryUrl,
        'wants an external account binding, and there is none',
        'the CA refuses the registration',
        'set ACME_EAB_KID and ACME_EAB_HMAC_KEY, which the CA gives you',
      ),
    );
  }
  const profiles = Object.keys(meta.profiles ?? {});
  if (acme.profile !== undefined && !profiles.includes(acme.profile)) {
    findings.push(
      fail(
        `ACME_PROFILE=${acme.profile}`,
        'the CA does not offer it',
        'the CA refuses the order',
        profiles.length === 0
          ? 'take it away: the CA has no profiles'
          : `choose one of ${profiles.join(', ')}`,
      ),
    );
  }
  if (acme.staging) {
    findings.push(
      warn(
        'ACME_STAGING=true',
        'certificates come from the staging environment',
        'no browser trusts them',
        'set it to false once everything works',
      ),
    );
  }
  return findings.length > 0 ? findings : [ok(acme.directoryUrl, 'answers')];
}

/** Reads the disk alone. Rejects as the store does. */
export async function certificateFindings(
  { certificates }: Config,
  store: Store,
  now: Date,
): Promise<Finding[]> {
  const stored = await store.readCertificates();
  const found = await Promise.all(certificates.map((names) => certificateFinding(names, stored, store, now)));
  return [...(await accountFinding(store)), ...found];
}

async function accountFinding(store: Store): Promise<Finding[]> {
  const { fail } = findingsOf('certificates');
  try {
    await store.readAccount();
    return [];
  } catch (error) {
    return [
      fail(
        'ACME account',
        told(error),
        'no other account is made in its place, for CAA names this one: nothing is ordered',
        `bring account.json back from a copy, or remove it from ${store.folder} to begin with a new account`,
      ),
    ];
  }
}

const DAY_MS = 86_400_000;

async function certificateFinding(
  names: readonly Domain[],
  stored: readonly Certificate[],
  store: Store,
  now: Date,
): Promise<Finding> {
  const { ok, warn, fail } = findingsOf('certificates');
  const subject = names.join(', ');
  const held = pick(stored, names);
  const damaged = await store.damagedCertificates(names[0]!);
  if (held === undefined) {
    const [file] = damaged;
    if (file === undefined) return ok(subject, 'has no certificate yet');
    return fail(
      subject,
      `${file.path} cannot be served: ${file.why}`,
      'visitors get no certificate',
      'nothing: another one is ordered; if that fails too, the log says why',
    );
  }
  const leftMs = held.notAfter.getTime() - now.getTime();
  if (leftMs <= 0)
    return fail(
      subject,
      `expired at ${held.notAfter.toISOString()}`,
      'browsers refuse it',
      'see budget, caa, provider and ca here for why it was not renewed',
    );
  const lifeMs = held.notAfter.getTime() - held.notBefore.getTime();
  if (held.notBefore > now)
    return fail(
      subject,
      `is valid from ${held.notBefore.toISOString()} only`,
      'browsers refuse it',
      "see whether the machine's clock is right",
    );
  // Renewals begin with a third of the life left: by now several have failed.
  if (leftMs < lifeMs / 6)
    return warn(
      subject,
      `expires in ${Math.floor(leftMs / DAY_MS)} days and was not renewed`,
      'then browsers refuse it',
      'see budget, caa, provider and ca here for why',
    );
  return ok(subject, `valid until ${held.notAfter.toISOString()}`);
}

/** What the ledger says of the CA's limits: failures count against them, and so does a certificate that came too soon. */
export async function budgetFindings({ certificates }: Config, store: Store, now: Date): Promise<Finding[]> {
  const { ok, warn } = findingsOf('budget');
  const ledger = await store.readLedger();
  const stored = await store.readCertificates();
  const findings = certificates.flatMap((names) => {
    const entry = entryFor(ledger, names);
    if (entry === undefined || entry.failures + entry.crashes === 0) return [];
    const until = heldUntil(entry, now, pick(stored, names) !== undefined);
    const next = until > now ? `the next attempt is at ${until.toISOString()}` : 'the next attempt is due';
    const times = entry.failures > 0 ? `${entry.failures} failed` : `${entry.crashes} did not end`;
    return [
      warn(
        names.join(', '),
        `of the last attempts ${times}, and ${next}: ${entry.reason}`,
        "CAs count failures: Let's Encrypt allows five an hour for a name, and pauses names that go on failing",
        'mend what the reason says; then it is tried again by itself, or at once after SIGUSR2',
      ),
    ];
  });
  return findings.length > 0 ? findings : [ok('attempts', 'none of the last ones failed')];
}
