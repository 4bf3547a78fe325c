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

/** Threads in the order in which backtracking would try them; each instruction is waited at by one thread a byte. */
interface Threads {
  readonly at: number[];
  readonly saved: (readonly number[])[];
  readonly waiting: Uint8Array;
}

function run(program: readonly Instruction[], slots: number, subject: string): Captures | undefined {
  let now = threads(program.length);
  let then = threads(program.length);
  let best: readonly number[] | undefined;
  const fresh: readonly number[] = new Array<number>(slots).fill(-1);
  for (let at = 0; at <= subject.length; at++) {
    if (best === undefined) add(program, now, 0, at, fresh.with(0, at), subject);
    if (now.at.length === 0) break;
    const byte = at < subject.length ? subject.charCodeAt(at) : -1;
    for (let i = 0; i < now.at.length; i++) {
      const instruction = program[now.at[i]!]!;
      if (instruction.op === 'end') {
        best = now.saved[i]!.with(1, at);
        // What comes after it would have been tried later.
        break;
      }
      if (instruction.op === 'byte' && byte >= 0 && instruction.set[byte] === 1)
        add(program, then, now.at[i]! + 1, at + 1, now.saved[i]!, subject);
    }
    [now, then] = [then, now];
    clear(then);
  }
  return best === undefined ? undefined : texts(best, subject);
}

function threads(size: number): Threads {
  return { at: [], saved: [], waiting: new Uint8Array(size) };
}

function clear(list: Threads): void {
  list.at.length = 0;
  list.saved.length = 0;
  list.waiting.fill(0);
}

/** Follows what takes no byte, the preferred way first. A stack, not a recursion: programs are long. */
function add(
  program: readonly Instruction[],
  list: Threads,
  from: number,
  at: number,
  before: readonly number[],
  subject: string,
): void {
  const stack: { readonly to: number; readonly saved: readonly number[] }[] = [{ to: from, saved: before }];
  for (let step = stack.pop(); step !== undefined; step = stack.pop()) {
    const { to, saved } = step;
    if (list.waiting[to] === 1) continue;
    list.waiting[to] = 1;
    const instruction = program[to]!;
    if (instruction.op === 'jump') stack.push({ to: instruction.to, saved });
    else if (instruction.op === 'fork')
      stack.push({ to: instruction.second, saved }, { to: instruction.first, saved });
    else if (instruction.op === 'save') stack.push({ to: to + 1, saved: saved.with(instruction.slot, at) });
    else if (instruction.op === 'edge') {
      if (holds(instruction.at, subject, at)) stack.push({ to: to + 1, saved });
    } else {
      list.at.push(to);
      list.saved.push(saved);
    }
  }
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
