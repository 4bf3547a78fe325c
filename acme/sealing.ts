// Seals what is kept where others can write: nobody reads it, and nothing is taken for something else or for another version.

import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { StorageError } from './storage.ts';

export interface SealingKey {
  /** Says in each record which key it was sealed with. */
  readonly id: Buffer;
  readonly key: Buffer;
}

export interface Opened {
  /** Counts the changes of this record. */
  readonly counter: number;
  /** Undefined: it was removed. */
  readonly bytes: Buffer | undefined;
}

export interface Sealing {
  seal(name: string, content: Opened): Buffer;
  /** Throws StorageError: `unreadable` if none of our keys sealed it, `hostile` if one did and this is not what it sealed. */
  open(name: string, sealed: Buffer): Opened;
  /** Whether it names the key that seals now. */
  isCurrent(sealed: Buffer): boolean;
}

/** "dstack-ingress sealed", version 1. */
const MAGIC = Buffer.from('DIS1');
const ID_BYTES = 8;
const IV_BYTES = 12;
const TAG_BYTES = 16;
const HEADER_BYTES = MAGIC.length + ID_BYTES + 8;
const REMOVED = Buffer.from([0]);
const PRESENT = Buffer.from([1]);

/** From a secret of at least 32 random bytes (RFC 5869). */
export function sealingKey(secret: Uint8Array): SealingKey {
  const derive = (what: string, bytes: number) =>
    Buffer.from(hkdfSync('sha256', secret, new Uint8Array(), `dstack-ingress store v1 ${what}`, bytes));
  return { id: derive('id', ID_BYTES), key: derive('key', 32) };
}

/** The first of `keys` seals, all of them open. Nothing that is sealed in one namespace opens in another. */
export function createSealing(keys: readonly [SealingKey, ...SealingKey[]], namespace: string): Sealing {
  const place = (name: string) => Buffer.concat([namespace, name].flatMap(withLength));
  return {
    isCurrent: (sealed) => sealed.subarray(4, 4 + ID_BYTES).equals(keys[0].id),
    seal(name, { counter, bytes }) {
      const [{ id, key }] = keys;
      const count = Buffer.alloc(8);
      count.writeBigUInt64BE(BigInt(counter));
      const header = Buffer.concat([MAGIC, id, count]);
      const iv = randomBytes(IV_BYTES);
      const cipher = createCipheriv('aes-256-gcm', key, iv);
      cipher.setAAD(Buffer.concat([header, place(name)]));
      const plain = bytes === undefined ? REMOVED : Buffer.concat([PRESENT, bytes]);
      return Buffer.concat([header, iv, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    },
    open(name, sealed) {
      const header = sealed.subarray(0, HEADER_BYTES);
      if (sealed.length <= HEADER_BYTES + IV_BYTES + TAG_BYTES || !header.subarray(0, 4).equals(MAGIC))
        throw new StorageError('unreadable', `${name} is not sealed: something else has written it`);
      const id = header.subarray(4, 4 + ID_BYTES);
      const known = keys.find((each) => each.id.equals(id));
      if (known === undefined)
        throw new StorageError(
          'unreadable',
          `${name} was sealed with key ${id.toString('hex')}, which this replica does not have`,
        );
      const iv = sealed.subarray(HEADER_BYTES, HEADER_BYTES + IV_BYTES);
      const decipher = createDecipheriv('aes-256-gcm', known.key, iv, { authTagLength: TAG_BYTES });
      decipher.setAAD(Buffer.concat([header, place(name)]));
      decipher.setAuthTag(sealed.subarray(-TAG_BYTES));
      try {
        const body = sealed.subarray(HEADER_BYTES + IV_BYTES, -TAG_BYTES);
        const plain = Buffer.concat([decipher.update(body), decipher.final()]);
        const counter = Number(header.readBigUInt64BE(4 + ID_BYTES));
        return { counter, bytes: plain[0] === 0 ? undefined : plain.subarray(1) };
      } catch {
        throw new StorageError(
          'hostile',
          `${name} is not what was sealed there: it was changed, or moved from another place`,
        );
      }
    },
  };
}

/** The lengths keep two texts from being read as two others. */
function withLength(text: string): Buffer[] {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return [length, bytes];
}
