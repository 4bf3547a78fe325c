// What the first bytes of a client are that named no protocol: HTTP/1, HTTP/2, or bytes that no HTTP server takes for a request.

/**
 * `http1` goes to the HTTP/1.1 reader, which refuses what is malformed. Only `other` may be spliced: in a request that we
 * have not read, the server would believe what the client says about itself.
 */
export type Opening = 'http1' | 'http2' | 'other';

/**
 * The rule, in the order of the bytes. "Blank" is what some HTTP server takes for white space (RFC 9112 §3: SP, HTAB,
 * VT, FF, bare CR; Python's split() takes more), and "token" is RFC 9110 §5.6.2.
 *
 * 1. Blanks and empty lines in front do not count (RFC 9112 §2.2).
 * 2. A first byte that is not of a token: other. RFC 9112 §3 begins a request with a method, which is a token.
 * 3. A token, then neither blank nor line end: other, for no server ends a method so.
 * 4. A word alone in its line: other. A request has a target.
 * 5. A second word that begins with "/" or "*" or holds "://", or any word after GET: http1, with a version or without
 *    (HTTP/0.9, after which Node and Python read fields all the same). So is any second word after another method of
 *    HTTP, and after PROXY: that header names clients, and some servers of HTTP take it from anyone.
 * 6. A second word that begins with what no target begins with: other (`CONNECT {`, `86 <13>`).
 * 7. A line with a word that begins with HTTP/, RTSP/ or ICE/ (Node serves the last two as HTTP): http1.
 * 8. Any other line: other (`EHLO host`, `get key`, `NICK name`).
 *
 * As long as the bytes could still become http1 they wait, for the client's own time limit and no shorter one. What is
 * other by rules 2, 3 and 6 is so before its line has ended: see LineGuard.
 */
export interface OpeningReader {
  /** Takes what follows. Undefined: too few bytes to say. Not to be called after an answer. */
  read(bytes: Buffer): Opening | undefined;
  /** The client has sent its last byte: judges the line as it stands. */
  end(): Opening;
  /** Nothing but blanks so far. */
  readonly blank: boolean;
}

const LF = 10;

/** White space to at least one server, the line's end included. */
const BLANK = new Uint8Array(256);
for (const byte of [9, LF, 11, 12, 13, 28, 29, 30, 31, 32, 0x85, 0xa0]) BLANK[byte] = 1;

/** RFC 9110 §5.6.2. */
const TOKEN = new Uint8Array(256);
for (const char of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
  TOKEN[char.charCodeAt(0)] = 1;
}

/** Visible ASCII but for what RFC 3986 has no place for. */
const TARGET_START = new Uint8Array(256).fill(1, 0x21, 0x7f);
for (const char of '"<>\\^`{|}') TARGET_START[char.charCodeAt(0)] = 0;

const METHODS = /^(?:HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|QUERY|PRI|PROXY)$/;
const VERSION_START = /^(?:HTTP|RTSP|ICE)\/$/i;
const LONGEST_VERSION_START = 5;
const LONGEST_METHOD = 8;

/** RFC 9113 §3.4, its first line. */
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n', 'latin1');
/** Where the PROXY protocol's version 2 leaves what could be an empty line (proxy-protocol.txt §2.2). */
const PROXY_SIGNATURE = Buffer.from('\r\n\r\n\0', 'latin1');

export function createOpeningReader(): OpeningReader {
  return new Reader();
}

class Reader implements OpeningReader {
  /** 0: nothing but blanks yet. */
  private words = 0;
  private inWord = false;
  /** The beginning of the word under way, and the whole first one if it is short. */
  private word = '';
  private first = '';
  private slashes = 0;
  private taken = 0;
  private preface = true;
  private signature = true;
  /** The answer, unless the bytes turn out to be the preface of HTTP/2. */
  private pending: Opening | undefined;

  get blank(): boolean {
    return this.words === 0;
  }

