// The Huffman code of header strings (RFC 7541 §5.2 and Appendix B).

/** Bits of the code of each octet, and of EOS last. The code is canonical: it follows from the lengths. */
const LENGTHS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28,
  28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7,
  8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19,
  13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13,
  28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21,
  22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23,
  22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25,
  25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
const EOS = 256;

const codeOf = new Uint32Array(257);
const lengthOf = Uint8Array.from(LENGTHS);

/** Symbols in the order of their codes: each is the one before plus one, widened to its own length. */
function assignCodes(): number[] {
  const order = [...LENGTHS.keys()].sort((a, b) => LENGTHS[a]! - LENGTHS[b]! || a - b);
  let code = 0;
  let length = 0;
  for (const symbol of order) {
    code *= 2 ** (LENGTHS[symbol]! - length);
    length = LENGTHS[symbol]!;
    codeOf[symbol] = code++;
  }
  return order;
}

// A state is an inner node of the code's tree; four bits lead from one to the next and end at most one symbol, for
// the shortest code has five. An entry: the next state, then the symbol, then two flags.
const EMITS = 1 << 16;
const FAILS = 1 << 17;
const steps = new Int32Array(256 * 16).fill(FAILS);
/** States in which a string may end: after the last symbol come at most seven bits of padding, all ones as in EOS. */
const mayEnd = new Uint8Array(256);

buildSteps(assignCodes());

function buildSteps(order: readonly number[]): void {
  // Each node has two children: an inner node is its number, a symbol the complement of it.
  const children: [number | undefined, number | undefined][] = [[undefined, undefined]];
  for (const symbol of order) {
    let node = 0;
    for (let bit = LENGTHS[symbol]! - 1; bit >= 0; bit--) {
      const side = (codeOf[symbol]! >>> bit) & 1;
      if (bit === 0) children[node]![side] = ~symbol;
      else {
        children[node]![side] ??= children.push([undefined, undefined]) - 1;
        node = children[node]![side]!;
      }
    }
  }
  for (let state = 0; state < children.length; state++) {
    for (let nibble = 0; nibble < 16; nibble++) steps[state * 16 + nibble] = stepFrom(state, nibble);
  }
  for (let state = 0, depth = 0; depth < 8; depth++) {
    mayEnd[state] = 1;
    state = children[state]![1]!;
  }

  function stepFrom(state: number, nibble: number): number {
    let node = state;
    let step = 0;
    for (let bit = 3; bit >= 0; bit--) {
      const next = children[node]![(nibble >>> bit) & 1]!;
      if (next >= 0) node = next;
      else if (~next === EOS) return FAILS;
      else {
        step |= EMITS | (~next << 8);
        node = 0;
      }
    }
    return step | node;
  }
}

/** How many octets `text` (latin-1) takes when encoded. */
export function huffmanSize(text: string): number {
  let bits = 0;
  for (let i = 0; i < text.length; i++) bits += lengthOf[text.charCodeAt(i) & 0xff]!;
  return (bits + 7) >>> 3;
}

/** Writes `text` (latin-1) at `bytes[pos...]`, where huffmanSize() octets must be free. Returns the position after it. */
export function writeHuffman(text: string, bytes: Uint8Array, pos: number): number {
  let at = pos;
  let held = 0;
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    const symbol = text.charCodeAt(i) & 0xff;
    const code = codeOf[symbol]!;
    let left = lengthOf[symbol]!;
    // At most 23 bits at once: 16 of the code and 7 from before.
    while (left > 0) {
      const taken = Math.min(left, 16);
      left -= taken;
      held = (held << taken) | ((code >>> left) & (2 ** taken - 1));
      count += taken;
      while (count >= 8) {
        count -= 8;
        bytes[at++] = held >>> count;
      }
      held &= 0xff;
    }
  }
  if (count > 0) bytes[at++] = (held << (8 - count)) | (0xff >>> count);
  return at;
}

/** Octets that `size` encoded ones can become. */
export function decodedSize(size: number): number {
  return Math.floor((size * 8) / 5);
}

/**
 * Decodes `bytes[start, end)` into `into`, where decodedSize() octets must be free. Returns how many there are, or -1 if
 * the encoding is invalid: it contains EOS, or its padding is longer than seven bits or not all ones.
 */
export function readHuffman(bytes: Uint8Array, start: number, end: number, into: Uint8Array): number {
  let state = 0;
  let size = 0;
  for (let pos = start; pos < end; pos++) {
    const byte = bytes[pos]!;
    const high = steps[state * 16 + (byte >>> 4)]!;
    if ((high & EMITS) !== 0) into[size++] = high >>> 8;
    if ((high & FAILS) !== 0) return -1;
    const low = steps[(high & 0xff) * 16 + (byte & 15)]!;
    if ((low & EMITS) !== 0) into[size++] = low >>> 8;
    if ((low & FAILS) !== 0) return -1;
    state = low & 0xff;
  }
  return mayEnd[state] === 1 ? size : -1;
}
