// Sets whose members change thousands of times a second: connections, streams, deadlines.
//
// A Set or Map of V8 gets a new table every few hundred changes. The old table points to the new one and to the members of
// both. Once an old table has moved to the old generation, it keeps alive every later member until the next full
// collection. A roster leaves no such table behind.

/** A member knows its place, so that removing it needs no search. */
export interface RosterMember {
  /** The roster's own; a member is in one roster at a time. */
  place?: number;
}

export interface Roster<T extends RosterMember> {
  readonly size: number;
  /** Does nothing if it is there already. */
  add(member: T): void;
  /** Does nothing if it is not there. */
  remove(member: T): void;
  /** All that are there now, in no particular order. */
  list(): T[];
  /** Looks at each that is there now; `look` may remove any and add others, which are not looked at. */
  each(look: (member: T) => void): void;
}

const OUT = -1;

export function createRoster<T extends RosterMember>(): Roster<T> {
  const members: T[] = [];
  const roster = {
    // With a getter of its own V8 would keep each roster as a dictionary, and look up its methods.
    size: 0,
    add(member: T) {
      if ((member.place ?? OUT) !== OUT) return;
      member.place = members.length;
      roster.size = members.push(member);
    },
    remove(member: T) {
      const place = member.place ?? OUT;
      if (place === OUT) return;
      member.place = OUT;
      const last = members.pop()!;
      roster.size = members.length;
      if (last === member) return;
      members[place] = last;
      last.place = place;
    },
    list: () => [...members],
    each(look: (member: T) => void) {
      // From the end: the member that takes the place of a removed one has been looked at already.
      for (let place = members.length - 1; place >= 0; place--) {
        if (place < members.length) look(members[place]!);
      }
    },
  };
  return roster;
}

/** The open streams of a connection, by their numbers, which rise by two. */
export interface StreamTable<T extends { readonly id: number }> {
  readonly size: number;
  get(id: number): T | undefined;
  set(stream: T): void;
  delete(id: number): void;
  list(): T[];
}

export function createStreamTable<T extends { readonly id: number }>(): StreamTable<T> {
  // Open addressing: streams are found where their number says, or right after.
  let slots: (T | undefined)[] = Array(16).fill(undefined);

  const home = (id: number) => (id >>> 1) & (slots.length - 1);
  const find = (id: number): number => {
    const mask = slots.length - 1;
    for (let slot = home(id); ; slot = (slot + 1) & mask) {
      const stream = slots[slot];
      if (stream === undefined || stream.id === id) return slot;
    }
  };
  const grow = () => {
    const before = slots;
    slots = Array(before.length * 2).fill(undefined);
    for (const stream of before) if (stream !== undefined) slots[find(stream.id)] = stream;
  };

  const table = {
    size: 0,
    get: (id: number) => slots[find(id)],
    set(stream: T) {
      if (table.size * 2 >= slots.length) grow();
      slots[find(stream.id)] = stream;
      table.size++;
    },
    delete(id: number) {
      const mask = slots.length - 1;
      let hole = find(id);
      if (slots[hole] === undefined) return;
      table.size--;
      slots[hole] = undefined;
      // Entries behind the hole that belong before it move up, or they would not be found any more.
      for (let slot = (hole + 1) & mask; slots[slot] !== undefined; slot = (slot + 1) & mask) {
        const stream = slots[slot]!;
        const distance = (slot - home(stream.id)) & mask;
        if (distance < ((slot - hole) & mask)) continue;
        slots[hole] = stream;
        slots[slot] = undefined;
        hole = slot;
      }
    },
    list: () => slots.filter((stream) => stream !== undefined),
  };
  return table;
}
