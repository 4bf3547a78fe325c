// Patterns of nginx: the same matches as PCRE's, and an end in good time whatever the pattern and the subject.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { compilePattern, isPatternFault, readPattern, SubjectTooLong } from '../../../proxy/rules/pattern.ts';
import { degreeOf } from '../../../proxy/rules/pattern-cost.ts';
import { createMachine } from '../../../proxy/rules/pattern-machine.ts';
import { type Node, parsePattern } from '../../../proxy/rules/pattern-syntax.ts';
import { re } from './driver.ts';

function match(pattern: string, subject: string, ignoreCase = false) {
  const found = compilePattern(re(pattern, ignoreCase)).exec(subject);
  return found === undefined ? undefined : [...found];
}

describe('a pattern', () => {
  const matches: readonly [pattern: string, subject: string, found: (string | undefined)[] | undefined][] = [
    ['\\.(php|html)$', '/a.php', ['.php', 'php']],
    // What a newline at the end does not hide: nginx decodes %0A before it matches.
    ['\\.php$', '/a.php\n', ['.php']],
    ['\\.php\\z', '/a.php\n', undefined],
    ['\\A/a\\Z', '/a', ['/a']],
    ['^/(?<name>\\w+)/', '/ann/x', ['/ann/', 'ann']],
    ['^/(?P<name>\\w+)/', '/ann/x', ['/ann/', 'ann']],
    ['(?i)^/ABC', '/aBc', ['/aBc']],
    ['^/a(?i)b(?-i)c', '/aBc', ['/aBc']],
    ['^/a(?i:b)c', '/aBC', undefined],
    ['^[[:alpha:]_]+[[:^digit:]]$', 'ab_-', ['ab_-']],
    ['[^a]', 'a', undefined],
    ['.', '\n', undefined],
    ['(?s).', '\n', ['\n']],
    ['\\s', '\u00a0', undefined],
    ['^\\Qa.b\\E+$', 'a.bb', ['a.bb']],
    ['a{2}', 'aaa', ['aa']],
    ['a{x', 'a{x', ['a{x']],
    ['x(?!y)', 'xyxz', ['x']],
    ['(a)|(b)', 'b', ['b', undefined, 'b']],
    ['\\x41\\x{42}', 'AB', ['AB']],
    ['[]a]+', ']a', [']a']],
    ['a(?#comment)b', 'ab', ['ab']],
  ];
  for (const [pattern, subject, found] of matches) {
    test(`${pattern} on ${JSON.stringify(subject)} finds ${JSON.stringify(found)}`, () => {
      assert.deepEqual(match(pattern, subject), found);
    });
  }

  test('without case takes either case in sets that are negated too', () => {
    assert.equal(match('^[^a]$', 'A', true), undefined);
    assert.deepEqual(match('^[^b]$', 'A', true), ['A']);
  });

  const refused = [
    'a++',
    '(?>a)',
    '(a)\\1',
    '\\K',
    '\\R',
    '(?(1)a)',
    'a**',
    '(',
    '[a',
    ')',
    '*a',
    '(?<n>a)(?<n>b)',
    'a{9999}',
    '(?x)a',
    'a\\',
  ];
  for (const pattern of refused) {
    test(`${pattern} is refused with a cure`, () => {
      const read = readPattern(pattern);
      assert.ok(isPatternFault(read), pattern);
      assert.ok(read.cure.length > 0);
    });
  }
});

