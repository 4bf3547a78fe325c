// A mistake in what an operator wrote, whichever reader finds it: its place, its subject, and the cure.

/** A setting, or a file that a setting names, or both. */
export interface Place {
  readonly variable?: string;
  readonly file?: string;
  /** Counted from 1, as is the column; absent where the whole file is at fault. */
  readonly line?: number;
  readonly column?: number;
}

/** No part of it holds a secret. */
export interface Mistake {
  readonly place: Place;
  /** What is wrong there. */
  readonly subject: string;
  /** What to write or do in its place. */
  readonly cure: string;
}

/** `VARIABLE: file:line:column`, as far as they are known. */
export function describePlace({ variable, file, line, column }: Place): string {
  const inFile = [file, line, column].filter((part) => part !== undefined).join(':');
  return [variable, inFile].filter((part) => part !== undefined && part !== '').join(': ');
}

/** Of what a rule was written as, `file:line:column`; nowhere if it is a default of ours. */
export function placeOfOrigin(origin: string | undefined): Place {
  const [, file, line, column] = /^(.*):(\d+):(\d+)$/s.exec(origin ?? '') ?? [];
  return file === undefined ? {} : { file, line: Number(line), column: Number(column) };
}

/** One line: `PORT: "70000" is not a whole number: wants one from 1 to 65535`. */
export function describeMistake({ place, subject, cure }: Mistake): string {
  return `${describePlace(place)}: ${subject}: ${cure}`;
}

export function inPlaceOrder(a: Mistake, b: Mistake): number {
  return (a.place.line ?? 0) - (b.place.line ?? 0) || (a.place.column ?? 0) - (b.place.column ?? 0);
}

/** Of a file or folder that cannot be read: the system's code, and in words what to do about it. */
export function unreadable(cause: unknown): Pick<Mistake, 'subject' | 'cure'> {
  const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
  return {
    subject: `cannot be read: ${code.replaceAll('-', ' ')}`,
    cure: cures[code] ?? 'wants what can be read',
  };
}

const cures: Readonly<Record<string, string>> = {
  ENOENT: 'there is nothing of that name, is it mounted?',
  ENOTDIR: 'a part of its path is a file',
  EISDIR: 'it is a folder, wants a file',
  EACCES: 'its mode keeps us out',
  'not-a-file': 'it is a pipe or a device, wants a file',
  'too-large': 'wants a smaller file',
};
