// What a fuzz target is: input of strangers, generated so that it shrinks, and what must hold whatever it says.

import fc from 'fast-check';

export interface FuzzTarget<Input = unknown> {
  readonly name: string;
  readonly input: fc.Arbitrary<Input>;
  /** Throws where a promise is broken. What the parser may refuse it with is part of the promise. */
  check(input: Input): void | Promise<void>;
  /** Hostile inputs that grow: `size` is about the number of bytes. Reading four times as much may not cost much more than four times as much. */
  readonly growing: Readonly<Record<string, (size: number) => Input>>;
  /** Ends what check() has opened, if anything. */
  readonly close?: () => Promise<void>;
}

/** Keeps the type of the input, so that check() and growing agree. */
export function fuzzTarget<Input>(target: FuzzTarget<Input>): FuzzTarget {
  return target as FuzzTarget;
}

type Mutation =
  | { readonly kind: 'set'; readonly at: number; readonly byte: number }
  | { readonly kind: 'insert'; readonly at: number; readonly bytes: Uint8Array }
  | { readonly kind: 'remove'; readonly at: number; readonly count: number }
  | { readonly kind: 'repeat'; readonly at: number; readonly count: number; readonly times: number }
  | { readonly kind: 'cut'; readonly at: number };

/** One of the well-formed seeds with a few mutations, or bytes without any form; `tokens` are what the format likes to see. */
export function mutated(seeds: readonly Buffer[], tokens: readonly Buffer[] = []): fc.Arbitrary<Buffer> {
  const at = fc.nat({ max: 65_535 });
  const inserted = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 8 }),
    ...(tokens.length === 0 ? [] : [fc.constantFrom(...tokens)]),
  );
  const mutation: fc.Arbitrary<Mutation> = fc.oneof(
    fc.record({ kind: fc.constant('set' as const), at, byte: fc.nat({ max: 255 }) }),
    fc.record({ kind: fc.constant('insert' as const), at, bytes: inserted }),
    fc.record({ kind: fc.constant('remove' as const), at, count: fc.integer({ min: 1, max: 40 }) }),
    fc.record({
      kind: fc.constant('repeat' as const),
      at,
      count: fc.integer({ min: 1, max: 40 }),
      times: fc.integer({ min: 1, max: 20 }),
    }),
    fc.record({ kind: fc.constant('cut' as const), at }),
  );
  return fc.oneof(
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)) },
    {
      weight: 9,
      arbitrary: fc
        .tuple(
          fc.array(fc.constantFrom(...seeds), { minLength: 1, maxLength: 4 }),
          fc.array(mutation, { maxLength: 6 }),
        )
        .map(([parts, mutations]) => mutations.reduce(mutate, Buffer.concat(parts))),
    },
  );
}

function mutate(bytes: Buffer, mutation: Mutation): Buffer {
  const at = bytes.length === 0 ? 0 : mutation.at % bytes.length;
  const before = bytes.subarray(0, at);
  switch (mutation.kind) {
    case 'set':
      return Buffer.concat([before, Buffer.from([mutation.byte]), bytes.subarray(at + 1)]);
    case 'insert':
      return Buffer.concat([before, mutation.bytes, bytes.subarray(at)]);
    case 'remove':
      return Buffer.concat([before, bytes.subarray(at + mutation.count)]);
    case 'repeat': {
      const piece = bytes.subarray(at, at + mutation.count);
      return Buffer.concat([before, ...Array<Buffer>(mutation.times).fill(piece), bytes.subarray(at)]);
    }
    default:
      return Buffer.from(before);
  }
}

/** Where a message is cut on its way: positions that grow, each within the message. */
export const cuts: fc.Arbitrary<readonly number[]> = fc.array(fc.nat({ max: 600 }), { maxLength: 6 });

/** The pieces between the cuts, empty ones left out. */
export function piecesOf(bytes: Buffer, positions: readonly number[]): Buffer[] {
  const edges = [
    0,
    ...[...positions].map((at) => Math.min(at, bytes.length)).sort((a, b) => a - b),
    bytes.length,
  ];
  return edges
    .slice(1)
    .map((edge, i) => bytes.subarray(edges[i]!, edge))
    .filter(({ length }) => length > 0);
}
