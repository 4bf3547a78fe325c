// Directives and blocks of nginx files as a tree: what is written, before anybody asks what it means.

import type { Mistake } from '../../config/mistake.ts';
import { quote } from '../../config/values.ts';
import { createLexer, type Lexer, type Word } from './lexer.ts';

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

/** `text` is a whole file; what an `include` brings must be whole as well. */
export function parseBlocks(text: string, file: string): Blocks {
  const lexer = createLexer(text, file);
  const mistakes: Mistake[] = [];
  const directives = parseInto(lexer, mistakes);
  if (lexer.mistake !== undefined) mistakes.push(lexer.mistake);
  return { directives, mistakes };
}

interface Open {
  readonly name: Word;
  readonly args: readonly Word[];
  readonly outer: Directive[];
}

function parseInto(lexer: Lexer, mistakes: Mistake[]): Directive[] {
  const root: Directive[] = [];
  const open: Open[] = [];
  let here = root;
  let words: Word[] = [];
  const refuse = (at: Word, subject: string, cure: string) => {
    mistakes.push({ place: placeOf(at), subject, cure });
    return root;
  };
  for (let token = lexer.next(); token !== undefined; token = lexer.next()) {
    if (token.kind === 'word') {
      words.push(token);
      continue;
    }
    const [name, ...args] = words;
    words = [];
    if (token.kind === '}') {
      if (name !== undefined)
        return refuse(name, `${quote(name.text)} has no ; behind it`, 'end it with ; before the }');
      const closed = open.pop();
      if (closed === undefined) return refuse(token, '} closes no block', 'take it away, or open its block');
      closed.outer.push({ name: closed.name, args: closed.args, block: here });
      here = closed.outer;
    } else if (name === undefined) {
      return refuse(token, `${token.kind} stands alone`, 'wants a directive before it');
    } else if (token.kind === ';') {
      here.push({ name, args, block: undefined });
    } else if (isForeign(name)) {
      lexer.skipBlock();
      here.push({ name, args, block: [] });
    } else {
      if (open.length >= DEEPEST)
        return refuse(name, 'blocks are nested too deeply', `wants at most ${DEEPEST}`);
      open.push({ name, args, outer: here });
      here = [];
    }
  }
  if (lexer.mistake !== undefined) return root;
  const [left] = words;
  if (left !== undefined) return refuse(left, `${quote(left.text)} has no ; behind it`, 'end it with ;');
  const last = open.at(-1);
  if (last !== undefined)
    return refuse(last.name, `the block of ${quote(last.name.text)} is not closed`, 'close it with }');
  return root;
}

/** Lua's own syntax is in it. */
function isForeign(name: Word): boolean {
  return /_by_lua_block$/.test(name.text);
}

export function placeOf({ file, line, column }: Word): { file: string; line: number; column: number } {
  return { file, line, column };
}
