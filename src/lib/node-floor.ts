// The oldest release of each line of Node that this program should run on: one list, dated, for the tests and for the doctor.

/** When somebody last looked at what has been published. */
export const NODE_FLOOR_AS_OF = '2026-11-30';

export interface NodeFloor {
  readonly major: number;
  /** The first release without the holes that `why` names; undefined: the line has none. */
  readonly least: string | undefined;
  readonly why: string;
}

export const nodeFloors: readonly NodeFloor[] = [
  {
    major: 24,
    least: '24.18.1',
    why: 'CVE-2026-21637 and CVE-2026-48928 (names in TLS handshakes), CVE-2026-56846 and CVE-2026-56848 (HTTP/2)',
  },
  { major: 25, least: undefined, why: 'its line has ended and gets no more corrections' },
  { major: 26, least: '26.10.0', why: 'it is what the image is built and tested with' },
];

/** Why this version is too old; undefined: it is not. A line that is newer than the list is taken as sound. */
export function nodeFault(version: string): { readonly wanted: string; readonly why: string } | undefined {
  const [major = 0] = version.split('.').map(Number);
  const newest = nodeFloors.at(-1)!;
  if (major > newest.major) return undefined;
  const floor = nodeFloors.find((one) => one.major === major);
  const wanted = floor?.least ?? newest.least!;
  if (floor?.least !== undefined && !isOlder(version, floor.least)) return undefined;
  return { wanted, why: floor?.why ?? 'its line has ended and gets no more corrections' };
}

function isOlder(version: string, other: string): boolean {
  const [a, b] = [version, other].map((text) => text.split('-')[0]!.split('.').map(Number));
  const place = b!.findIndex((part, i) => part !== a![i]);
  return place >= 0 && (a![place] ?? 0) < b![place]!;
}
