// Which location a path belongs to: exact, longest prefix, then patterns in order, as nginx decides it.

import type { Locations, Place, PrefixMatch, Run } from './compiled.ts';
import { fits } from './match.ts';

/** `places` in the order of the file. */
export function createLocations(places: readonly Place[]): Locations {
  const exact = new Map<string, Place[]>();
  const prefixes = new Map<string, Place[]>();
  const patterns: Place[] = [];
  for (const place of places) {
    if (place.kind === 'pattern') patterns.push(place);
    else if (place.kind === 'exact') grouped(exact, place);
    else if (place.kind === 'prefix' || place.kind === 'segments') grouped(prefixes, place);
  }
  for (const group of [...exact.values(), ...prefixes.values()]) conditionsFirst(group);
  const tree = createTree(prefixes);
  return {
    patterns,
    slashed: new Set(places.filter(({ addsSlash }) => addsSlash).map(({ path }) => path.slice(0, -1))),
    exact: (path) => exact.get(path) ?? NONE,
    prefix: (path) => longestPrefix(tree, path),
  };
}

const NONE: readonly Place[] = [];

function grouped(groups: Map<string, Place[]>, place: Place): void {
  const group = groups.get(place.path);
  if (group === undefined) groups.set(place.path, [place]);
  else group.push(place);
}

/** Stable: those of one kind stay in the order of the file. */
function conditionsFirst(group: Place[]): void {
  group.sort((a, b) => Number(a.when === undefined) - Number(b.when === undefined));
}

/** A radix tree: each byte of a path is looked at once, however many prefixes there are. */
interface Branch {
  readonly text: string;
  readonly next: Map<number, Branch>;
  match: PrefixMatch | undefined;
}

function createTree(prefixes: ReadonlyMap<string, readonly Place[]>): Branch {
  const root: Branch = { text: '', next: new Map(), match: undefined };
  // Shorter ones first, so that each finds the next shorter one already there.
  const sorted = [...prefixes].sort(([a], [b]) => a.length - b.length);
  for (const [path, places] of sorted)
    insert(root, path, { places, length: path.length, shorter: longestPrefix(root, path) });
  return root;
}

function insert(root: Branch, path: string, match: PrefixMatch): void {
  let branch = root;
  let at = 0;
  while (at < path.length) {
    const code = path.charCodeAt(at);
    const next = branch.next.get(code);
    if (next === undefined) {
      branch.next.set(code, { text: path.slice(at), next: new Map(), match });
      return;
    }
    const common = commonLength(next.text, path, at);
    if (common < next.text.length) {
      const fork: Branch = { text: next.text.slice(0, common), next: new Map(), match: undefined };
      fork.next.set(next.text.charCodeAt(common), { ...next, text: next.text.slice(common) });
      branch.next.set(code, fork);
      branch = fork;
    } else branch = next;
    at += common;
  }
  branch.match = match;
}

function commonLength(text: string, path: string, at: number): number {
  let length = 0;
  while (length < text.length && text.charCodeAt(length) === path.charCodeAt(at + length)) length++;
  return length;
}

function longestPrefix(root: Branch, path: string): PrefixMatch | undefined {
  let best = root.match;
  let at = 0;
  for (let branch = root.next.get(path.charCodeAt(0)); branch !== undefined; ) {
    const { text } = branch;
    for (let i = 1; i < text.length; i++) if (path.charCodeAt(at + i) !== text.charCodeAt(i)) return best;
    at += text.length;
    if (branch.match !== undefined) best = branch.match;
    if (at >= path.length) return best;
    branch = branch.next.get(path.charCodeAt(at));
  }
  return best;
}

/** `slash`: the path is that of the place but for its last slash, and a redirect says so. */
export interface Found {
  readonly place: Place;
  readonly slash: boolean;
  /** Nothing may come before it: it was exact. */
  readonly certain: boolean;
}

/** Told of each place that was looked at, for `--explain`. */
export type Watch = (place: Place, taken: boolean) => void;

/** Undefined: no location fits. Captures of a pattern that fits are the request's from then on. */
export function findLocation(locations: Locations, run: Run, watch?: Watch): Found | undefined {
  const path = run.uri;
  const exact = firstThatFits(locations.exact(path), run);
  if (exact !== undefined) {
    watch?.(exact, true);
    return { place: exact, slash: false, certain: true };
  }
  // Before anything further in is looked at.
  const slash = addingSlash(locations, run);
  if (slash !== undefined) return slash;
  const prefix = findPrefix(locations, run, watch);
  if (prefix?.certain === true) return prefix;
  if (prefix?.final === true) return prefix;
  return findPattern(locations, run, watch) ?? prefix;
}

function findPrefix(
  locations: Locations,
  run: Run,
  watch: Watch | undefined,
): (Found & { readonly final: boolean }) | undefined {
  for (let match = locations.prefix(run.uri); match !== undefined; match = match.shorter) {
    const { length } = match;
    const place = match.places.find(
      (candidate) => isWhole(candidate, run.uri, length) && holds(candidate, run),
    );
    if (place === undefined) continue;
    watch?.(place, true);
    const inner = place.inner === undefined ? undefined : findLocation(place.inner, run, watch);
    const final = place.final;
    if (inner === undefined) return { place, slash: false, certain: false, final };
    // What was found further in is left only for a pattern out here.
    return { ...inner, certain: inner.certain || inner.slash || inner.place.kind === 'pattern', final };
  }
  return undefined;
}

function findPattern(locations: Locations, run: Run, watch: Watch | undefined): Found | undefined {
  for (const place of locations.patterns) {
    const taken = holds(place, run) && fits(place.matcher!, run.uri, run);
    watch?.(place, taken);
    if (!taken) continue;
    const inner = place.inner === undefined ? undefined : findLocation(place.inner, run, watch);
    return inner ?? { place, slash: false, certain: true };
  }
  return undefined;
}

/** A location by segments fits where a segment ends. */
function isWhole(place: Place, path: string, length: number): boolean {
  if (place.kind !== 'segments' || length === path.length) return true;
  return path.charCodeAt(length) === 47 || path.charCodeAt(length - 1) === 47;
}

function holds(place: Place, run: Run): boolean {
  return place.when === undefined || place.when(run);
}

function firstThatFits(places: readonly Place[], run: Run): Place | undefined {
  for (const place of places) if (holds(place, run)) return place;
  return undefined;
}

function addingSlash(locations: Locations, run: Run): Found | undefined {
  if (!locations.slashed.has(run.uri) || run.uri.endsWith('/')) return undefined;
  // Whoever has the path as it is keeps it.
  if (locations.prefix(run.uri)?.length === run.uri.length) return undefined;
  const wanted = `${run.uri}/`;
  const match = locations.prefix(wanted);
  const prefixes = match?.length === wanted.length ? match.places : NONE;
  const candidates = [...locations.exact(wanted), ...prefixes].filter((candidate) => holds(candidate, run));
  if (!candidates.some(({ addsSlash }) => addsSlash)) return undefined;
  // What else holds for the redirect, the exact one says if there is one.
  return { place: candidates[0]!, slash: true, certain: true };
}
