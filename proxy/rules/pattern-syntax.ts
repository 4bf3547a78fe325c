// Regular expressions as nginx has them (PCRE, by bytes), read into a tree; what JavaScript cannot do the same way is refused.

export type Node =
  /** One byte of a set. */
  | { readonly kind: 'byte'; readonly set: Uint8Array }
  | { readonly kind: 'sequence'; readonly items: readonly Node[] }
  | { readonly kind: 'choice'; readonly items: readonly Node[] }
  | {
      readonly kind: 'capture';
      readonly index: number;
      readonly name: string | undefined;
      readonly item: Node;
    }
  | {
      readonly kind: 'repeat';
      readonly item: Node;
      readonly min: number;
      readonly max: number;
      readonly lazy: boolean;
    }
  | { readonly kind: 'edge'; readonly at: Edge }
  | { readonly kind: 'look'; readonly ahead: boolean; readonly not: boolean; readonly item: Node };

/** `line-end`: the end, or before a newline that is the last byte: what `$` means to PCRE. */
export type Edge = 'start' | 'end' | 'line-end' | 'word' | 'not-word';

export interface Tree {
  readonly root: Node;
  readonly captures: number;
  readonly names: readonly string[];
}

/** Why a pattern is refused; `cure` says what to write instead. */
export class PatternError extends Error {
  override readonly name = 'PatternError';
  readonly cure: string;
  constructor(fault: string, cure: string) {
    super(fault);
    this.cure = cure;
  }
}

/** Of one pattern, so that nobody's start takes long. */
const LONGEST = 4_096;
const DEEPEST = 100;
const MOST_REPEATS = 1_000;

/** `text` in bytes. Throws PatternError. */
export function parsePattern(text: string, ignoreCase: boolean): Tree {
  if (text.length > LONGEST)
    throw new PatternError(`it is longer than ${LONGEST} bytes`, 'split it into several');
  return new Parser(text, ignoreCase).parse();
}

const EMPTY: Node = { kind: 'sequence', items: [] };

class Parser {
  readonly #text: string;
  readonly #names: string[] = [];
  #at = 0;
  #captures = 0;
  #depth = 0;
  #ignoreCase: boolean;
  #dotAll = false;

  constructor(text: string, ignoreCase: boolean) {
    this.#text = text;
    this.#ignoreCase = ignoreCase;
  }

