// Which generation a connection is shown, through swaps of all kinds.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createGenerations, type Generation } from '../../evidence/generations.ts';
import type { LocalConnection } from '../../src/lib/local-handler.ts';

interface Named extends Generation {
  readonly id: string;
}

function generation(id: string, ...leaves: string[]): Named {
  return { id, leaves: new Set(leaves) };
}

function shownWith(leaf: string): LocalConnection {
  return { certificate: { pem: '', fingerprint: leaf } } as LocalConnection;
}

function stage() {
  let time = 0;
  const generations = createGenerations<Named>(() => time);
  return {
    generations,
    pass: (ms: number) => {
      time += ms;
    },
    shown: (connection: LocalConnection) => generations.of(connection)?.id,
  };
}

test('a reader who has begun ends with the same generation, whatever comes meanwhile', () => {
  const { generations, shown, pass } = stage();
  generations.set(generation('one', 'x', 'a'));
  const reader = shownWith('x');
  assert.equal(shown(reader), 'one');
  generations.set(generation('two', 'x', 'b'));
  generations.set(generation('three', 'x', 'b'));
  pass(59_000);
  assert.equal(shown(reader), 'one');
  assert.equal(shown(shownWith('x')), 'three');
  pass(2_000);
  assert.equal(shown(reader), 'three', 'whoever reads for ever sees what is new');
});

test('a connection is shown what is about its certificate: before, during and after the swap', () => {
  const { generations, shown, pass } = stage();
  generations.set(generation('old', 'a'));
  const early = shownWith('a');
  generations.set(generation('old', 'a'), generation('new', 'b'));
  assert.equal(shown(early), 'old');
  const first = shownWith('b');
  assert.equal(shown(first), 'new', 'the first of the new certificate do not wait for the swap to end');
  generations.set(generation('new', 'b'));
  assert.equal(shown(first), 'new');
  pass(3_600_000);
  assert.equal(shown(early), 'old', 'its certificate has not changed either');
});

test('what follows is shown to nobody else, and not at all if it does not come', () => {
  const { generations, shown } = stage();
  generations.set(generation('old', 'a', 'x'));
  generations.set(generation('old', 'a', 'x'), generation('new', 'b', 'x'));
  assert.equal(shown(shownWith('x')), 'old');
  generations.set(generation('old', 'a', 'x'));
  assert.equal(shown(shownWith('b')), 'old');
});

test('a certificate that no generation is about is shown the current one', () => {
  const { generations, shown } = stage();
  generations.set(generation('one', 'a'));
  assert.equal(shown(shownWith('z')), 'one');
  assert.equal(shown({} as LocalConnection), 'one');
});

test('where there is no evidence any more, there is none of before either', () => {
  const { generations, shown } = stage();
  generations.set(generation('one', 'a'));
  const reader = shownWith('a');
  assert.equal(shown(reader), 'one');
  generations.set(undefined);
  assert.equal(shown(reader), undefined);
  assert.deepEqual(generations.before(), []);
  generations.set(generation('two', 'b'));
  assert.equal(shown(reader), 'two');
});

test('the generations before are kept for a minute, and two of them at most', () => {
  const { generations, pass } = stage();
  for (const id of ['one', 'two', 'three', 'four']) generations.set(generation(id, 'a'));
  const kept = () => generations.before().map(({ id }) => id);
  assert.deepEqual(kept(), ['three', 'two']);
  generations.set(generation('four', 'a'), generation('five', 'a'));
  assert.deepEqual(kept(), ['three', 'two'], 'the same again is no new one');
  pass(60_000);
  assert.deepEqual(kept(), []);
});
