// What is used of Node's insides: each has a file that says what it is worth, and a name that switches it off.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { INSIDES_VARIABLE, nodeInsides, parseInsidesOff } from '../../../proxy/socket/insides/switch.ts';

const folder = new URL('../../../proxy/socket/insides/', import.meta.url);

test('each of them has a file of its name, which says what was measured', () => {
  const files = readdirSync(folder).filter((name) => name !== 'switch.ts');
  assert.deepEqual(files.sort(), [...nodeInsides].map((name) => `${name}.ts`).sort());
  const silent = files.filter(
    (name) => !/^\/\/ Measured[:,] /m.test(readFileSync(new URL(name, folder), 'utf8')),
  );
  assert.deepEqual(silent, []);
});

test('each of them is in the table of docs/performance.md', () => {
  const page = readFileSync(new URL('../../../docs/performance.md', import.meta.url), 'utf8');
  assert.deepEqual(
    [...page.matchAll(/^\| `([a-z0-9-]+)` \|/gm)].map(([, name]) => name).filter((name) => isInside(name!)),
    [...nodeInsides],
  );
});

test('off means all of them, names mean those alone, and an unknown name is reported', () => {
  assert.deepEqual([...parseInsidesOff('off').off], [...nodeInsides]);
  assert.deepEqual([...parseInsidesOff('allocator, v8-flags').off], ['allocator', 'v8-flags']);
  assert.deepEqual([...parseInsidesOff('').off], []);
  assert.deepEqual(parseInsidesOff('alocator,v8-flags').unknown, ['alocator']);
  assert.deepEqual(parseInsidesOff('off,allocator').unknown, ['off']);
});

test('a process whose environment names one goes without that one', () => {
  const program = `
    import { insidesEnvironment, nodeInsides, uses } from ${JSON.stringify(new URL('switch.ts', folder).href)};
    console.log(JSON.stringify([nodeInsides.filter((name) => !uses(name)), insidesEnvironment()]));`;
  const ask = (value: string): unknown =>
    JSON.parse(
      execFileSync(process.execPath, ['--input-type=module', '--eval', program], {
        env: { [INSIDES_VARIABLE]: value },
        encoding: 'utf8',
      }),
    );
  assert.deepEqual(ask('raw-sockets'), [['raw-sockets'], { [INSIDES_VARIABLE]: 'raw-sockets' }]);
  assert.deepEqual(ask(''), [[], {}]);
});

function isInside(name: string): boolean {
  return (nodeInsides as readonly string[]).includes(name);
}
