// Names of header fields that stay behind, as each line of each message is asked about them; and which of our own rules say.

/** Names in lower case. Most lines are told apart by their length: their names are not even cut out. */
export class FieldNames extends Set<string> {
  private lengths = 0;

  constructor(names: Iterable<string> = []) {
    // Set's own constructor would add before there is anything to note their lengths in.
    super();
    for (const name of names) this.add(name);
  }

  override add(name: string): this {
    this.lengths |= bitOf(name.length);
    return super.add(name);
  }

  /** False: no name here has this length. */
  mayHave(length: number): boolean {
    return (this.lengths & bitOf(length)) !== 0;
  }
}

/** Those of 31 bytes and more share one. */
function bitOf(length: number): number {
  return 1 << Math.min(length, 31);
}

/** That of X-Request-ID. */
export const SAID_ID = 1 << 6;
/** That of traceparent. */
export const SAID_TRACE = 1 << 7;

const said: ReadonlyMap<string, number> = new Map([
  ['forwarded', 1],
  ['x-forwarded-for', 1 << 1],
  ['x-forwarded-proto', 1 << 2],
  ['x-forwarded-host', 1 << 3],
  ['x-forwarded-port', 1 << 4],
  ['x-real-ip', 1 << 5],
  ['x-request-id', SAID_ID],
  ['traceparent', SAID_TRACE],
]);

/** A bit for each field that is said of a request by us, unless rules say it: the forwarded family, its id and its trace. 0: another. */
export function saidBit(lower: string): number {
  return said.get(lower) ?? 0;
}

export function saidBits(names: Iterable<string>): number {
  let bits = 0;
  for (const name of names) bits |= saidBit(name.toLowerCase());
  return bits;
}
