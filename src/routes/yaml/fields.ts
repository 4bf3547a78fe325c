// Mappings, lists and plain values of a YAML document, each with the sentence that says what is wrong with it.

import { isAlias, isMap, isScalar, isSeq, type Node, type Pair, Scalar } from 'yaml';
import { parseDuration, parseSize, quote, ValueError } from '../../config/values.ts';
import { meantIn } from '../../lib/spelling.ts';
import type { Mistakes, Positioned } from './mistakes.ts';

export interface Fields {
  readonly node: Node;
  find(key: string): Node | undefined;
  /** Undefined after saying what is missing. */
  require(key: string, subject: string, cure: string): Node | undefined;
}

export function readFields(
  node: Node,
  known: readonly string[],
  subject: string,
  mistakes: Mistakes,
): Fields | undefined {
  if (!isMap(node)) {
    mistakes.at(
      node,
      `${subject} is ${kindOf(node)}`,
      `wants a mapping with ${listed(known.map((key) => `"${key}"`))}`,
    );
    return undefined;
  }
  const byKey = new Map<string, Node>();
  for (const { key, value } of node.items as Pair<Node, Node | null>[]) {
    const name = isScalar(key) ? String(key.value) : '';
    if (known.includes(name)) byKey.set(name, value ?? emptyAt(key));
    else
      mistakes.at(
        key,
        `${quote(name)} is not a key of ${subject}`,
        `wants ${listed(known)}${meantIn(name, known)}`,
      );
  }
  const find = (key: string) => byKey.get(key);
  return {
    node,
    find,
    require(key, complaint, cure) {
      const value = find(key);
      if (value === undefined) mistakes.at(node, complaint, cure);
      return value;
    },
  };
}

const MOST_LISTED = 8;
const FEWER = 5;

/** Of many keys the most usual alone, which stand first; docs/routes.md has the others. */
function listed(known: readonly string[]): string {
  return (known.length > MOST_LISTED ? known.slice(0, FEWER) : known).join(', ');
}

/** `{host}` has a key and nothing after it, not even a place. */
export function emptyAt(key: Node): Node {
  const empty = new Scalar(null);
  empty.range = key.range ?? null;
  return empty;
}

export function readList(node: Node, subject: string, most: number, mistakes: Mistakes): Node[] {
  if (!isSeq(node) || node.items.length === 0) {
    mistakes.at(
      node,
      `${subject} is ${isSeq(node) ? 'an empty list' : kindOf(node)}`,
      'wants a list of at least one',
    );
    return [];
  }
  if (node.items.length > most) {
    mistakes.at(node, `${subject} has ${node.items.length} entries`, `at most ${most} are taken`);
    return [];
  }
  return node.items as Node[];
}

export function readString(
  node: Node,
  subject: string,
  example: string,
  mistakes: Mistakes,
): string | undefined {
  if (isScalar(node) && typeof node.value === 'string') return node.value;
  mistakes.at(node, `${subject} is ${kindOf(node)}`, `wants text, as in ${quote(example)}`);
  return undefined;
}

export function kindOf(node: unknown): string {
  if (isMap(node)) return 'a mapping';
  if (isSeq(node)) return 'a list';
  if (isAlias(node)) return 'an alias';
  const value = isScalar(node) ? node.value : null;
  if (value === null) return 'empty';
  return typeof value === 'string' ? 'text' : `a ${typeof value}`;
}
export function readValue<T>(node: Positioned, parse: () => T, mistakes: Mistakes): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof ValueError)) throw error;
    mistakes.at(node, error.subject, error.cure);
    return undefined;
  }
}

export function readDuration(fields: Fields, key: string, otherwise: number, mistakes: Mistakes): number {
  const value = fields.find(key);
  if (value === undefined) return otherwise;
  // YAML reads a time without a unit as a number. parseDuration then reports the missing unit.
  const number = isScalar(value) && typeof value.value === 'number' ? value.source : undefined;
  const text = number ?? readString(value, `"${key}"`, '10s', mistakes);
  return text === undefined
    ? otherwise
    : (readValue(value, () => parseDuration(text), mistakes) ?? otherwise);
}

