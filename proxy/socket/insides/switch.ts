// What the proxy does with Node beyond its public interface, by name, and which of it is switched off.

/** One file in this folder each. */
export const nodeInsides = [
  'straight-reads',
  'young-collection',
  'lent-writes',
  'last-words',
  'raw-sockets',
  'descriptors',
  'allocator',
  'v8-flags',
  'client-certificates',
] as const;
export type NodeInside = (typeof nodeInsides)[number];

/** The diagnostic switch: `off`, or the names of what is to be off, with commas between. */
export const INSIDES_VARIABLE = 'DSTACK_INGRESS_NODE_INSIDES';

export interface InsidesOff {
  readonly off: ReadonlySet<NodeInside>;
  /** Words that name nothing in this folder. */
  readonly unknown: readonly string[];
}

export function parseInsidesOff(value: string): InsidesOff {
  const words = value.split(/[\s,]+/).filter((word) => word !== '');
  if (words.length === 1 && words[0] === 'off') return { off: new Set(nodeInsides), unknown: [] };
  const isKnown = (word: string): word is NodeInside => (nodeInsides as readonly string[]).includes(word);
  return { off: new Set(words.filter(isKnown)), unknown: words.filter((word) => !isKnown(word)) };
}

// The one variable that a worker has: its supervisor has judged the value before it passes it on.
const { off } = parseInsidesOff(process.env[INSIDES_VARIABLE] ?? '');

/** Whether this process uses it. Does not change while the process lives. */
export function uses(inside: NodeInside): boolean {
  return !off.has(inside);
}

/** What a worker's environment holds, so that it uses what its supervisor uses. */
export function insidesEnvironment(): Readonly<Record<string, string>> {
  return off.size === 0 ? {} : { [INSIDES_VARIABLE]: [...off].join(',') };
}
