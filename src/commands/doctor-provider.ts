// What the doctor finds of the DNS provider: whether its credentials may read each zone, and, if asked to try, write it.

import { randomBytes } from 'node:crypto';
import { DnsError, type DnsProvider, type DnsRecord } from '../../dns/provider.ts';
import type { Config } from '../config/config.ts';
import { baseOf } from '../lib/domain.ts';
import { challengeName } from '../records/records.ts';
import { type Finding, findingsOf, told } from './doctor-report.ts';

const { ok, fail } = findingsOf('provider');
const PROBE_TTL_SECONDS = 60;

/** Without `write` nothing is changed; with it one TXT record a domain is made and removed. One domain after the other. */
export async function providerFindings({ dns, domains }: Config, write: boolean): Promise<Finding[]> {
  if (dns.provider === undefined) return [];
  const provider = dns.provider.kind.create(dns.provider.credentials);
  const findings: Finding[] = [];
  for (const base of new Set(domains.map(baseOf))) {
    const name = challengeName(base, dns.delegationZone);
    try {
      findings.push(await examineZone(name, provider, write));
    } catch (error) {
      findings.push(refusal(name, error));
      // What is wrong with the credentials is wrong for all domains.
      if (error instanceof DnsError && error.code === 'credentials-refused') break;
    }
  }
  return findings;
}

async function examineZone(name: string, provider: DnsProvider, write: boolean): Promise<Finding> {
  const blind = provider.challengesOnly === true;
  if (!blind) await provider.list(name, 'TXT');
  if (write) return tryWriting(name, provider);
  const seen = blind ? 'can only write' : 'may read the zone';
  return ok(name, `${provider.name} ${seen}; whether it may write shows doctor --write`);
}

function refusal(name: string, error: unknown): Finding {
  const { subject = told(error), cure = 'see what the provider says of it' } =
    error instanceof DnsError ? error : {};
  const why = 'records and challenges are written through it: without it nothing can be ordered';
  return fail(name, subject, why, cure);
}

async function tryWriting(challenge: string, provider: DnsProvider): Promise<Finding> {
  const name =
    provider.challengesOnly === true
      ? challenge
      : challenge.replace('_acme-challenge', '_dstack-ingress-doctor');
  const record: DnsRecord = { name, type: 'TXT', value: `doctor-${randomBytes(9).toString('base64url')}` };
  await provider.add(record, PROBE_TTL_SECONDS);
  try {
    await provider.remove(record);
  } catch (error) {
    return fail(
      name,
      `a record could be written and not removed: ${told(error)}`,
      'challenges would pile up',
      `remove it: ${name} TXT "${record.value}"; and let the token delete records`,
    );
  }
  return ok(name, `${provider.name} may write the zone: a record was made and removed`);
}
