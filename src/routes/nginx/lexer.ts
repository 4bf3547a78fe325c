// The words of an nginx file, each with its place, by nginx's own rules of quotes, escapes and comments.

import type { Mistake } from '../../config/mistake.ts';

export interface Word {
  readonly text: string;
  readonly file: string;
  /** Both are counted from 1. */
  readonly line: number;
  readonly column: number;
}

/** `{`, `;` and `}` as marks; a word that was quoted is a word whatever is in it. */
export type Token = Word & { readonly kind: 'word' | '{' | ';' | '}' };

export interface Lexer {
  /** Undefined at the end of the file, or once a mistake was found: nothing behind it can be told. */
  next(): Token | undefined;
  /** Goes on behind the `}` that closes a block of another language. */
  skipBlock(): void;
  readonly mistake: Mistake | undefined;
}

/** nginx's own limit: beyond it a quote was forgotten. */
const LONGEST_WORD = 4096;

const escapes: Readonly<Record<string, string>> = {
  '"': '"',
  "'": "'",
  '\\': '\\',
  ' ': ' ',
  t: '\t',
  r: '\r',
  n: '\n',
};

export function createLexer(text: string, file: string): Lexer {
  let at = 0;
  let line = 1;
  let lineStart = 0;
  let mistake: Mistake | undefined;
  /** A quoted word ends where its quote does: what follows must set it apart. */
  let afterQuote = false;

  const place = (offset: number) => ({ file, line, column: offset - lineStart + 1 });

  function refuse(offset: number, subject: string, cure: string): undefined {
    mistake = { place: place(offset), subject, cure };
    at = text.length;
  }

  function newLine(offset: number): void {
    line++;
    lineStart = offset + 1;
  }

  function skipSpace(): void {
    for (; at < text.length; at++) {
      const char = text[at]!;
      if (char === '#' && !afterQuote) {
        const end = text.indexOf('\n', at);
        at = end < 0 ? text.length : end;
      }
      const code = text.charCodeAt(at);
      if (code === LF) newLine(at);
      else if (code !== SPACE && code !== TAB && code !== CR) return;
      afterQuote = false;
    }
  }

  function next(): Token | undefined {
    if (mistake !== undefined) return undefined;
    if (at === 0 && text.startsWith('\uFEFF'))
      return refuse(0, 'begins with a byte order mark', 'save it as UTF-8 without one');
    skipSpace();
    if (at >= text.length) return undefined;
    const char = text[at]!;
    if (afterQuote && char !== ';' && char !== '{' && char !== ')')
      return refuse(
        at,
        `${JSON.stringify(char)} follows a quote`,
        'put a space or a ; behind the closing quote',
      );
    afterQuote = false;
    if (char === ';' || char === '{' || char === '}') {
      const token = { kind: char, text: char, ...place(at) } as const;
      at++;
      return token;
    }
    return char === '"' || char === "'" ? quotedWord(char) : bareWord();
  }

  function quotedWord(quote: string): Token | undefined {
    const start = { ...place(at), offset: at };
    at++;
    for (let from = at; at < text.length; at++) {
      const char = text[at]!;
      if (char === '\\') skipEscaped();
      else if (char === '\n') newLine(at);
      else if (char === quote) {
        const token = word(from, at, start);
        at++;
        afterQuote = true;
        return token;
      }
    }
    mistake = {
      place: { file, line: start.line, column: start.column },
      subject: `a quote (${quote}) is not closed`,
      cure: `close it with ${quote}`,
    };
    return undefined;
  }

  function bareWord(): Token | undefined {
    const start = { ...place(at), offset: at };
    const from = at;
    let variable = false;
    for (; at < text.length; at++) {
      const char = text[at]!;
      if (char === '{' && variable) continue;
      variable = char === '$';
      if (char === '\\') skipEscaped();
      else if (char === '{' || char === ';' || isSpace(text.charCodeAt(at))) break;
    }
    return word(from, Math.min(at, text.length), start);
  }

  /** The character behind a backslash ends nothing. */
  function skipEscaped(): void {
    at++;
    if (text[at] === '\n') newLine(at);
  }

  function word(
    from: number,
    to: number,
    start: { line: number; column: number; offset: number },
  ): Token | undefined {
    const where = { file, line: start.line, column: start.column };
    const raw = text.slice(from, to);
    const fault = faultOf(raw);
    if (fault !== undefined) {
      mistake = { place: where, ...fault };
      at = text.length;
      return undefined;
    }
    return { kind: 'word', text: withoutEscapes(raw), ...where };
  }

  function skipBlock(): void {
    let depth = 1;
    for (; at < text.length && depth > 0; at++) {
      const char = text[at]!;
      if (char === '\n') newLine(at);
      else if (char === '{') depth++;
      else if (char === '}') depth--;
    }
  }

  return {
    next,
    skipBlock,
    get mistake() {
      return mistake;
    },
  };
}

const [TAB, LF, CR, SPACE] = [9, 10, 13, 32];

function isSpace(code: number): boolean {
  return code === SPACE || code === TAB || code === LF || code === CR;
}

function faultOf(raw: string): Pick<Mistake, 'subject' | 'cure'> | undefined {
  if (raw.length >= LONGEST_WORD)
    return { subject: `a word is longer than ${LONGEST_WORD} characters`, cure: 'close the quote before it' };
  if (raw.includes('\0')) return { subject: 'a word holds a NUL character', cure: 'take it away' };
  if (raw.includes('\uFFFD')) return { subject: 'a word is not UTF-8', cure: 'save the file as UTF-8' };
  return undefined;
}

/** Any other backslash stays: that of a regular expression, and that before a `$`, which is expanded all the same. */
function withoutEscapes(raw: string): string {
  if (!raw.includes('\\')) return raw;
  return raw.replaceAll(/\\(["'\\ trn])/g, (_, char: string) => escapes[char]!);
}