  read(bytes: Buffer): Opening | undefined {
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i]!;
      this.compare(byte);
      if (this.preface && this.taken === PREFACE.length) return 'http2';
      this.pending ??= this.judge(byte);
      if (this.pending !== undefined && !this.preface) return this.pending;
    }
    return undefined;
  }

  end(): Opening {
    return this.pending ?? this.lineEnds() ?? 'other';
  }

  private compare(byte: number): void {
    this.preface &&= byte === PREFACE[this.taken];
    this.signature &&= byte === PROXY_SIGNATURE[this.taken];
    this.taken++;
  }

  private judge(byte: number): Opening | undefined {
    if (BLANK[byte] === 1) {
      this.inWord = false;
      return byte === LF ? this.lineEnds() : undefined;
    }
    if (!this.inWord) {
      this.inWord = true;
      this.words++;
      this.word = '';
      this.slashes = 0;
      if (this.words === 2) return this.beginTarget(byte);
    }
    if (this.words === 1) return this.readMethod(byte);
    return this.readWord(byte);
  }

  private readMethod(byte: number): Opening | undefined {
    if (TOKEN[byte] === 0) return this.signature ? 'http1' : 'other';
    if (this.first.length <= LONGEST_METHOD) this.first += String.fromCharCode(byte);
    return undefined;
  }

  private beginTarget(byte: number): Opening | undefined {
    const char = String.fromCharCode(byte);
    if (char === '/' || char === '*' || this.first === 'GET') return 'http1';
    if (TARGET_START[byte] === 0) return 'other';
    if (METHODS.test(this.first)) return 'http1';
    return this.readWord(byte);
  }

  private readWord(byte: number): Opening | undefined {
    // No server accepts it in a target or a version, and a binary protocol may never end its line.
    if (byte < 0x21 || byte > 0x7e) return 'other';
    const char = String.fromCharCode(byte);
    if (this.words === 2 && this.isScheme(char)) return 'http1';
    if (this.word.length >= LONGEST_VERSION_START) return undefined;
    this.word += char;
    return VERSION_START.test(this.word) ? 'http1' : undefined;
  }

  /** Whether `://` ends here. */
  private isScheme(char: string): boolean {
    if (char === ':') this.slashes = 1;
    else this.slashes = char === '/' && this.slashes > 0 ? this.slashes + 1 : 0;
    return this.slashes === 3;
  }

  private lineEnds(): Opening | undefined {
    return this.words === 0 ? undefined : 'other';
  }
}

/**
 * Watches the first line of what is spliced before it has ended. Servers that keep to RFC 9112 answer 400 to it and
 * close, whatever follows: a request behind it is never read. Some take anything before a blank for a method; to those
 * a line is a request if its last word is a version, and such a line never gets its end.
 */
export interface LineGuard {
  /** Whether these bytes may pass. */
  passes(bytes: Buffer): boolean;
}

export function createLineGuard(): LineGuard {
  let tail = '';
  let verdict: boolean | undefined;
  return {
    passes(bytes) {
      for (let start = 0; verdict === undefined; ) {
        const end = bytes.indexOf(LF, start);
        tail = lineTail(tail, bytes, start, end === -1 ? bytes.length : end);
        if (end === -1) return true;
        start = end + 1;
        // Empty lines in front do not count.
        if (tail === '' || tail === ' ') continue;
        verdict = !ENDS_WITH_VERSION.test(tail);
      }
      return verdict;
    },
  };
}

const ENDS_WITH_VERSION = /[\t\v\f\r\x1c-\x20\x85\xa0]HTTP\/\d+(?:\.\d+)? ?$/;
const LONGEST_TAIL = 32;

/** The end of a line that began with `tail`, blanks at its very end as one space. */
function lineTail(tail: string, bytes: Buffer, start: number, end: number): string {
  let last = end;
  while (last > start && BLANK[bytes[last - 1]!] === 1) last--;
  const text = bytes.toString('latin1', Math.max(start, last - LONGEST_TAIL), last);
  const blank = last < end ? ' ' : '';
  if (text === '') return tail.endsWith(' ') ? tail : tail + blank;
  return (tail + text).slice(-LONGEST_TAIL) + blank;
}

/** How an upstream that speaks before its client shows what it speaks. */
export type Greeting = 'http' | 'other';

/**
 * A server of HTTP/1 that has waited too long says so (408); one of HTTP/2 sends its SETTINGS unasked (RFC 9113 §3.4).
 * In both cases its client must not be spliced. Undefined: too few bytes to say.
 */
export function judgeGreeting(bytes: Buffer): Greeting | undefined {
  const status = agreement(bytes, STATUS_LINE);
  const settings = agreement(bytes, SETTINGS_HEADER);
  if (status === 'whole' || settings === 'whole') return 'http';
  return status === 'so-far' || settings === 'so-far' ? undefined : 'other';
}

const STATUS_LINE = [...Buffer.from('HTTP/')];
/** RFC 9113 §4.1 and §6.5: a short frame of type 4, on stream 0, without flags. -1: any byte. */
const SETTINGS_HEADER = [0, 0, -1, 4, 0, 0, 0, 0, 0];

function agreement(bytes: Buffer, pattern: readonly number[]): 'whole' | 'so-far' | 'none' {
  const known = Math.min(bytes.length, pattern.length);
  for (let i = 0; i < known; i++) {
    if (pattern[i] !== -1 && bytes[i] !== pattern[i]) return 'none';
  }
  return known === pattern.length ? 'whole' : 'so-far';
}
