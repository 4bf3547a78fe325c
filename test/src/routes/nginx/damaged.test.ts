// Damaged files: each ends in mistakes that point at the damage, and never in an error of ours.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { assertLinear } from '../../../support/linear.ts';
import { realFiles } from './files.ts';
import { FOLDER, readAll } from './reader.ts';

interface Damage {
  readonly files: Readonly<Record<string, string>>;
  readonly file: string;
  /** Where a mistake must be told: offsets into the damaged text. */
  readonly from: number;
  readonly to: number;
}

/** The same numbers in every run. */
function createNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const folders = Object.values(realFiles);

/** Where `pattern` is found in the text, outside of comments. */
function places(text: string, pattern: RegExp): number[] {
  return [...text.matchAll(pattern)].map(({ index, 0: found }) => index + found.length);
}

type Make = (
  text: string,
  number: (below: number) => number,
) => readonly [text: string, from: number, to: number] | undefined;

function one(found: readonly number[], number: (below: number) => number): number | undefined {
  return found[number(found.length)];
}

const damages: Readonly<Record<string, Make>> = {
  'a directive with a letter too many': (text, number) => {
    const start = one(places(text, /^ +(?=(proxy_\w+|server_name|location|listen|return) )/gm), number);
    return start === undefined ? undefined : [`${text.slice(0, start)}q${text.slice(start)}`, start, start];
  },
  'a semicolon that is missing at the end of a line': (text, number) => {
    const end = one(
      places(text, /^ +proxy_(set_header|buffering|http_version|read_timeout)[^;\n]*(?=;\n)/gm),
      number,
    );
    if (end === undefined) return undefined;
    return [text.slice(0, end) + text.slice(end + 1), text.lastIndexOf('\n', end - 1) + 1, end];
  },
  'a closing brace too many': (text) => [`${text}}\n`, text.length, text.length],
  'a file that ends too early': (text, number) => {
    const start = one(places(text, /^ {4}location [^{]*\{\n/gm), number);
    return start === undefined
      ? undefined
      : [text.slice(0, start), text.lastIndexOf('location', start), start];
  },
  'a quote that is not closed': (text, number) => {
    const start = one(places(text, /^ +(server_name|proxy_pass) /gm), number);
    if (start === undefined) return undefined;
    // It ends where the next one begins: what follows that is wrong.
    const next = text.indexOf('"', start);
    return [`${text.slice(0, start)}"${text.slice(start)}`, start, next < 0 ? start : next + 2];
  },
  'a variable with a letter too many': (text, number) => {
    const start = one(places(text, /^ +proxy_set_header \S+ (?=\$\w+;)/gm), number);
    return start === undefined
      ? undefined
      : [`${text.slice(0, start + 1)}q${text.slice(start + 1)}`, start, start];
  },
  'a directive of another place': (text, number) => {
    const start = one(places(text, /^ {4}location [^{]*\{\n/gm), number);
    return start === undefined
      ? undefined
      : [`${text.slice(0, start)}listen 80;\n${text.slice(start)}`, start, start];
  },
  'an argument too many': (text, number) => {
    const start = one(places(text, /^ +(?=proxy_(pass|read_timeout|buffering) )/gm), number);
    if (start === undefined) return undefined;
    const end = text.indexOf(';', start);
    return [`${text.slice(0, end)} x${text.slice(end)}`, start, start];
  },
};

function offsetOf(text: string, line: number, column: number): number {
  let start = 0;
  for (let i = 1; i < line; i++) start = text.indexOf('\n', start) + 1;
  return start + column - 1;
}

/** 25 of each kind. */
function damagedFiles(make: Make, seed: number): Damage[] {
  const number = createNumbers(seed);
  const found: Damage[] = [];
  while (found.length < 25) {
    const files = folders[number(folders.length)]!;
    const names = Object.keys(files).filter((name) => name.endsWith('.conf'));
    const file = names[number(names.length)]!;
    const made = make(files[file]!, number);
    if (made === undefined) continue;
    const [text, from, to] = made;
    found.push({ files: { ...files, [file]: text }, file, from, to });
  }
  return found;
}

describe('200 damaged files', () => {
  for (const [i, [name, make]] of Object.entries(damages).entries())
    test(`are refused where the damage is: ${name}`, () => {
      for (const { files, file, from, to } of damagedFiles(make, i + 1)) {
        const { mistakes } = readAll(files);
        const told = mistakes.filter(({ place }) => place.file === `${FOLDER}/${file}`);
        const offsets = told.map(({ place }) => offsetOf(files[file]!, place.line!, place.column!));
        assert.ok(
          offsets.some((offset) => offset >= from && offset <= to),
          `${file}: ${from} to ${to}, told at ${offsets}:\n${files[file]!.slice(Math.max(0, from - 80), to + 80)}`,
        );
      }
    });
});

describe('reading', () => {
  const repeated: Readonly<Record<string, (i: number) => string>> = {
    servers: (i) =>
      `server { listen 443 ssl; server_name s${i}.test; location / { proxy_pass http://u${i}; } }`,
    mistakes: (i) => `nonsense${i} $x${i};`,
    'unknown variables': (i) => `server { listen 443 ssl; server_name s${i}.test; set $a${i} $b${i}; }`,
    'maps of many lines': (i) => `map $host $m${i} { a 1; b 2; ~c 3; default 4; }`,
    'servers of plain HTTP': (i) => `server { server_name s${i}.test; location / { proxy_pass http://a; } }`,
  };
  for (const [name, make] of Object.entries(repeated))
    test(`takes time in proportion to the file: ${name}`, () => {
      assertLinear(
        (n) => readAll({ 'a.conf': Array.from({ length: n }, (_, i) => make(i)).join('\n') }),
        400,
      );
    });

  test('takes time in proportion to what is in one block', () => {
    assertLinear(
      (n) =>
        readAll({
          'a.conf': `server { location / { ${'proxy_redirect default; error_page 404 @a; '.repeat(n)} } }`,
        }),
      2000,
    );
  });
});
