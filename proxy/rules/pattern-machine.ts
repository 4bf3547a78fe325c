// Matches a pattern in time that is linear in its subject (Thompson's and Pike's way), with captures, as backtracking would choose.

import { type Edge, type Node, PatternError } from './pattern-syntax.ts';

export type Captures = readonly (string | undefined)[];

type Instruction =
  | { readonly op: 'byte'; readonly set: Uint8Array }
  | { readonly op: 'fork'; first: number; second: number }
  | { readonly op: 'jump'; to: number }
  | { readonly op: 'save'; readonly slot: number }
  | { readonly op: 'edge'; readonly at: Edge }
  | { readonly op: 'end' };

const LARGEST = 4_000;

/** Undefined: the tree looks around, which takes more than one pass. */
export function createMachine(
  root: Node,
  captures: number,
): ((subject: string) => Captures | undefined) | undefined {
  const program: Instruction[] = [];
  if (!write(root, program)) return undefined;
  program.push({ op: 'end' });
  const slots = 2 * (captures + 1);
  return (subject) => run(program, slots, subject);
}

/** False: not for this machine. */
function write(node: Node, program: Instruction[]): boolean {
  if (program.length > LARGEST)
    throw new PatternError('its repetitions make it too large', 'wants smaller numbers, or +');
  switch (node.kind) {
    case 'byte':
      program.push({ op: 'byte', set: node.set });
      return true;
    case 'edge':
      program.push({ op: 'edge', at: node.at });
      return true;
    case 'sequence':
      return node.items.every((item) => write(item, program));
    case 'choice':
      return writeChoice(node.items, program);
    case 'capture': {
      program.push({ op: 'save', slot: 2 * node.index });
      const written = write(node.item, program);
      program.push({ op: 'save', slot: 2 * node.index + 1 });
      return written;
    }
    case 'repeat':
      return writeRepeat(node, program);
    case 'look':
      return false;
  }
}

function writeChoice(items: readonly Node[], program: Instruction[]): boolean {
  const jumps: { op: 'jump'; to: number }[] = [];
  for (const [i, item] of items.entries()) {
    if (i === items.length - 1) {
      if (!write(item, program)) return false;
      break;
    }
    const fork: Instruction = { op: 'fork', first: program.length + 1, second: 0 };
    program.push(fork);
    if (!write(item, program)) return false;
    const jump = { op: 'jump' as const, to: 0 };
    jumps.push(jump);
    program.push(jump);
    fork.second = program.length;
  }
  for (const jump of jumps) jump.to = program.length;
  return true;
}

function writeRepeat(node: Node & { kind: 'repeat' }, program: Instruction[]): boolean {
  for (let i = 0; i < node.min; i++) if (!write(node.item, program)) return false;
  const endless = node.max === Number.POSITIVE_INFINITY;
  const forks: { op: 'fork'; first: number; second: number }[] = [];
  for (let i = node.min; i < (endless ? node.min + 1 : node.max); i++) {
    const at = program.length;
    const fork = { op: 'fork' as const, first: at + 1, second: at + 1 };
    forks.push(fork);
    program.push(fork);
    if (!write(node.item, program)) return false;
    if (endless) program.push({ op: 'jump', to: at });
  }
  for (const fork of forks) {
    if (node.lazy) fork.first = program.length;
    else fork.second = program.length;
  }
  return true;
}

type Saved = readonly number[];

/** Threads in the order in which backtracking would try them; each instruction is waited at by one thread a byte. */
class Threads {
  readonly at: number[] = [];
  readonly saved: Saved[] = [];
  readonly #program: readonly Instruction[];
  /** Per instruction: the round in which a thread came to it last. */
  readonly #met: Int32Array;
  readonly #stack: number[] = [];
  readonly #stackSaved: Saved[] = [];
  #round = 1;

  constructor(program: readonly Instruction[]) {
    this.#program = program;
    this.#met = new Int32Array(program.length);
  }

  clear(): void {
    this.at.length = 0;
    this.saved.length = 0;
    this.#round++;
  }

  /** Follows what takes no byte, the preferred way first. A stack, not a recursion: programs are long. */
  add(from: number, at: number, before: Saved, subject: string): void {
    this.#push(from, before);
    for (let to = this.#stack.pop(); to !== undefined; to = this.#stack.pop()) {
      const saved = this.#stackSaved.pop()!;
      if (this.#met[to] === this.#round) continue;
      this.#met[to] = this.#round;
      const instruction = this.#program[to]!;
      switch (instruction.op) {
        case 'jump':
          this.#push(instruction.to, saved);
          break;
        case 'fork':
          this.#push(instruction.second, saved);
          this.#push(instruction.first, saved);
          break;
        case 'save':
          this.#push(to + 1, saved.with(instruction.slot, at));
          break;
        case 'edge':
          if (holds(instruction.at, subject, at)) this.#push(to + 1, saved);
          break;
        default:
          this.at.push(to);
          this.saved.push(saved);
      }
    }
  }

  #push(to: number, saved: Saved): void {
    this.#stack.push(to);
    this.#stackSaved.push(saved);
  }
}

function run(program: readonly Instruction[], slots: number, subject: string): Captures | undefined {
  let now = new Threads(program);
  let then = new Threads(program);
  let best: Saved | undefined;
  const fresh: Saved = new Array<number>(slots).fill(-1);
  const first = program[0]!;
  const isAnchored = first.op === 'edge' && first.at === 'start';
  for (let at = 0; at <= subject.length; at++) {
    if (best === undefined && (at === 0 || !isAnchored)) now.add(0, at, fresh.with(0, at), subject);
    if (now.at.length === 0 && (best !== undefined || isAnchored)) break;
    best = step(program, now, then, at, subject) ?? best;
    [now, then] = [then, now];
    then.clear();
  }
  return best === undefined ? undefined : texts(best, subject);
}

/** One byte. What a thread that has come to the end has saved, if any: those after it would have been tried later. */
function step(
  program: readonly Instruction[],
  now: Threads,
  then: Threads,
  at: number,
  subject: string,
): Saved | undefined {
  const byte = at < subject.length ? subject.charCodeAt(at) : -1;
  for (let i = 0; i < now.at.length; i++) {
    const instruction = program[now.at[i]!]!;
    if (instruction.op === 'end') return now.saved[i]!.with(1, at);
    if (instruction.op === 'byte' && byte >= 0 && instruction.set[byte] === 1)
      then.add(now.at[i]! + 1, at + 1, now.saved[i]!, subject);
  }
  return undefined;
}

function holds(edge: Edge, subject: string, at: number): boolean {
  const { length } = subject;
  if (edge === 'start') return at === 0;
  if (edge === 'end') return at === length;
  if (edge === 'line-end') return at === length || (at === length - 1 && subject.charCodeAt(at) === 10);
  return (isWord(subject, at - 1) !== isWord(subject, at)) === (edge === 'word');
}

function isWord(subject: string, at: number): boolean {
  return at >= 0 && at < subject.length && /\w/.test(subject[at]!);
}

function texts(saved: readonly number[], subject: string): (string | undefined)[] {
  const captures: (string | undefined)[] = [];
  for (let slot = 0; slot < saved.length; slot += 2) {
    const [start, end] = [saved[slot]!, saved[slot + 1]!];
    captures.push(start < 0 || end < 0 ? undefined : subject.slice(start, end));
  }
  return captures;
}