  parse(): Tree {
    const root = this.#choice();
    if (this.#at < this.#text.length)
      throw new PatternError('it closes a group that is not open', 'write \\)');
    return { root, captures: this.#captures, names: this.#names };
  }

  #eat(text: string): boolean {
    if (!this.#text.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  #match(sticky: RegExp): RegExpExecArray | undefined {
    sticky.lastIndex = this.#at;
    const found = sticky.exec(this.#text);
    if (found === null) return undefined;
    this.#at = sticky.lastIndex;
    return found;
  }

  #choice(): Node {
    if (++this.#depth > DEEPEST)
      throw new PatternError('its groups are nested too deeply', 'write it flatter');
    const [ignoreCase, dotAll] = [this.#ignoreCase, this.#dotAll];
    const items = [this.#sequence()];
    while (this.#eat('|')) items.push(this.#sequence());
    // Flags that are set inside a group end with it.
    [this.#ignoreCase, this.#dotAll] = [ignoreCase, dotAll];
    this.#depth--;
    return items.length === 1 ? items[0]! : { kind: 'choice', items };
  }

  #sequence(): Node {
    const items: Node[] = [];
    while (this.#at < this.#text.length && !/[|)]/.test(this.#text[this.#at]!)) {
      const item = this.#item();
      if (item !== EMPTY) items.push(this.#repeated(item));
    }
    return items.length === 1 ? items[0]! : { kind: 'sequence', items };
  }

  #repeated(item: Node): Node {
    const found = this.#match(/\*|\+|\?|\{(\d+)(?:(,)(\d*))?\}/y);
    if (found === undefined) return item;
    const [text, least, comma, most] = found;
    const min = least === undefined ? (text === '+' ? 1 : 0) : Number(least);
    const max = maximumOf(text, min, comma, most);
    if (min > MOST_REPEATS || (max !== Number.POSITIVE_INFINITY && max > MOST_REPEATS))
      throw new PatternError(
        `${text} repeats more than ${MOST_REPEATS} times`,
        'wants smaller numbers, or +',
      );
    if (max < min) throw new PatternError(`${text} has its numbers the wrong way round`, 'swap them');
    if (this.#eat('+'))
      throw new PatternError(`${text}+ is possessive, which JavaScript lacks`, `write ${text}`);
    const lazy = this.#eat('?');
    if (item.kind === 'edge' || item.kind === 'look')
      throw new PatternError(`${text} repeats what takes no character`, `leave out ${text}`);
    if (/[*+?]/.test(this.#text[this.#at] ?? ''))
      throw new PatternError(`a repetition is repeated after ${text}`, 'put the inner one into a group');
    return { kind: 'repeat', item, min, max, lazy };
  }

  #item(): Node {
    const char = this.#text[this.#at++]!;
    if (char === '(') return this.#group();
    if (char === '[') return this.#byte(this.#set());
    if (char === '.')
      return { kind: 'byte', set: this.#dotAll ? setOf(() => true) : setOf((byte) => byte !== 10) };
    if (char === '^') return { kind: 'edge', at: 'start' };
    if (char === '$') return { kind: 'edge', at: 'line-end' };
    if (char === '\\') return this.#escape();
    if (/[*+?]/.test(char)) throw new PatternError(`nothing stands before ${char}`, `write \\${char}`);
    return this.#byte(single(char.charCodeAt(0)));
  }

  #byte(set: Uint8Array): Node {
    return { kind: 'byte', set: this.#ignoreCase ? withBothCases(set) : set };
  }

  #group(): Node {
    if (this.#eat('?#')) {
      if (this.#match(/[^)]*\)/y) === undefined) throw unclosed('(?#');
      return EMPTY;
    }
    const flags = this.#match(/\?([a-zA-Z^-]*)([:)])/y);
    if (flags !== undefined) return this.#flagged(flags[1]!, flags[2] === ':');
    const look = this.#match(/\?(<?)([=!])/y);
    if (look !== undefined)
      return { kind: 'look', ahead: look[1] === '', not: look[2] === '!', item: this.#closed() };
    const name = this.#match(/\?P?<([A-Za-z_]\w*)>|\?'([A-Za-z_]\w*)'/y);
    if (name === undefined && this.#text[this.#at] === '?')
      throw new PatternError(
        `(${this.#text.slice(this.#at, this.#at + 3)} is a kind of group that JavaScript lacks`,
        'write it with (?:…), (?=…) or (?<name>…)',
      );
    if (name === undefined && this.#text[this.#at] === '*')
      throw new PatternError('(*…) is a verb that JavaScript lacks', 'leave it out');
    return this.#capture(name?.[1] ?? name?.[2]);
  }

  #capture(name: string | undefined): Node {
    const index = ++this.#captures;
    if (name !== undefined) {
      if (this.#names.includes(name)) throw new PatternError(`the name ${name} is given twice`, 'rename one');
      this.#names.push(name);
    }
    return { kind: 'capture', index, name, item: this.#closed() };
  }

  #closed(): Node {
    const item = this.#choice();
    if (!this.#eat(')')) throw unclosed('(');
    return item;
  }

  #flagged(text: string, isGroup: boolean): Node {
    const before = [this.#ignoreCase, this.#dotAll] as const;
    let on = true;
    for (const flag of text) {
      if (flag === '-') on = false;
      else if (flag === 'i') this.#ignoreCase = on;
      else if (flag === 's') this.#dotAll = on;
      else throw new PatternError(`the flag ${flag} is not supported`, 'of flags only i and s are known');
    }
    if (!isGroup) return EMPTY;
    const item = this.#closed();
    [this.#ignoreCase, this.#dotAll] = before;
    // A node of its own: what follows repeats the group.
    return { kind: 'sequence', items: [item] };
  }

  #escape(): Node {
    if (this.#eat('Q')) return this.#quoted();
    const edge = edges[this.#text[this.#at] ?? ''];
    if (edge !== undefined) {
      this.#at++;
      return { kind: 'edge', at: edge };
    }
    return this.#byte(this.#escapedSet(false));
  }

  #quoted(): Node {
    const end = this.#text.indexOf('\\E', this.#at);
    const text = this.#text.slice(this.#at, end < 0 ? undefined : end);
    this.#at = end < 0 ? this.#text.length : end + 2;
    const items = [...text].map((char) => this.#byte(single(char.charCodeAt(0))));
    if (items.length === 0) return EMPTY;
    const last = items.pop()!;
    return items.length === 0 ? last : { kind: 'sequence', items: [...items, this.#repeated(last)] };
  }

  /** After a backslash. */
  #escapedSet(inSet: boolean): Uint8Array {
    const code = this.#match(/x\{([0-9A-Fa-f]{1,2})\}|x([0-9A-Fa-f]{2})|0([0-7]{0,2})/y);
    if (code !== undefined) {
      const [, braced, plain, octal] = code;
      return single(
        octal === undefined ? Number.parseInt(braced ?? plain!, 16) : Number.parseInt(octal || '0', 8),
      );
    }
    const char = this.#text[this.#at++];
    if (char === undefined) throw new PatternError('it ends with a backslash', 'write \\\\');
    if (inSet && char === 'b') return single(8);
    const known = classes[char];
    if (known !== undefined) return known;
    const control = controls[char];
    if (control !== undefined) return single(control);
    if (/[1-9]/.test(char))
      throw new PatternError(`\\${char} refers back to what was matched`, 'write the pattern without it');
    if (/[A-Za-z]/.test(char))
      throw new PatternError(`\\${char} is not supported`, 'write it as a class, as in [a-z]');
    return single(char.charCodeAt(0));
  }

  /** After `[`. */
  #set(): Uint8Array {
    const set = new Uint8Array(256);
    const negated = this.#eat('^');
    let first = true;
    while (first || this.#text[this.#at] !== ']') {
      if (this.#at >= this.#text.length) throw unclosed('[');
      first = false;
      this.#setMember(set);
    }
    this.#at++;
    // Both cases first: [^a] without case is neither a nor A.
    const folded = this.#ignoreCase ? withBothCases(set) : set;
    return negated ? setOf((byte) => folded[byte] === 0) : folded;
  }

  #setMember(set: Uint8Array): void {
    const posix = this.#match(/\[:(\^?)(\w+):\]/y);
    if (posix !== undefined) {
      const known = posixClasses[posix[2]!];
      if (known === undefined) throw new PatternError(`[:${posix[2]}:] is no class`, 'as in [[:alpha:]]');
      include(set, posix[1] === '' ? known : opposite(known));
      return;
    }
    const low = this.#setAtom();
    const range =
      this.#text[this.#at] === '-' && !/^(\]|$)/.test(this.#text.slice(this.#at + 1, this.#at + 2));
    if (!range || low.byte < 0) {
      include(set, low.set);
      return;
    }
    this.#at++;
    const high = this.#setAtom();
    if (high.byte < low.byte) throw new PatternError('a range in [ ] goes from high to low', 'swap its ends');
    set.fill(1, low.byte, high.byte + 1);
  }

  /** `byte` is -1 for a class. */
  #setAtom(): { readonly set: Uint8Array; readonly byte: number } {
    const char = this.#text[this.#at++];
    if (char === undefined) throw unclosed('[');
    const set = char === '\\' ? this.#escapedSet(true) : single(char.charCodeAt(0));
    const byte = set.indexOf(1);
    return { set, byte: set.indexOf(1, byte + 1) < 0 ? byte : -1 };
  }
}

function maximumOf(text: string, min: number, comma: string | undefined, most: string | undefined): number {
  if (text === '?') return 1;
  if (text === '*' || text === '+') return Number.POSITIVE_INFINITY;
  if (comma === undefined) return min;
  return most === '' || most === undefined ? Number.POSITIVE_INFINITY : Number(most);
}

function unclosed(what: string): PatternError {
  return new PatternError(`${what} is not closed`, `close it, or write \\${what[0]}`);
}

function include(set: Uint8Array, more: Uint8Array): void {
  for (let byte = 0; byte < 256; byte++) if (more[byte] === 1) set[byte] = 1;
}

function setOf(has: (byte: number) => boolean): Uint8Array {
  const set = new Uint8Array(256);
  for (let byte = 0; byte < 256; byte++) if (has(byte)) set[byte] = 1;
  return set;
}

function single(byte: number): Uint8Array {
  const set = new Uint8Array(256);
  set[byte] = 1;
  return set;
}

function like(pattern: RegExp): Uint8Array {
  return setOf((byte) => pattern.test(String.fromCharCode(byte)));
}

function opposite(set: Uint8Array): Uint8Array {
  return setOf((byte) => set[byte] === 0);
}

/** ASCII's cases only: bytes above are parts of characters. */
function withBothCases(set: Uint8Array): Uint8Array {
  const both = set.slice();
  for (let upper = 65; upper <= 90; upper++) {
    if (set[upper] === 1 || set[upper + 32] === 1) both[upper] = both[upper + 32] = 1;
  }
  return both;
}

const edges: Readonly<Record<string, Edge>> = {
  A: 'start',
  z: 'end',
  Z: 'line-end',
  b: 'word',
  B: 'not-word',
};

const controls: Readonly<Record<string, number>> = { n: 10, r: 13, t: 9, f: 12, e: 27, a: 7 };

const digit = like(/[0-9]/);
const word = like(/[A-Za-z0-9_]/);
const space = like(/[\t-\r ]/);
const horizontal = like(/[\t \xa0]/);
const vertical = like(/[\n-\r\x85]/);

const classes: Readonly<Record<string, Uint8Array>> = {
  d: digit,
  D: opposite(digit),
  w: word,
  W: opposite(word),
  s: space,
  S: opposite(space),
  h: horizontal,
  H: opposite(horizontal),
  v: vertical,
  V: opposite(vertical),
  N: setOf((byte) => byte !== 10),
};

const posixClasses: Readonly<Record<string, Uint8Array>> = {
  alpha: like(/[A-Za-z]/),
  digit,
  alnum: like(/[A-Za-z0-9]/),
  upper: like(/[A-Z]/),
  lower: like(/[a-z]/),
  space,
  blank: like(/[\t ]/),
  punct: like(/[!-/:-@[-`{-~]/),
  print: like(/[ -~]/),
  graph: like(/[!-~]/),
  cntrl: like(/[\x00-\x1f\x7f]/),
  xdigit: like(/[0-9A-Fa-f]/),
  word,
  ascii: like(/[\x00-\x7f]/),
};
