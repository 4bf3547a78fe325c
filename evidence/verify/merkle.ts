// The tree of a certificate log: whether a leaf is in it, and the proof of that out of its tiles (RFC 6962 §2.1, static-ct-api).

import { createHash } from 'node:crypto';

export function leafHash(entry: Uint8Array): Buffer {
  return hash(Buffer.of(0), entry);
}

function nodeHash(left: Uint8Array, right: Uint8Array): Buffer {
  return hash(Buffer.of(1), left, right);
}

/** Whether this path leads from the leaf at `index` to the root of a tree of so many leaves (RFC 9162 §2.1.3.2). */
export function isIncluded(
  leaf: Uint8Array,
  { index, size, path, root }: { index: number; size: number; path: readonly Uint8Array[]; root: Uint8Array },
): boolean {
  if (index >= size) return false;
  let [at, last] = [index, size - 1];
  let ours: Buffer = Buffer.from(leaf);
  for (const other of path) {
    if (last === 0) return false;
    if (at % 2 === 1 || at === last) {
      ours = nodeHash(other, ours);
      while (at % 2 === 0 && at !== 0) [at, last] = [half(at), half(last)];
    } else {
      ours = nodeHash(ours, other);
    }
    [at, last] = [half(at), half(last)];
  }
  return last === 0 && ours.equals(root);
}

/** So many hashes has a tile, and so many levels of the tree are between two of its own. */
const TILE_WIDTH = 256;
const TILE_LEVELS = 8;
const HASH_BYTES = 32;

/** By the path of a tile, as in `tile/0/x001/067.p/3`. Rejects if it cannot be had. */
export type FetchTile = (path: string, bytes: number) => Promise<Uint8Array>;

/** The path from the leaf at `index` to the root of a tree of `size` leaves (RFC 6962 §2.1.1). Rejects as `fetch` does. */
export async function pathFromTiles(index: number, size: number, fetch: FetchTile): Promise<Buffer[]> {
  const tiles = new Map<string, Promise<Uint8Array>>();
  const tile = (level: number, number: number): Promise<Uint8Array> => {
    const width = Math.min(Math.floor(size / TILE_WIDTH ** level) - number * TILE_WIDTH, TILE_WIDTH);
    const path = `tile/${level}/${tileNumber(number)}${width < TILE_WIDTH ? `.p/${width}` : ''}`;
    const known = tiles.get(path) ?? fetch(path, width * HASH_BYTES);
    tiles.set(path, known);
    return known;
  };

  /** Of so many leaves from `start` on, a power of two that stands at a multiple of itself. */
  async function whole(start: number, count: number): Promise<Buffer> {
    const level = Math.floor(Math.log2(count) / TILE_LEVELS);
    const width = count / TILE_WIDTH ** level;
    const first = start / TILE_WIDTH ** level;
    const bytes = await tile(level, Math.floor(first / TILE_WIDTH));
    const offset = first % TILE_WIDTH;
    let hashes: Buffer[] = Array.from({ length: width }, (_, i) =>
      Buffer.from(bytes.subarray((offset + i) * HASH_BYTES, (offset + i + 1) * HASH_BYTES)),
    );
    while (hashes.length > 1)
      hashes = hashes.flatMap((left, i) => (i % 2 === 0 ? [nodeHash(left, hashes[i + 1]!)] : []));
    return hashes[0]!;
  }

  async function subtree(start: number, end: number): Promise<Buffer> {
    const left = largestBelow(end - start);
    if (left === end - start) return whole(start, left);
    return nodeHash(await whole(start, left), await subtree(start + left, end));
  }

  async function pathIn(start: number, end: number): Promise<Buffer[]> {
    if (end - start === 1) return [];
    const middle = start + largestBelow(end - start - 1);
    const [own, other] =
      index < middle
        ? [pathIn(start, middle), subtree(middle, end)]
        : [pathIn(middle, end), subtree(start, middle)];
    const [path, sibling] = await Promise.all([own, other]);
    return [...path, sibling];
  }

  return pathIn(0, size);
}

/** In groups of three digits, all but the last with an x: 1234067 is x001/x234/067. */
function tileNumber(number: number): string {
  const digits = String(number);
  const groups = digits.padStart(Math.ceil(digits.length / 3) * 3, '0').match(/\d{3}/g) ?? [];
  return groups.map((group, i) => (i === groups.length - 1 ? group : `x${group}`)).join('/');
}

/** The largest power of two that is not above it. */
function largestBelow(count: number): number {
  return 2 ** Math.floor(Math.log2(count));
}

function half(value: number): number {
  return Math.floor(value / 2);
}

function hash(...parts: Uint8Array[]): Buffer {
  const digest = createHash('sha256');
  for (const part of parts) digest.update(part);
  return digest.digest();
}
