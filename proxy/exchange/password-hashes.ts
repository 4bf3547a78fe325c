// Whether a password belongs to a hash of a password file: the forms that htpasswd and crypt(3) write.

import { createHash, timingSafeEqual } from 'node:crypto';
import { compareSync } from 'bcryptjs';

/** Beyond it crypt(3) itself stops, and a guess should not cost more than others. */
const LONGEST_PASSWORD = 1_024;

/** False as well for a form that is not known. Takes as long as the form wants: never on the event loop of a server. */
export function belongs(password: string, hash: string): boolean {
  const bytes = Buffer.from(password, 'utf8');
  if (bytes.length > LONGEST_PASSWORD) return false;
  if (/^\$2[abxy]\$\d\d\$.{53}$/.test(hash)) return compareSync(password, hash.replace(/^\$2[xy]\$/, '$2b$'));
  if (hash.startsWith('{PLAIN}')) return isSame(password, hash.slice(7));
  if (hash.startsWith('{SHA}')) return isSame(sha1(bytes).toString('base64'), hash.slice(5));
  if (hash.startsWith('{SSHA}')) return isSalted(bytes, Buffer.from(hash.slice(6), 'base64'));
  const apr = /^\$(apr1|1)\$([^$]{0,8})\$(.{22})$/.exec(hash);
  if (apr !== null) return isSame(md5Crypt(bytes, Buffer.from(apr[2]!, 'latin1'), `$${apr[1]}$`), apr[3]!);
  const sha = /^\$([56])\$(?:rounds=(\d{1,9})\$)?([^$]{0,16})\$([./0-9A-Za-z]+)$/.exec(hash);
  if (sha !== null) {
    const rounds = sha[2] === undefined ? 5_000 : Number(sha[2]);
    if (rounds > MOST_ROUNDS) return false;
    const salt = Buffer.from(sha[3]!, 'latin1');
    return isSame(shaCrypt(bytes, salt, Math.max(1_000, rounds), sha[1] === '6'), sha[4]!);
  }
  return false;
}

/** glibc allows 999,999,999, which is an hour. */
const MOST_ROUNDS = 1_000_000;

function isSame(one: string, other: string): boolean {
  const [a, b] = [one, other].map((text) => createHash('sha256').update(text).digest());
  return timingSafeEqual(a!, b!);
}

function sha1(...parts: readonly Buffer[]): Buffer {
  const digest = createHash('sha1');
  for (const part of parts) digest.update(part);
  return digest.digest();
}

function isSalted(password: Buffer, known: Buffer): boolean {
  if (known.length < 20) return false;
  return timingSafeEqual(sha1(password, known.subarray(20)), known.subarray(0, 20));
}

const LETTERS = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/** Three bytes become four letters, the lowest bits first. */
function letters(value: number, count: number): string {
  let text = '';
  for (let i = 0, rest = value; i < count; i++, rest >>>= 6) text += LETTERS[rest & 63];
  return text;
}

/** `bytes` repeated to a length. */
function filled(bytes: Buffer, length: number): Buffer {
  return Buffer.alloc(length, bytes);
}

function digestOf(kind: string, parts: readonly Buffer[]): Buffer {
  const digest = createHash(kind);
  for (const part of parts) digest.update(part);
  return digest.digest();
}

/** FreeBSD's and Apache's: a thousand rounds of MD5. */
function md5Crypt(password: Buffer, salt: Buffer, magic: string): string {
  const inner = digestOf('md5', [password, salt, password]);
  const first: Buffer[] = [password, Buffer.from(magic), salt, filled(inner, password.length)];
  for (let bits = password.length; bits > 0; bits >>= 1)
    first.push((bits & 1) === 1 ? Buffer.from([0]) : password.subarray(0, 1));
  let last = digestOf('md5', first);
  for (let round = 0; round < 1_000; round++) {
    const odd = (round & 1) === 1;
    const parts = [odd ? password : last];
    if (round % 3 !== 0) parts.push(salt);
    if (round % 7 !== 0) parts.push(password);
    parts.push(odd ? last : password);
    last = digestOf('md5', parts);
  }
  const triples = [
    [0, 6, 12],
    [1, 7, 13],
    [2, 8, 14],
    [3, 9, 15],
    [4, 10, 5],
  ] as const;
  return triples.map((triple) => tripled(last, triple)).join('') + letters(last[11]!, 2);
}

function tripled(bytes: Buffer, [a, b, c]: readonly [number, number, number]): string {
  return letters((bytes[a]! << 16) | (bytes[b]! << 8) | bytes[c]!, 4);
}

/** Drepper's: SHA-256 or SHA-512 in so many rounds. */
function shaCrypt(password: Buffer, salt: Buffer, rounds: number, long: boolean): string {
  const kind = long ? 'sha512' : 'sha256';
  const inner = digestOf(kind, [password, salt, password]);
  const first: Buffer[] = [password, salt, filled(inner, password.length)];
  for (let bits = password.length; bits > 0; bits >>= 1) first.push((bits & 1) === 1 ? inner : password);
  let last = digestOf(kind, first);
  const p = filled(digestOf(kind, Array<Buffer>(password.length).fill(password)), password.length);
  const s = filled(digestOf(kind, Array<Buffer>(16 + last[0]!).fill(salt)), salt.length);
  for (let round = 0; round < rounds; round++) {
    const odd = (round & 1) === 1;
    const parts = [odd ? p : last];
    if (round % 3 !== 0) parts.push(s);
    if (round % 7 !== 0) parts.push(p);
    parts.push(odd ? last : p);
    last = digestOf(kind, parts);
  }
  return long ? encoded(last, 21, 63) : encoded(last, 10, 30);
}

/** The bytes in the order of the reference: each triple is the one before it, turned and moved by one. */
function encoded(bytes: Buffer, step: number, whole: number): string {
  let text = '';
  let [a, b, c] = [0, step, 2 * step];
  for (let done = 0; done < whole; done += 3) {
    text += tripled(bytes, [a, b, c]);
    // SHA-512 turns to the left, SHA-256 to the right.
    [a, b, c] = step === 21 ? [b + 1, c + 1, a + 1] : [c + 1, a + 1, b + 1];
  }
  return text + (step === 21 ? letters(bytes[63]!, 2) : letters((bytes[31]! << 8) | bytes[30]!, 3));
}
