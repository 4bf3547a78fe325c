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

/** nginx's own limit: beyond it a quote was forgotten. */
const LONGEST_WORD = 4096;

const escapes: Readonly<Record<string, string>> = {
  '"': '"',
  "'": "'",
  '\\': '\\',
  t: '\t',
  r: '\r',
  n: '\n',
};

export class Lexer {
  /** Behind it nothing can be told. */
  mistake: Mistake | undefined;
  readonly #text: string;
  readonly #file: string;
  #at = 0;
  #line = 1;
  #lineStart = 0;
  /** A quoted word ends where its quote does: what follows must set it apart. */
  #afterQuote = false;

  constructor(text: string, file: string) {
    this.#text = text;
    this.#file = file;
  }

  /** Undefined at the end of the file, or once there is a mistake. */
  next(): Token | undefined {
    if (this.mistake !== undefined) return undefined;
    if (this.#at === 0 && this.#text.startsWith('\uFEFF'))
      return this.#refuse(this.#place(), 'begins with a byte order mark', 'save it as UTF-8 without one');
    this.#skipSpace();
    const char = this.#text[this.#at];
    if (char === undefined) return undefined;
    if (this.#afterQuote && char !== ';' && char !== '{' && char !== ')') {
      const subject = `${JSON.stringify(char)} follows a quote`;
      return this.#refuse(this.#place(), subject, 'put a space or a ; behind the closing quote');
    }
    this.#afterQuote = false;
    if (char === '"' || char === "'") return this.#quotedWord(char);
    if (char !== ';' && char !== '{' && char !== '}') return this.#bareWord();
    const token = { kind: char, text: char, ...this.#place() } as const;
    this.#at++;
    return token;
  }

  /** Goes on behind the `}` that closes a block of another language. */
  skipBlock(): void {
    const mark = /[{}\n]|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/g;
    mark.lastIndex = this.#at;
    for (let depth = 1; depth > 0; ) {
      const found = mark.exec(this.#text);
      this.#at = found === null ? this.#text.length : mark.lastIndex;
      if (found === null) return;
      if (found[0] === '\n') this.#newLine(found.index);
      else if (found[0] === '{') depth++;
      else if (found[0] === '}') depth--;
    }
  }

  #place(): Omit<Word, 'text'> {
    return { file: this.#file, line: this.#line, column: this.#at - this.#lineStart + 1 };
  }

  #refuse(place: Omit<Word, 'text'>, subject: string, cure: string): undefined {
    this.mistake = { place, subject, cure };
  }

  #newLine(offset: number): void {
    this.#line++;
    this.#lineStart = offset + 1;
  }

  #skipSpace(): void {
    for (; this.#at < this.#text.length; this.#at++) {
      if (this.#text[this.#at] === '#' && !this.#afterQuote) {
        const end = this.#text.indexOf('\n', this.#at);
        this.#at = end < 0 ? this.#text.length : end;
      }
      const code = this.#text.charCodeAt(this.#at);
      if (code === LF) this.#newLine(this.#at);
      else if (!isSpace(code)) return;
      this.#afterQuote = false;
    }
  }

  #quotedWord(quote: string): Token | undefined {
    const start = this.#place();
    const from = ++this.#at;
    for (; this.#at < this.#text.length; this.#at++) {
      const char = this.#text[this.#at];
      if (char === '\\') this.#skipEscaped();
      else if (char === '\n') this.#newLine(this.#at);
      else if (char === quote) {
        this.#afterQuote = true;
        return this.#word(from, this.#at++, start);
      }
    }
    return this.#refuse(start, `a quote (${quote}) is not closed`, `close it with ${quote}`);
  }

  #bareWord(): Token | undefined {
    const start = this.#place();
    const from = this.#at;
    let variable = false;
    for (; this.#at < this.#text.length; this.#at++) {
      const char = this.#text[this.#at]!;
      if (char === '{' && variable) continue;
      variable = char === '$';
      if (char === '\\') this.#skipEscaped();
      else if (char === '{' || char === ';' || isSpace(char.charCodeAt(0))) break;
    }
    return this.#word(from, Math.min(this.#at, this.#text.length), start);
  }

  /** The character behind a backslash ends nothing. */
  #skipEscaped(): void {
    this.#at++;
    if (this.#text[this.#at] === '\n') this.#newLine(this.#at);
  }

  #word(from: number, to: number, start: Omit<Word, 'text'>): Token | undefined {
    const raw = this.#text.slice(from, to);
    const fault = faultOf(raw);
    if (fault !== undefined) return this.#refuse(start, fault.subject, fault.cure);
    return { kind: 'word', text: withoutEscapes(raw), ...start };
  }
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
  return raw.replaceAll(/\\(["'\\trn])/g, (_, char: string) => escapes[char]!);
}
