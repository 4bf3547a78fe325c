// How the time of a backtracking match grows with its subject, read off the pattern before it is ever run.

import type { Node } from './pattern-syntax.ts';

/**
 * 1: linear, 2: quadratic, and so on; Infinity: exponential, or too large to tell. Never less than the truth: loops with
 * a limit count as loops without, and whatever is not seen to be unambiguous counts as ambiguous.
 */
export function degreeOf(root: Node): number {
  const graph = graphOf(root);
  if (graph === undefined) return Number.POSITIVE_INFINITY;
  const loops = loopsOf(graph);
  if (loops.some((loop) => isAmbiguous(graph, loop))) return Number.POSITIVE_INFINITY;
  return longestChain(graph, loops);
}

/** The automaton of Glushkov: a state for each byte of the pattern, and one before all. */
interface Graph {
  readonly sets: readonly Uint8Array[];
  readonly next: readonly (readonly number[])[];
  /** Which state can be left for the same one in two ways. */
  readonly doubled: ReadonlySet<number>;
}

interface Part {
  readonly nullable: boolean;
  readonly first: readonly number[];
  readonly last: readonly number[];
}

const MOST_STATES = 500;
const ANY = new Uint8Array(256).fill(1);

function graphOf(root: Node): Graph | undefined {
  const sets: Uint8Array[] = [ANY];
  const next: Set<number>[] = [new Set()];
  const doubled = new Set<number>();
  const join = (from: readonly number[], to: readonly number[]) => {
    for (const a of from) {
      for (const b of to) {
        if (next[a]!.has(b)) doubled.add(a);
        next[a]!.add(b);
      }
    }
  };
  const walk = (node: Node): Part => {
    if (sets.length > MOST_STATES) return NOTHING;
    switch (node.kind) {
      case 'byte': {
        const state = sets.push(node.set) - 1;
        next.push(new Set());
        return { nullable: false, first: [state], last: [state] };
      }
      case 'sequence':
        return node.items.map(walk).reduce((before, after) => {
          join(before.last, after.first);
          return followed(before, after);
        }, NOTHING);
      case 'choice':
        return node.items.map(walk).reduce(either);
      case 'repeat': {
        const part = walk(node.item);
        if (node.max > 1) join(part.last, part.first);
        return { ...part, nullable: part.nullable || node.min === 0 };
      }
      case 'edge':
        return NOTHING;
      default:
        return walk(node.item);
    }
  };
  const whole = walk(root);
  if (sets.length > MOST_STATES) return undefined;
  join([0], whole.first);
  // Without an anchor the match is tried from each byte on: a loop over everything in front.
  if (!isAnchored(root)) next[0]!.add(0);
  return { sets, next: next.map((to) => [...to]), doubled };
}

const NOTHING: Part = { nullable: true, first: [], last: [] };

function followed(before: Part, after: Part): Part {
  return {
    nullable: before.nullable && after.nullable,
    first: before.nullable ? [...before.first, ...after.first] : before.first,
    last: after.nullable ? [...before.last, ...after.last] : after.last,
  };
}

function either(a: Part, b: Part): Part {
  return {
    nullable: a.nullable || b.nullable,
    first: [...a.first, ...b.first],
    last: [...a.last, ...b.last],
  };
}

function isAnchored(node: Node): boolean {
  if (node.kind === 'edge') return node.at === 'start';
  if (node.kind === 'sequence') return node.items.length > 0 && isAnchored(node.items[0]!);
  if (node.kind === 'choice') return node.items.every(isAnchored);
  return node.kind === 'capture' && isAnchored(node.item);
}

interface Loop {
  readonly states: ReadonlySet<number>;
  /** What can be read in it. */
  readonly set: Uint8Array;
}

/** The strongly connected parts. */
function loopsOf(graph: Graph): Loop[] {
  const reached = graph.next.map((to) => reachable(graph, to, () => true));
  const seen = new Set<number>();
  const loops: Loop[] = [];
  for (const [state, from] of reached.entries()) {
    if (seen.has(state) || !from.has(state)) continue;
    const states = new Set([...from].filter((other) => reached[other]!.has(state)));
    for (const one of states) seen.add(one);
    loops.push({ states, set: union([...states].map((one) => graph.sets[one]!)) });
  }
  return loops;
}

function reachable(graph: Graph, from: readonly number[], may: (state: number) => boolean): Set<number> {
  const found = new Set<number>();
  const open = from.filter(may);
  for (let state = open.pop(); state !== undefined; state = open.pop()) {
    if (found.has(state)) continue;
    found.add(state);
    for (const to of graph.next[state]!) if (!found.has(to) && may(to)) open.push(to);
  }
  return found;
}

/** Whether one byte can be read in two ways without leaving the loop: each round doubles the ways. */
function isAmbiguous(graph: Graph, { states }: Loop): boolean {
  for (const state of states) {
    if (graph.doubled.has(state)) return true;
    const inside = graph.next[state]!.filter((to) => states.has(to));
    for (const [i, one] of inside.entries()) {
      for (const other of inside.slice(i + 1)) if (overlap(graph.sets[one]!, graph.sets[other]!)) return true;
    }
  }
  return false;
}

/** Loops that can share one run of bytes between them: each one more is a power more. */
function longestChain(graph: Graph, loops: readonly Loop[]): number {
  const lengths = new Map<Loop, number>();
  const from = (loop: Loop): number => {
    const known = lengths.get(loop);
    if (known !== undefined) return known;
    const starts = [...loop.states].flatMap((state) => graph.next[state]!);
    const reached = reachable(graph, starts, (state) => overlap(graph.sets[state]!, loop.set));
    let longest = 0;
    for (const other of loops) {
      if (other !== loop && overlap(other.set, loop.set) && meets(other.states, reached))
        longest = Math.max(longest, from(other));
    }
    lengths.set(loop, longest + 1);
    return longest + 1;
  };
  return Math.max(1, ...loops.map(from));
}

function meets(a: ReadonlySet<number>, b: ReadonlySet<number>): boolean {
  for (const one of a) if (b.has(one)) return true;
  return false;
}

function overlap(a: Uint8Array, b: Uint8Array): boolean {
  for (let byte = 0; byte < 256; byte++) if (a[byte] === 1 && b[byte] === 1) return true;
  return false;
}

function union(sets: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(256);
  for (const set of sets) for (let byte = 0; byte < 256; byte++) if (set[byte] === 1) all[byte] = 1;
  return all;
}
