// The part of the table of settings that is about replicas; see settings.ts.

import type { Setting } from './setting.ts';

export const fleetSettings: readonly Setting[] = [
  {
    name: 'STORE_URL',
    meaning:
      'Where the replicas of one app keep account, certificates and orders together, instead of each in its STATE_DIR: `postgres://user@host/database`, `rediss://user@host/0` (Redis or Valkey; with `?sentinel=NAME` or `?cluster=true`, and more of them as `&nodes=host:port,host:port`) or `s3://KEY@bucket/prefix?endpoint=https://…&region=…`. See [fleet.md](fleet.md).',
    byDefault: 'everything is kept in STATE_DIR',
    example: 'postgres://ingress@db.example.net/ingress',
    secret: true,
    security:
      'Secret where it has a password. All of what is kept is sealed: who runs the store can neither read nor change it, but can delete it, refuse it, or show a newcomer an older state. TLS is verified; `?sslmode=disable`, `redis://` and an `http://` endpoint do without.',
  },
  {
    name: 'STORE_PASSWORD',
    meaning: 'The password for STORE_URL, or the secret access key for S3, where that has none.',
    byDefault: '',
    example: 'correct-horse',
    secret: true,
    security: 'Secret. Who has it can delete what is kept, not read it.',
  },
  {
    name: 'STORE_CA_FILE',
    meaning: 'PEM of the roots that the store may be under, in the place of the public ones.',
    byDefault: '',
    example: '/run/secrets/store-ca.pem',
  },
  {
    name: 'STORE_KEY',
    meaning:
      "The key that seals what is kept in the store, of 32 bytes in base64 or hex, the same for every replica. Several, with spaces between: the first seals, all of them open. Needed where the app's keys do not come from the dstack KMS.",
    byDefault: 'derived from the KMS',
    example: 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=',
    secret: true,
    security: 'Secret. Who has it and can read the store has the account key and all certificates.',
  },
  {
    name: 'STORE_KEY_GENERATION',
    meaning:
      'Which key from the KMS seals; those with lower numbers still open, and the next one. Raise it by one at every replica to change the key: each record is sealed anew when it changes, and all of them by `dstack-ingress store reseal`.',
    byDefault: '1',
    example: '2',
  },
  {
    name: 'FLEET',
    meaning:
      "`derived`: two or three replicas without a store. Account and certificate keys are derived from the app's key at the dstack KMS, and a certificate that one replica has obtained is read by the others from its public evidence. For `dns-01` alone. See [fleet.md](fleet.md).",
    byDefault: 'replicas share a store, or there is one',
    example: 'derived',
    security:
      "No certificate key is secret from the app's other versions: every one that the KMS still admits can derive the keys of all certificates, past and coming, and so can every container that has the agent's socket.",
  },
  {
    name: 'FLEET_PORT',
    meaning:
      'With `FLEET=derived`: the port at which visitors reach the domains, where replicas look for each other.',
    byDefault: '443',
    example: '8443',
  },
];
