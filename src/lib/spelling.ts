// Which of the known words was meant: slips of the finger, and words left out of a name.

/** The nearest of the candidates, if one is near enough to have been meant. */
export function nearest(text: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let fewest = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const slips = slipsIfNear(text, candidate);
    if (slips < fewest) [best, fewest] = [candidate, slips];
  }
  return best;
}

/** ` (was X meant?)`, to stand behind a list of what is wanted; empty if none is near. */
export function meantIn(text: string, candidates: Iterable<string>): string {
  const like = nearest(text, candidates);
  return like === undefined ? '' : ` (was ${like} meant?)`;
}

/**
 * The nearest name of several words joined by underscores. A missing word is one slip: CLOUDFLARE_TOKEN is near
 * CLOUDFLARE_API_TOKEN. A word too many is no slip: DSTACK_APP_ID is another program's name, not a bad APP_ID.
 */
export function nearestName(name: string, known: Iterable<string>): string | undefined {
  const names = [...known];
  return nearest(name, names) ?? names.find((candidate) => lacksOneWordOf(name, candidate));
}

/** One slip in a short text, two in a long one; infinite beyond. */
function slipsIfNear(text: string, candidate: string): number {
  const shorter = Math.min(text.length, candidate.length);
  const most = shorter >= 8 ? 2 : shorter >= 3 ? 1 : 0;
  // Looked at first, because the distance costs the product of the lengths, and texts may be long.
  if (Math.abs(text.length - candidate.length) > most) return Number.POSITIVE_INFINITY;
  return slipsBetween(text, candidate, most);
}

/** What people call a credential. */
const CREDENTIALS = new Set(['KEY', 'TOKEN', 'SECRET', 'PASSWORD']);

function lacksOneWordOf(name: string, candidate: string): boolean {
  const some = name.split('_');
  const all = candidate.split('_');
  // The first says whose it is; one word alone would make every PORT the ingress's own.
  if (some.length < 2 || all.length - some.length !== 1 || some[0] !== all[0]) return false;
  let at = 0;
  for (const word of all) if (at < some.length && isSameWord(word, some[at]!)) at++;
  return at === some.length;
}

function isSameWord(a: string, b: string): boolean {
  return a === b || (CREDENTIALS.has(a) && CREDENTIALS.has(b)) || slipsIfNear(a, b) < 2;
}

/** The optimal string alignment distance: a letter lost, added, changed, or two neighbours swapped. Infinite beyond `most`. */
function slipsBetween(a: string, b: string, most: number): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  let leastOfLast = 0;
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    let least = i;
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1;
      let slips = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + change);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) slips = Math.min(slips, beforeLast[j - 2]! + 1);
      row.push(slips);
      if (slips < least) least = slips;
    }
    // A row is made of the two before it and grows from them: names that have nothing in common end here, early.
    if (least > most && leastOfLast > most) return Number.POSITIVE_INFINITY;
    leastOfLast = least;
    beforeLast = last;
    last = row;
  }
  return last[b.length]! <= most ? last[b.length]! : Number.POSITIVE_INFINITY;
}