/** Also a number or a switch, as it is written: `X-Limit: 10`. */
export function readText(
  node: Node,
  subject: string,
  example: string,
  mistakes: Mistakes,
): string | undefined {
  if (isScalar(node) && (typeof node.value === 'number' || typeof node.value === 'boolean'))
    return node.source ?? String(node.value);
  return readString(node, subject, example, mistakes);
}

/** One text, or a list of them. */
export function readStrings(node: Node, subject: string, example: string, mistakes: Mistakes): string[] {
  const items = isSeq(node) ? readList(node, subject, MOST_ITEMS, mistakes) : [node];
  return items.flatMap((item) => readString(item, subject, example, mistakes) ?? []);
}

export const MOST_ITEMS = 200;

export function readBoolean(fields: Fields, key: string, mistakes: Mistakes): boolean | undefined {
  const node = fields.find(key);
  if (node === undefined) return undefined;
  if (isScalar(node) && typeof node.value === 'boolean') return node.value;
  mistakes.at(node, `"${key}" is ${kindOf(node)}`, 'wants true or false, without quotes');
  return undefined;
}

/** `false` takes away what an outer level said. */
export function isOff(node: Node): boolean {
  return isScalar(node) && node.value === false;
}

export function isOn(node: Node): boolean {
  return isScalar(node) && node.value === true;
}

export function readInteger(
  node: Node | undefined,
  subject: string,
  [least, most]: readonly [number, number],
  mistakes: Mistakes,
): number | undefined {
  if (node === undefined) return undefined;
  const value = isScalar(node) ? node.value : undefined;
  if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value;
  mistakes.at(
    node,
    `${subject} is not a whole number from ${least} to ${most}`,
    'wants one, without quotes and without a point',
  );
  return undefined;
}

/** `8k`, `10m`, `1g`, or a number of bytes. */
export function readSize(node: Node, subject: string, mistakes: Mistakes): number | undefined {
  const text = readText(node, subject, '10m', mistakes);
  return text === undefined ? undefined : readValue(node, () => parseSize(text), mistakes);
}

/** A duration in seconds, rounded up. */
export function readSeconds(fields: Fields, key: string, mistakes: Mistakes): number | undefined {
  if (fields.find(key) === undefined) return undefined;
  return Math.ceil(readDuration(fields, key, 0, mistakes) / 1000);
}

export function readChoice<const T extends string>(
  node: Node,
  subject: string,
  choices: readonly T[],
  mistakes: Mistakes,
): T | undefined {
  const text = readString(node, subject, choices[0]!, mistakes);
  if (text === undefined) return undefined;
  const chosen = choices.find((choice) => choice === text);
  if (chosen === undefined)
    mistakes.at(
      node,
      `${quote(text)} is no ${subject}`,
      `wants one of ${choices.join(', ')}${meantIn(text, choices)}`,
    );
  return chosen;
}

/** The pairs of a mapping whose keys are the writer's own: names of headers, of users. */
export function readPairs(
  node: Node,
  subject: string,
  mistakes: Mistakes,
): { readonly name: string; readonly key: Node; readonly value: Node }[] {
  if (!isMap(node) || node.items.length === 0) {
    const what = isMap(node) ? 'an empty mapping' : kindOf(node);
    mistakes.at(node, `${subject} is ${what}`, 'wants a mapping with at least one entry');
    return [];
  }
  if (node.items.length > MOST_ITEMS) {
    mistakes.at(node, `${subject} has ${node.items.length} entries`, `at most ${MOST_ITEMS} are taken`);
    return [];
  }
  return (node.items as Pair<Node, Node | null>[]).map(({ key, value }) => ({
    name: isScalar(key) ? String(key.value) : '',
    key,
    value: value ?? emptyAt(key),
  }));
}
