// Hashes of passwords as password files hold them: which of them can be checked, and whether a password has given one.

import { hash as digestOf, timingSafeEqual } from 'node:crypto';
import { hashSync as bcrypt } from 'bcryptjs';

/** glibc's crypt() takes no more either. A longer one could make the checks below work for seconds. */
export const LONGEST_PASSWORD_BYTES = 512;
/** A step more takes twice as long: 14 are about two seconds of a core. */
const MOST_BCRYPT_COST = 14;
const MOST_SHA_ROUNDS = 200_000;
const CURE = 'make a new one with `htpasswd -B`';

const BCRYPT = /^(\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{22})([./A-Za-z0-9]{31})$/;
const MD5_CRYPT = /^(\$apr1\$|\$1\$)([^$]{0,8})\$([./A-Za-z0-9]{22})$/;
const SHA_CRYPT = /^\$([56])\$(?:rounds=(\d{1,9})\$)?([^$]{0,16})\$([./A-Za-z0-9]{43}|[./A-Za-z0-9]{86})$/;
const SHA1 = /^\{SHA\}([A-Za-z0-9+/]{27}=)$/;
const SALTED_SHA1 = /^\{SSHA\}([A-Za-z0-9+/]{28,}={0,2})$/;
const PLAIN = /^\{PLAIN\}(.*)$/s;

const SHA1_BYTES = 20;
const SHA_CRYPT_ROUNDS = 5_000;
const FEWEST_SHA_ROUNDS = 1_000;

export interface HashFault {
  readonly fault: string;
  readonly cure: string;
}

/** Undefined: passwords can be checked against it. Says nothing of the hash itself, which must not reach a log. */
export function hashFault(hash: string): HashFault | undefined {
  if (PLAIN.test(hash) || SHA1.test(hash) || SALTED_SHA1.test(hash) || MD5_CRYPT.test(hash)) return undefined;
  const cost = BCRYPT.exec(hash)?.[2];
  if (cost !== undefined) return costFault(Number(cost));
  const sha = SHA_CRYPT.exec(hash);
  if (sha !== null && sha[4]!.length === (sha[1] === '5' ? 43 : 86)) return roundsFault(Number(sha[2] ?? 0));
  return { fault: formFault(hash), cure: CURE };
}

function costFault(cost: number): HashFault | undefined {
  if (cost >= 4 && cost <= MOST_BCRYPT_COST) return undefined;
  const fault = `a bcrypt hash of cost ${cost}; 4 to ${MOST_BCRYPT_COST} are taken`;
  return { fault, cure: 'make a new one with `htpasswd -B -C 10`' };
}

function roundsFault(rounds: number): HashFault | undefined {
  if (rounds <= MOST_SHA_ROUNDS) return undefined;
  return { fault: `a crypt hash of ${rounds} rounds; at most ${MOST_SHA_ROUNDS} are taken`, cure: CURE };
}

function formFault(hash: string): string {
  if (/^[./A-Za-z0-9]{13}$/.test(hash))
    return 'a hash of the old crypt(), which reads eight characters and is guessed within hours';
  if (/^\$(?:y|gy|7)\$/.test(hash)) return 'a yescrypt or scrypt hash, which is not supported';
  if (/^\$argon2/.test(hash)) return 'an Argon2 hash, which is not supported';
  if (/^\$2x\$/.test(hash)) return 'a hash of a bcrypt that is known to be broken';
  if (/^(?:\$(?:2[aby]|apr1|[156])\$|\{S?SHA\})/.test(hash)) return 'a hash that is cut off or damaged';
  return 'no hash of a known form; a password itself is written {PLAIN}password';
}

/** What hashFault() refuses belongs to no password. Takes as long as the hash wants: never on the event loop of a server. */
export function belongs(password: string, hash: string): boolean {
  const bytes = Buffer.from(password);
  if (bytes.length > LONGEST_PASSWORD_BYTES || hashFault(hash) !== undefined) return false;
  const plain = PLAIN.exec(hash)?.[1];
  // Digests are of one length: the comparison does not tell that of the password.
  if (plain !== undefined) return isSame(digest('sha256', Buffer.from(plain)), digest('sha256', bytes));
  const sha1 = SHA1.exec(hash)?.[1];
  if (sha1 !== undefined) return isSame(Buffer.from(sha1, 'base64'), digest('sha1', bytes));
  const salted = SALTED_SHA1.exec(hash)?.[1];
  if (salted !== undefined) return isSaltedSha1(Buffer.from(salted, 'base64'), bytes);
  const [, salt, , wanted] = BCRYPT.exec(hash) ?? [];
  if (salt !== undefined) return isSame(Buffer.from(wanted!), Buffer.from(bcrypt(password, salt).slice(-31)));
  return isCrypt(hash, bytes);
}

