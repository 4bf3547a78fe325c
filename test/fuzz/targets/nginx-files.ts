// Files of an operator (src/routes/nginx/): whatever their words are, they end in rules that compile, or in placed mistakes.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { compile } from '../../../proxy/rules/compile.ts';
import { readNginxFiles } from '../../../src/routes/nginx/read.ts';
import { directiveNames } from '../../../src/routes/nginx/table.ts';
import { fuzzTarget } from '../target.ts';

const words = [
  ...[
    '/',
    '/a',
    '@a',
    '=',
    '~',
    '^~',
    '~*',
    '"^/(.*)$"',
    '$host',
    '$a',
    '"$a b"',
    '$',
    '${b}',
    '~^(?<n>.)$',
    '*.a.test',
  ],
  ...[
    'on',
    'off',
    'default',
    '443',
    'ssl',
    'default_server',
    '10m',
    '1h',
    '404',
    '=200',
    'zone=z:1m',
    'rate=1r/s',
  ],
  ...[
    'http://a:1/b',
    'https://a',
    'http://$a',
    'last',
    'break',
    '($a',
    '=',
    'b)',
    '(-f',
    '$uri)',
    'always',
    '""',
    '"',
    "'",
  ],
  ...[
    '{',
    '}',
    ';',
    '#',
    '\\',
    '\n',
    'zone=z',
    'burst=5',
    'GET',
    'all',
    '10.0.0.0/8',
    'server_name',
    'include',
    '*.inc',
  ],
];

/** Tokens that are mostly well placed, so that the translation is reached. */
const statement: fc.Arbitrary<string> = fc.letrec<{ statement: string }>((tie) => ({
  statement: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc
      .tuple(
        fc.constantFrom(...directiveNames()),
        fc.array(fc.constantFrom(...words.slice(0, 40)), { maxLength: 3 }),
      )
      .map(([name, args]) => `${[name, ...args].join(' ')};`),
    fc
      .tuple(
        fc.constantFrom(
          'server',
          'location /a',
          'location ~ b',
          'location @a',
          'if ($a = b)',
          'upstream u',
          'map $host $a',
          'limit_except GET',
          'types',
        ),
        fc.array(tie('statement'), { maxLength: 5 }),
      )
      .map(([head, inside]) => `${head} { ${inside.join(' ')} }`),
  ),
})).statement;

const soup = fc.array(
  fc.oneof(fc.constantFrom(...words), fc.constantFrom(...directiveNames()), fc.string()),
  { maxLength: 60 },
);

export const nginxFiles = fuzzTarget<string>({
  name: 'nginx files',
  input: fc.oneof(
    { weight: 3, arbitrary: fc.array(statement, { maxLength: 6 }).map((all) => all.join('\n')) },
    { weight: 1, arbitrary: soup.map((all) => all.join(' ')) },
  ),
  check(text) {
    const { rules, mistakes } = readNginxFiles('/conf.d', {
      readFile: () => text,
      listFolder: () => ['a.conf'],
    });
    if (mistakes.length === 0) compile(rules);
    const lines = text.split('\n');
    for (const { place, subject, cure } of mistakes) {
      assert.ok(place.file !== undefined && subject !== '' && cure !== '');
      if (place.line === undefined) continue;
      const line = lines[place.line - 1];
      assert.ok(
        line !== undefined && place.column! >= 1 && place.column! <= line.length + 1,
        JSON.stringify(place),
      );
    }
  },
  growing: {
    'words without an end': (size) => 'word '.repeat(size / 5),
    quotes: (size) => `server_name ${'"a" '.repeat(size / 4)};`,
    'blocks without an end': (size) => 'server { '.repeat(size / 9),
    unknown: (size) => 'proxy_pas a;\n'.repeat(size / 13),
    locations: (size) =>
      `server { ${Array.from({ length: size / 24 }, (_, i) => `location /${i} { return 1; }`).join('')} }`,
  },
});
