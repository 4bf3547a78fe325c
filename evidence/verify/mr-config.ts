// MRCONFIGID: what the host was told to start, in the versions that dstack has for it.

import { keccak_256 } from '@noble/hashes/sha3.js';
import type { Identity } from './identity.ts';
import { type KeyProviderEvent, readKeyProvider } from './key-provider.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

/** As dstack numbers the sources of keys in the second version. */
const KINDS: Readonly<Record<string, number>> = { none: 0, 'local-sgx': 1, local: 1, kms: 2, tpm: 3 };
const PAYLOAD_BYTES = 32;

/** The register is 48 bytes: a version, 32 bytes, zeros. Zero as a whole: the host was told nothing, which is allowed. */
export function judgeConfig(mrConfigId: string, identity: Identity): Verdict {
  const bytes = Buffer.from(mrConfigId, 'hex');
  if (bytes.every((byte) => byte === 0)) return pass('MRCONFIGID is zero: it binds nothing, as is allowed');
  const version = bytes[0]!;
  const expected = version === 1 ? identity.composeHash : version === 2 ? second(identity) : undefined;
  if (expected === undefined) return notRun(`MRCONFIGID ${mrConfigId} has a version that is not known here`);
  const payload = bytes.subarray(1, 1 + PAYLOAD_BYTES).toString('hex');
  const padded = bytes.subarray(1 + PAYLOAD_BYTES).every((byte) => byte === 0);
  if (payload !== expected || !padded)
    return fail(`MRCONFIGID is ${mrConfigId}, the log makes 0${version}${expected} of it, then zeros`);
  return pass(`MRCONFIGID of version ${version} fits the log: ${payload}`);
}

/** keccak-256 of compose hash, app id, kind of key provider and its id; undefined for a kind that has no number. */
function second({ composeHash, appId, keyProvider }: Identity): string | undefined {
  const provider: KeyProviderEvent | undefined = readKeyProvider(keyProvider);
  const kind = provider === undefined ? undefined : KINDS[provider.name];
  if (provider === undefined || kind === undefined) return undefined;
  const parts = [hex(composeHash), hex(appId), Buffer.of(kind), hex(provider.id)];
  return Buffer.from(keccak_256(Buffer.concat(parts))).toString('hex');
}

function hex(text: string): Buffer {
  return Buffer.from(text, 'hex');
}