function isSaltedSha1(wanted: Buffer, password: Buffer): boolean {
  const salt = wanted.subarray(SHA1_BYTES);
  return isSame(wanted.subarray(0, SHA1_BYTES), digest('sha1', Buffer.concat([password, salt])));
}

function isCrypt(hash: string, password: Buffer): boolean {
  const [, magic, salt, wanted] = MD5_CRYPT.exec(hash) ?? [];
  if (magic !== undefined)
    return isSame(Buffer.from(wanted!), Buffer.from(md5Crypt(password, magic, Buffer.from(salt!))));
  const [, kind, rounds, shaSalt, shaWanted] = SHA_CRYPT.exec(hash)!;
  const algorithm = kind === '5' ? 'sha256' : 'sha512';
  const times = Math.max(Number(rounds ?? SHA_CRYPT_ROUNDS), FEWEST_SHA_ROUNDS);
  const got = shaCrypt(algorithm, password, Buffer.from(shaSalt!), times);
  return isSame(Buffer.from(shaWanted!), Buffer.from(got));
}

function isSame(one: Buffer, other: Buffer): boolean {
  return one.length === other.length && timingSafeEqual(one, other);
}

function digest(algorithm: 'md5' | 'sha1' | 'sha256' | 'sha512', bytes: Buffer): Buffer {
  return digestOf(algorithm, bytes, 'buffer');
}

/** Poul-Henning Kamp's, of FreeBSD; Apache's differs by its name alone. */
function md5Crypt(password: Buffer, magic: string, salt: Buffer): string {
  const mixed = digest('md5', Buffer.concat([password, salt, password]));
  const first = [password, Buffer.from(magic), salt, repeated(mixed, password.length)];
  for (let bits = password.length; bits > 0; bits >>= 1)
    first.push(bits & 1 ? Buffer.alloc(1) : password.subarray(0, 1));
  const last = stretched('md5', digest('md5', Buffer.concat(first)), password, salt, 1_000);
  const places = [0, 1, 2, 3, 4].map((i): Places => [i, i + 6, i === 4 ? 5 : i + 12]);
  return places.map((of) => encoded(last, of, 4)).join('') + encoded(last, [-1, -1, 11], 2);
}

/** Ulrich Drepper's, of glibc. */
function shaCrypt(algorithm: 'sha256' | 'sha512', password: Buffer, salt: Buffer, rounds: number): string {
  const mixed = digest(algorithm, Buffer.concat([password, salt, password]));
  const parts = [password, salt, repeated(mixed, password.length)];
  for (let bits = password.length; bits > 0; bits >>= 1) parts.push(bits & 1 ? mixed : password);
  const first = digest(algorithm, Buffer.concat(parts));
  const ofPassword = digest(algorithm, repeated(password, password.length ** 2));
  const ofSalt = digest(algorithm, repeated(salt, salt.length * (16 + first[0]!)));
  const last = stretched(
    algorithm,
    first,
    repeated(ofPassword, password.length),
    repeated(ofSalt, salt.length),
    rounds,
  );
  const [third, step] = algorithm === 'sha256' ? [10, 21] : [21, 22];
  const places = Array.from(
    { length: third },
    (_, i) => [0, third, 2 * third].map((at) => (at + i * step) % (3 * third)) as unknown as Places,
  );
  const rest = algorithm === 'sha256' ? encoded(last, [-1, 31, 30], 3) : encoded(last, [-1, -1, 63], 2);
  return places.map((of) => encoded(last, of, 4)).join('') + rest;
}

/** What makes each guess dear. */
function stretched(
  algorithm: 'md5' | 'sha256' | 'sha512',
  first: Buffer,
  password: Buffer,
  salt: Buffer,
  rounds: number,
): Buffer {
  const nothing = Buffer.alloc(0);
  let last = first;
  for (let i = 0; i < rounds; i++) {
    const odd = i % 2 === 1;
    const parts = [
      odd ? password : last,
      i % 3 === 0 ? nothing : salt,
      i % 7 === 0 ? nothing : password,
      odd ? last : password,
    ];
    last = digest(algorithm, Buffer.concat(parts));
  }
  return last;
}

function repeated(bytes: Buffer, length: number): Buffer {
  return length === 0 ? Buffer.alloc(0) : Buffer.alloc(length, bytes);
}

const LETTERS = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/** Of three bytes; -1: none. */
type Places = readonly [number, number, number];

function encoded(bytes: Buffer, [high, middle, low]: Places, letters: number): string {
  const value = ((bytes[high] ?? 0) << 16) | ((bytes[middle] ?? 0) << 8) | (bytes[low] ?? 0);
  return Array.from({ length: letters }, (_, i) => LETTERS[(value >> (6 * i)) & 63]).join('');
}
