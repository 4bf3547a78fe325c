// Directives and blocks of nginx files as a tree: what is written, before anybody asks what it means.

import type { Mistake } from '../../config/mistake.ts';
import { quote } from '../../config/values.ts';
import { Lexer, type Token, type Word } from './lexer.ts';

export interface Directive {
  readonly name: Word;
  readonly args: readonly Word[];
  /** Undefined: it ends with a semicolon. */
  readonly block: readonly Directive[] | undefined;
}

export interface Blocks {
  readonly directives: readonly Directive[];
  readonly mistakes: readonly Mistake[];
}

/** Deeper than anybody writes, and not so deep that a stack gives out. */
const DEEPEST = 40;

/** More than the names of any server: a semicolon was forgotten. */
const MOST_WORDS = 10_000;

/** `text` is a whole file; what an `include` brings must be whole as well. */
export function parseBlocks(text: string, file: string): Blocks {
  const tree = new Tree();
  const lexer = new Lexer(text, file);
  let words: Word[] = [];
  let fault: Mistake | undefined;
  for (let token = lexer.next(); token !== undefined && fault === undefined; token = lexer.next()) {
    if (token.kind === 'word') {
      words.push(token);
      if (words.length > MOST_WORDS)
        fault = at(
          words[0]!,
          `${quote(words[0]!.text)} has more than ${MOST_WORDS} arguments`,
          'end it with ;',
        );
    } else {
      fault = tree.add(token, words, lexer);
      words = [];
    }
  }
  fault ??= lexer.mistake ?? tree.faultAtEnd(words);
  return { directives: tree.close(), mistakes: fault === undefined ? [] : [fault] };
}

interface Open {
  readonly name: Word;
  readonly args: readonly Word[];
  readonly outer: Directive[];
}

class Tree {
  readonly #open: Open[] = [];
  #here: Directive[] = [];

  /** `mark` is `;`, `{` or `}`, and `words` are what stands before it. */
  add(mark: Token, words: readonly Word[], lexer: Lexer): Mistake | undefined {
    const [name, ...args] = words;
    if (mark.kind === '}') {
      if (name !== undefined)
        return at(name, `${quote(name.text)} has no ; behind it`, 'end it with ; before the }');
      return this.#close() ? undefined : at(mark, '} closes no block', 'take it away, or open its block');
    }
    if (name === undefined) return at(mark, `${mark.kind} stands alone`, 'wants a directive before it');
    if (mark.kind === ';') this.#here.push({ name, args, block: undefined });
    else if (isForeign(name)) {
      lexer.skipBlock();
      this.#here.push({ name, args, block: [] });
    } else {
      if (this.#open.length >= DEEPEST)
        return at(name, 'blocks are nested too deeply', `wants at most ${DEEPEST}`);
      this.#open.push({ name, args, outer: this.#here });
      this.#here = [];
    }
    return undefined;
  }

  faultAtEnd([left]: readonly Word[]): Mistake | undefined {
    if (left !== undefined) return at(left, `${quote(left.text)} has no ; behind it`, 'end it with ;');
    const last = this.#open.at(-1);
    return last && at(last.name, `the block of ${quote(last.name.text)} is not closed`, 'close it with }');
  }

  /** What was read before a mistake may hold others: blocks that are open still count. */
  close(): readonly Directive[] {
    while (this.#close());
    return this.#here;
  }

  #close(): boolean {
    const closed = this.#open.pop();
    if (closed === undefined) return false;
    closed.outer.push({ name: closed.name, args: closed.args, block: this.#here });
    this.#here = closed.outer;
    return true;
  }
}

function at(word: Word, subject: string, cure: string): Mistake {
  return { place: placeOf(word), subject, cure };
}

/** Lua's own syntax is in it. */
function isForeign(name: Word): boolean {
  return /_by_lua_block$/.test(name.text);
}

export function placeOf({ file, line, column }: Word): { file: string; line: number; column: number } {
  return { file, line, column };
}
