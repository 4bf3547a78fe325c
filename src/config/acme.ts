// The certificate authority: which one, the account there, and how and when certificates are ordered.

import type { ChallengeType } from '../../acme/issuer.ts';
import type { Environment } from './environment.ts';
import { type ReadFile, readRoots } from './files.ts';
import {
  parseChoice,
  parseCount,
  parseHttpsUrl,
  parseNginxTime,
  parseSwitch,
  quote,
  ValueError,
} from './values.ts';

export interface AcmeSettings {
  readonly directoryUrl: string;
  /** PEM of roots trusted for the ACME server beside the system's. */
  readonly ca: string | undefined;
  readonly email: string | undefined;
  readonly staging: boolean;
  readonly profile: string | undefined;
  /** hmacKey as the CA gave it, base64url. Secret. */
  readonly eab: { readonly kid: string; readonly hmacKey: string } | undefined;
  readonly challenge: ChallengeType;
  /** kms: derived from the app's key, on no disk. */
  readonly accountKey: 'file' | 'kms';
  readonly renewIntervalMs: number;
  readonly renewDaysBefore: number | undefined;
}

/** Not kept with the ACME client, which takes a quarter of a second to load: certificates on disk serve before that. */
const letsEncrypt = {
  production: 'https://acme-v02.api.letsencrypt.org/directory',
  staging: 'https://acme-staging-v02.api.letsencrypt.org/directory',
} as const;

const HALF_A_DAY_MS = 43_200_000;

export function readAcme(environment: Environment, readFile: ReadFile): AcmeSettings {
  const staging = environment.read(['ACME_STAGING', 'CERTBOT_STAGING'], parseSwitch) ?? false;
  const url = environment.read('ACME_DIRECTORY_URL', parseHttpsUrl);
  if (staging && url !== undefined && url !== letsEncrypt.staging) {
    environment.refuse(
      'ACME_STAGING',
      'ACME_DIRECTORY_URL names another directory',
      'wants one of the two unset',
    );
  }
  return {
    directoryUrl: url ?? (staging ? letsEncrypt.staging : letsEncrypt.production),
    ca: environment.read('ACME_CA_FILE', (path) => readRoots(path, readFile)),
    email: environment.read(['ACME_EMAIL', 'CERTBOT_EMAIL'], parseEmail),
    staging,
    profile: environment.read('ACME_PROFILE', parseProfile),
    eab: readEab(environment),
    challenge: environment.read('CHALLENGE_TYPE', (text) => parseChoice(text, CHALLENGE_TYPES)) ?? 'dns-01',
    accountKey:
      environment.read('ACME_ACCOUNT_KEY', (text) => parseChoice(text, ['file', 'kms'])) ??
      (environment.has('FLEET') ? 'kms' : 'file'),
    renewIntervalMs: environment.read('RENEW_INTERVAL', parseNginxTime) ?? HALF_A_DAY_MS,
    renewDaysBefore: environment.read('RENEW_DAYS_BEFORE', (text) => parseCount(text, 1, 365)),
  };
}

const CHALLENGE_TYPES = ['dns-01', 'tls-alpn-01', 'http-01', 'dns-persist-01'] as const;

function readEab(environment: Environment): AcmeSettings['eab'] {
  const kid = environment.read('ACME_EAB_KID', (text) => text);
  const hmacKey = environment.read('ACME_EAB_HMAC_KEY', parseHmacKey);
  for (const [name, other] of [
    ['ACME_EAB_KID', 'ACME_EAB_HMAC_KEY'],
    ['ACME_EAB_HMAC_KEY', 'ACME_EAB_KID'],
  ] as const) {
    if (environment.has(other) && !environment.has(name))
      environment.refuse(name, `is not set, but ${other} is`, 'the CA gave you both: wants both or neither');
  }
  return kid === undefined || hmacKey === undefined ? undefined : { kid, hmacKey };
}

/** RFC 8555 §7.3.4: the CA hands it out as base64url. Some print it with padding, or with plain base64's letters. */
function parseHmacKey(text: string): string {
  const key = text.replace(/=+$/, '').replaceAll('+', '-').replaceAll('/', '_');
  if (/^[A-Za-z0-9_-]{16,}$/.test(key)) return key;
  throw new ValueError('is not a key in base64url', 'wants it as the CA gave it, at least 16 characters');
}

function parseEmail(text: string): string {
  const address = text.replace(/^mailto:/i, '');
  if (/^[^\s@,<>?]+@[^\s@,<>?]+$/.test(address)) return address;
  throw new ValueError(`${quote(text)} is not one e-mail address`, 'wants one as in ops@example.com');
}

function parseProfile(text: string): string {
  if (/^[\w.-]{1,64}$/.test(text)) return text;
  throw new ValueError(
    `${quote(text)} is not a profile name`,
    "wants one of the CA's directory, as in shortlived",
  );
}
