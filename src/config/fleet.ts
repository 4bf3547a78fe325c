// A fleet without a store: what replicas share is derived from the app's key, and read from each other.

import type { AcmeSettings } from './acme.ts';
import type { Environment } from './environment.ts';
import { parseChoice, parsePort } from './values.ts';

export interface FleetSettings {
  readonly kind: 'derived';
  /** Where visitors, and so the replicas too, reach the domains. */
  readonly port: number;
}

const HTTPS_PORT = 443;

export function readFleet(
  environment: Environment,
  { challenge, accountKey }: Pick<AcmeSettings, 'challenge' | 'accountKey'>,
  servesEvidence: boolean,
): FleetSettings | undefined {
  const kind = environment.read('FLEET', (text) => parseChoice(text, ['derived']));
  const port = environment.read('FLEET_PORT', parsePort);
  if (!environment.has('FLEET')) {
    if (environment.has('FLEET_PORT')) environment.warn('FLEET_PORT', 'does nothing: FLEET is not set');
    return undefined;
  }
  const refuse = (subject: string, cure: string) => environment.refuse('FLEET', subject, cure);
  if (challenge !== 'dns-01')
    refuse(
      `is derived, and CHALLENGE_TYPE is ${challenge}, which the CA may ask any replica for`,
      'wants CHALLENGE_TYPE=dns-01, or STORE_URL in its place',
    );
  if (environment.has('STORE_URL'))
    refuse('is derived, and STORE_URL is set: replicas share the store then', 'wants one of the two unset');
  if (accountKey === 'file')
    refuse('is derived, and ACME_ACCOUNT_KEY is file: replicas would have an account each', 'wants kms');
  if (!servesEvidence)
    refuse(
      'is derived, and EVIDENCE_SERVER is off: replicas read the chain from each other there',
      'wants it on',
    );
  return kind && { kind, port: port ?? HTTPS_PORT };
}
