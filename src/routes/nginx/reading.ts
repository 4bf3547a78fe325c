// What the translation of nginx files shares: the list of mistakes, the notes, and the variables that were used and defined.

import type { Origin, Pattern, Template } from '../../../proxy/rules/model.ts';
import { isPatternFault, readPattern } from '../../../proxy/rules/pattern.ts';
import { parseTemplate } from '../../../proxy/rules/template.ts';
import { builtInNames, isBuiltIn } from '../../../proxy/rules/variables.ts';
import type { Mistake } from '../../config/mistake.ts';
import { quote } from '../../config/values.ts';
import { nearest } from '../../lib/spelling.ts';
import { type Directive, placeOf } from './blocks.ts';
import type { Word } from './lexer.ts';
import type { Notes } from './notes.ts';

export class Reading {
  readonly notes: Notes;
  readonly mistakes: Mistake[];
  /** The text of a file that a directive names; undefined: it cannot be read, and a mistake says so. */
  readonly readNamed: (path: Word) => string | undefined;
  readonly #defined = new Map<string, 'set' | 'map' | 'capture'>();
  #leads: Word[] = [];
  readonly #used: { readonly name: string; readonly at: Word }[] = [];

  constructor(notes: Notes, mistakes: Mistake[], readNamed: (path: Word) => string | undefined) {
    this.notes = notes;
    this.mistakes = mistakes;
    this.readNamed = readNamed;
  }

  refuse(at: Word, subject: string, cure: string): undefined {
    this.mistakes.push({ place: placeOf(at), subject, cure });
  }

  /** Text with variables. Of one that cannot be read, a mistake is told, and it is empty. */
  template(word: Word, text: string = word.text): Template {
    const read = parseTemplate(text);
    if ('fault' in read) {
      this.refuse(word, read.fault, read.cure);
      return [];
    }
    for (const part of read)
      if (typeof part !== 'string' && !/^\d$/.test(part.name)) this.#used.push({ name: part.name, at: word });
    return read;
  }

  pattern(word: Word, ignoreCase: boolean, text: string = word.text): Pattern | undefined {
    const read = readPattern(text, ignoreCase);
    if (isPatternFault(read))
      return this.refuse(word, `the regular expression ${quote(text)} is refused: ${read.fault}`, read.cure);
    for (const name of read.names) this.#define(word, name.toLowerCase(), 'capture');
    return read;
  }

  /** `~re` and `~*re` are patterns, all else is text. */
  textOrPattern(
    word: Word,
  ):
    | { readonly kind: 'text'; readonly text: string }
    | { readonly kind: 'pattern'; readonly pattern: Pattern }
    | undefined {
    const { text } = word;
    if (!text.startsWith('~')) return { kind: 'text', text };
    const ignoreCase = text.startsWith('~*');
    const pattern = this.pattern(word, ignoreCase, text.slice(ignoreCase ? 2 : 1));
    return pattern && { kind: 'pattern', pattern };
  }

  /** The variable that `$name` alone stands for, to be given a value. */
  variable(word: Word, by: 'set' | 'map'): string | undefined {
    const name = /^\$(\w+)$/.exec(word.text)?.[1]?.toLowerCase();
    if (name === undefined)
      return this.refuse(word, `${quote(word.text)} is not the name of a variable`, 'wants one as in $name');
    this.#define(word, name, by);
    return name;
  }

  /** The variable whose value is asked for. */
  use(word: Word, text: string = word.text): string | undefined {
    const name = /^\$(\w+)$/.exec(text)?.[1]?.toLowerCase();
    if (name === undefined)
      return this.refuse(word, `${quote(text)} is not a variable`, 'wants one as in $name');
    this.#used.push({ name, at: word });
    return name;
  }

  #define(word: Word, name: string, by: 'set' | 'map' | 'capture'): void {
    if (isBuiltIn(name) && !(by === 'set' && name === 'args'))
      this.refuse(word, `$${name} has a value of its own`, 'give the variable another name');
    const before = this.#defined.get(name);
    if (before !== undefined && (before === 'map' || by === 'map'))
      this.refuse(
        word,
        `$${name} is defined by a map and elsewhere as well`,
        'give one of them another name',
      );
    this.#defined.set(name, by);
  }

  /** A location that an error page or try_files of the server under way leads to. */
  leadsTo(word: Word): void {
    this.#leads.push(word);
  }

  /** At the end of a server. Those of outer levels are for any server: they are left alone. */
  judgeNamedLocations(known: ReadonlySet<string>): void {
    for (const word of this.#leads)
      if (!known.has(word.text))
        this.refuse(
          word,
          `there is no location ${word.text} in this server`,
          `write location ${word.text} { … } into it`,
        );
    this.#leads = [];
  }

  /** Once everything was read: a variable may be used before it is defined. */
  judgeVariables(): void {
    const told = new Set<string>();
    for (const { name, at } of this.#used) {
      if (isBuiltIn(name) || this.#defined.has(name) || told.has(name)) continue;
      told.add(name);
      const like =
        told.size > MOST_GUESSES ? undefined : nearest(name, [...this.#defined.keys(), ...builtInNames()]);
      const cure = like === undefined ? 'define it by set or map, or take it away' : `was $${like} meant?`;
      this.refuse(at, `there is no variable $${name}`, cure);
    }
  }
}

/** A guess looks at every name that is known, and nobody reads a hundred of them. */
const MOST_GUESSES = 100;

export function originOf({ name }: Directive): Origin {
  return `${name.file}:${name.line}:${name.column}`;
}

/** The directives of one block, by name. */
export class Level {
  readonly directives: readonly Directive[];
  readonly #byName: Map<string, Directive[]>;

  constructor(directives: readonly Directive[]) {
    this.directives = directives;
    this.#byName = Map.groupBy(directives, ({ name }) => name.text);
  }

  all(name: string): readonly Directive[] {
    return this.#byName.get(name) ?? [];
  }

  one(name: string): Directive | undefined {
    return this.#byName.get(name)?.[0];
  }

  /** The only argument of it. */
  value(name: string): Word | undefined {
    return this.one(name)?.args[0];
  }

  /** Of a switch. */
  isOn(name: string): boolean | undefined {
    const word = this.value(name);
    return word && word.text.toLowerCase() === 'on';
  }
}

/** Without the fields that are undefined: a level says only what is written there. */
export function given<T extends object>(fields: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
}