describe('the time of a match', () => {
  const exploding = [
    '^(a+)+$',
    '^(a|a)*$',
    '^(a|aa)+$',
    '^(a*)*$',
    '^(\\w+\\s?)*$',
    '(.*,)*x',
    '^(([a-z])+.)+[A-Z]([a-z])+$',
  ];
  for (const pattern of exploding) {
    test(`of ${pattern} has an end on a subject that makes backtracking explode`, () => {
      assert.equal(degreeOf(parsePattern(pattern, false).root), Number.POSITIVE_INFINITY);
      assert.equal(match(pattern, `${'a'.repeat(4_000)}!`), undefined);
    });
  }

  const degrees: readonly [string, number][] = [
    ['^/(.*)$', 1],
    ['^/[^/]+/(.*)$', 1],
    ['\\.(php|html)$', 1],
    ['^([a-z0-9.-]+)\\.example\\.com$', 1],
    ['\\d+x', 2],
    ['^.+session=(\\w+).*$', 3],
  ];
  for (const [pattern, degree] of degrees) {
    test(`of ${pattern} grows with power ${degree} of the subject`, () => {
      assert.equal(degreeOf(parsePattern(pattern, false).root), degree);
    });
  }

  test('of a quadratic pattern has an end on the longest head, with the same captures', () => {
    const subject = `${'a=1; '.repeat(1_500)}session=ann; b=2`;
    assert.equal(match('^.+session=(\\w+).*$', subject)?.[1], 'ann');
  });

  test('is refused where a pattern looks around and overlaps, rather than called a misfit', () => {
    const pattern = compilePattern(re('^(?!/public).*x.*y$'));
    assert.equal(pattern.test('/private/x/y'), true);
    assert.throws(() => pattern.test(`/${'x'.repeat(5_000)}`), SubjectTooLong);
    assert.ok(isPatternFault(readPattern('^(?!b)(a+)+$')));
  });
});

function repeatsNothing(node: Node): boolean {
  if (node.kind === 'repeat' && mayBeNothing(node.item)) return true;
  if ('items' in node) return node.items.some(repeatsNothing);
  return 'item' in node && repeatsNothing(node.item);
}

function mayBeNothing(node: Node): boolean {
  if (node.kind === 'byte') return false;
  if (node.kind === 'sequence') return node.items.every(mayBeNothing);
  if (node.kind === 'choice') return node.items.some(mayBeNothing);
  if (node.kind === 'repeat') return node.min === 0 || mayBeNothing(node.item);
  return node.kind !== 'capture' || mayBeNothing(node.item);
}

describe('the machine without backtracking', () => {
  const atom = fc.constantFrom('a', 'b', '[ab]', '.', '[^a]', '\\w');
  const { pattern } = fc.letrec<{ pattern: string }>((tie) => ({
    pattern: fc.oneof(
      { maxDepth: 3 },
      atom,
      fc.tuple(tie('pattern'), tie('pattern')).map(([a, b]) => a + b),
      fc.tuple(tie('pattern'), tie('pattern')).map(([a, b]) => `(?:${a}|${b})`),
      fc
        .tuple(tie('pattern'), fc.constantFrom('*', '+', '?', '*?', '+?', '{1,2}', '{2}'))
        .map(([a, q]) => `(?:${a})${q}`),
    ),
  }));

  test('finds where JavaScript finds, for any pattern and subject', () => {
    fc.assert(
      fc.property(
        pattern,
        fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 8 }),
        (source, subject) => {
          const { root, captures } = parsePattern(`(${source})`, false);
          // JavaScript and PCRE differ themselves where what is repeated may be nothing.
          fc.pre(!repeatsNothing(root));
          const ours = createMachine(root, captures)!(subject);
          const theirs = new RegExp(`(${source})`).exec(subject);
          assert.equal(ours?.[0], theirs?.[0]);
          assert.equal(ours?.[1], theirs?.[1]);
        },
      ),
      { numRuns: 2_000 },
    );
  });

  test('knows edges and words', () => {
    const machine = (source: string) => {
      const { root, captures } = parsePattern(source, false);
      return createMachine(root, captures)!;
    };
    assert.deepEqual(machine('\\bcat\\b')('a cat.'), ['cat']);
    assert.equal(machine('\\bcat\\b')('concat'), undefined);
    assert.deepEqual(machine('a$')('ba\n'), ['a']);
    assert.equal(machine('^b')('ab'), undefined);
  });
});

test('any text is a pattern, or a fault that says what to do', () => {
  const piece = fc.constantFrom(
    '(',
    ')',
    '[',
    ']',
    '{',
    '}',
    '*',
    '+',
    '?',
    '\\',
    '^',
    '$',
    '|',
    '.',
    'a',
    '1',
    ',',
    '?:',
    '?<n>',
    '[:alpha:]',
    '\\d',
    '-',
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 14 }), (pieces) => {
      const read = readPattern(pieces.join(''));
      if (isPatternFault(read)) assert.ok(read.fault.length > 0 && read.cure.length > 0);
      else compilePattern(read).test('a1-');
    }),
    { numRuns: 5_000 },
  );
});
