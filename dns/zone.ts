// Which zone a name belongs to, and what the name is called inside it.

/**
 * `a.b.example.com` -> itself, `b.example.com`, `example.com`, `com`: the zones that could hold it, longest first. The
 * public suffix plays no part: what counts is which zones the account has. "*" and "_service" labels are names like any.
 */
export function possibleZones(name: string): string[] {
  const labels = name.split('.');
  return labels.map((_, index) => labels.slice(index).join('.')).filter((zone) => !zone.startsWith('*'));
}

/** The zone with the longest suffix of the name, or undefined. */
export function longestZone<Zone extends { readonly name: string }>(
  name: string,
  zones: readonly Zone[],
): Zone | undefined {
  for (const candidate of possibleZones(name)) {
    const found = zones.find((zone) => zone.name === candidate);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** `www.example.com` in `example.com` -> `www`; the zone's own name -> "". */
export function nameInZone(name: string, zone: string): string {
  return name === zone ? '' : name.slice(0, -zone.length - 1);
}
