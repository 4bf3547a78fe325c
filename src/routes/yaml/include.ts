// A routes file with all that it includes: each a document of its own, so that every place names its file.

import { dirname, isAbsolute, relative, resolve } from 'node:path';
import { isScalar, isSeq, type Node } from 'yaml';
import { type Mistake, unreadable } from '../../config/mistake.ts';
import { quote } from '../../config/values.ts';
import { parseYaml } from './document.ts';
import { type Fields, readFields, readStrings } from './fields.ts';
import { keys } from './keys.ts';
import { createMistakes, type Mistakes } from './mistakes.ts';
import type { Reading, Shared } from './reading.ts';

export interface OneFile {
  readonly fields: Fields;
  readonly reading: Reading;
}

/** A thousand routes fit, and reading the worst that fits holds nothing up for long. */
const LARGEST_FILE_BYTES = 256 * 1024;
const LARGEST_TOTAL_BYTES = 2 * 1024 * 1024;
const MOST_FILES = 100;
const DEEPEST = 8;

/** Every file in the order of inclusion, the first first; and the mistakes of all. */
export function readFiles(text: string, path: string, shared: Shared): { files: OneFile[]; all: Mistakes[] } {
  const reader = new FilesReader(shared);
  reader.read(text, path, resolve(path), []);
  return { files: reader.files, all: reader.all };
}

class FilesReader {
  readonly files: OneFile[] = [];
  readonly all: Mistakes[] = [];
  readonly #shared: Shared;
  readonly #known = new Set<string>();
  #bytes = 0;

  constructor(shared: Shared) {
    this.#shared = shared;
  }

  /** `name`: as people know it. `within`: the files around it. */
  read(text: string, name: string, path: string, within: readonly string[]): void {
    this.#known.add(path);
    this.#shared.watched.add(path);
    const mistakes = createMistakes(text, name);
    this.all.push(mistakes);
    const bytes = Buffer.byteLength(text);
    this.#bytes += bytes;
    if (bytes > LARGEST_FILE_BYTES || this.#bytes > LARGEST_TOTAL_BYTES) {
      const subject =
        bytes > LARGEST_FILE_BYTES ? 'is larger than 256 KiB' : 'makes more than 2 MiB of all files';
      mistakes.inFile(subject, 'wants fewer routes, a wildcard in place of many hosts, say');
      return;
    }
    const root = parseYaml(text, mistakes);
    const fields = root && readFields(root, keys.file, 'the file', mistakes);
    if (fields === undefined) return;
    const reading: Reading = { mistakes, folder: dirname(path), shared: this.#shared };
    this.files.push({ fields, reading });
    requireContent(fields, within.length === 0);
    const include = fields.find('include');
    if (include === undefined) return;
    for (const node of includedNodes(include, mistakes)) this.#include(node, reading, [...within, path]);
  }

  #include(node: Node, reading: Reading, within: readonly string[]): void {
    const { mistakes, folder } = reading;
    const text = isScalar(node) ? String(node.value) : '';
    const path = resolve(folder, text);
    const refusal = this.#judge(text, path, within);
    if (refusal !== undefined) {
      mistakes.at(node, `${quote(text)} ${refusal.subject}`, refusal.cure);
      return;
    }
    this.#shared.watched.add(path);
    let included: string;
    try {
      included = this.#shared.options.readFile(path);
    } catch (cause) {
      const { subject, cure } = unreadable(cause);
      mistakes.at(node, `${quote(text)} ${subject}`, cure);
      return;
    }
    this.read(included, nameOf(mistakes.file, text), path, within);
  }

  /** Undefined: it may be read. */
  #judge(text: string, path: string, within: readonly string[]): Refusal | undefined {
    if (text === '' || text.includes('\0'))
      return { subject: 'is not a path', cure: 'wants one, from this file on or from /' };
    if (within.includes(path)) return { subject: 'includes itself', cure: 'take this include away' };
    if (this.#known.has(path)) return { subject: 'is included already', cure: 'wants it once' };
    if (within.length > DEEPEST)
      return { subject: 'is nested too deeply', cure: `at most ${DEEPEST} files deep` };
    if (this.#known.size >= MOST_FILES)
      return { subject: `is one of more than ${MOST_FILES} files`, cure: 'wants fewer' };
    return undefined;
  }
}

type Refusal = Pick<Mistake, 'subject' | 'cure'>;

/** Named from where the including file is named from. */
function nameOf(from: string, text: string): string {
  const path = resolve(dirname(from), text);
  return isAbsolute(from) || isAbsolute(text) ? path : relative('', path);
}

function includedNodes(node: Node, mistakes: Mistakes): Node[] {
  readStrings(node, '"include"', 'more.yaml', mistakes);
  const items = isSeq(node) ? (node.items as Node[]) : [node];
  return items.filter((item) => isScalar(item) && typeof item.value === 'string');
}

function requireContent(fields: Fields, isFirst: boolean): void {
  if (['routes', 'include'].some((key) => fields.find(key) !== undefined)) return;
  if (!isFirst && fields.find('upstreams') !== undefined) return;
  fields.require('routes', 'the file has no "routes"', 'wants "routes:" and a list');
}
