// Which bytes may stand where in a message (RFC 9110 §5.5 and §5.6.2).

export const CR = 13;
export const LF = 10;
export const SP = 32;
export const HTAB = 9;
export const COLON = 58;
export const SEMICOLON = 59;

/** RFC 9110 §5.6.2: a token's characters, each with its lower case. 0: not of a token. */
export const TOKEN = new Uint8Array(256);
for (const char of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
  TOKEN[char.charCodeAt(0)] = char.toLowerCase().charCodeAt(0);
}

/** RFC 9110 §5.5: VCHAR, SP, HTAB and obs-text may be in a value; NUL, CR, LF and every other control may not. */
export const VALUE = new Uint8Array(256).fill(1, SP).fill(0, 127, 128);
VALUE[HTAB] = 1;

/** RFC 9110 §5.6.2. */
export function isToken(text: string): boolean {
  return /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(text);
}
