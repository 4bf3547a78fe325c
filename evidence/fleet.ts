// The file of the fleet, fleet.json: the latest statement of every replica with its own quote, so that who met one can judge all.

import { z } from 'zod';
import { type BundleFile, fileOf } from './bundle.ts';
import { type Attestation, attestationSchema } from './statement.ts';

export const FLEET_FILE = 'fleet.json';

/** Each entry is an attestation.json, as its replica publishes it. */
export const fleetSchema = z.strictObject({
  type: z.literal('dstack-ingress/fleet/v1'),
  replicas: z.array(attestationSchema).min(1),
});

export type Fleet = z.infer<typeof fleetSchema>;

/** A reader takes no file beyond a mebibyte. */
const MOST_BYTES = 900 * 1024;

/** In the order of their instances; of too many, those that spoke last. */
export function fleetFile(attestations: readonly Attestation[]): BundleFile {
  const latestFirst = [...attestations].sort((a, b) => (a.statement.time < b.statement.time ? 1 : -1));
  let bytes = 0;
  const replicas = latestFirst.filter((one) => {
    bytes += JSON.stringify(one).length + 1;
    return bytes < MOST_BYTES;
  });
  replicas.sort((a, b) => (a.statement.instanceId < b.statement.instanceId ? -1 : 1));
  return fileOf(
    FLEET_FILE,
    'application/json',
    `${JSON.stringify({ type: 'dstack-ingress/fleet/v1', replicas })}\n`,
    'what every replica of this app serves, each with a TDX quote of its own over it',
  );
}
