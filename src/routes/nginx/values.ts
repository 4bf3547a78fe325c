// Numbers, sizes and times as nginx writes them; undefined where the text is none.

const sizeUnits: Readonly<Record<string, number>> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 };

/** Whole numbers with k, m or g. */
export function readSize(text: string): number | undefined {
  const found = /^(\d{1,15})([kmg]?)$/i.exec(text);
  if (found === null) return undefined;
  const bytes = Number(found[1]) * sizeUnits[found[2]!.toLowerCase()]!;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** In the order in which a compound time may have them. */
const timeUnits = [
  ['y', 31_536_000_000],
  ['M', 2_592_000_000],
  ['w', 604_800_000],
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
] as const;

/** `1h30m`, `60`, `500ms`; years and months only where seconds are the finest. */
export function readTimeMs(text: string, finest: 'ms' | 's' = 'ms'): number | undefined {
  if (!/^(\d{1,12} *(ms|[yMwdhms])? *)+$/.test(text)) return undefined;
  let total = 0;
  let least = -1;
  for (const [, count, unit = ''] of text.matchAll(/(\d+) *(ms|[yMwdhms])?/g)) {
    const rank = unit === '' ? timeUnits.length : timeUnits.findIndex(([name]) => name === unit);
    if (rank <= least) return undefined;
    least = rank;
    if (finest === 'ms' ? unit === 'y' || unit === 'M' : unit === 'ms') return undefined;
    total += Number(count) * (timeUnits[rank]?.[1] ?? 1000);
  }
  return total <= 0x7fff_ffff * (finest === 's' ? 1000 : 1) ? total : undefined;
}

export function readCount(text: string, most = 0x7fff_ffff): number | undefined {
  if (!/^\d{1,10}$/.test(text)) return undefined;
  const count = Number(text);
  return count <= most ? count : undefined;
}
