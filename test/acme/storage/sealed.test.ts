// The storage's operator, or whoever has broken in there: what he can do to sealed records, and what comes of it.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { createSealing, type SealingKey, sealingKey } from '../../../acme/sealing.ts';
import { createFiles } from '../../../acme/storage/files.ts';
import { openLocalCopy } from '../../../acme/storage/local-copy.ts';
import { createSealed, type Sealed } from '../../../acme/storage/sealed.ts';
import { type Engine, type Storage, StorageError } from '../../../acme/storage.ts';
import { recordedLog } from '../support.ts';

let folder: string;
const key = sealingKey(randomBytes(32));
const SECRET = 'PRIVATE KEY of a certificate';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealed-'));
});
afterEach(async () => {
  // What is still to be written to its disk.
  await Promise.all(opened.splice(0).map((sealed) => sealed.close()));
  await rm(folder, { recursive: true, force: true });
});
const opened: Sealed[] = [];

/** Where the operator of the store sees and changes everything. */
const at = (name: string) => join(folder, 'store', name);

function engine(over: Partial<Engine> = {}): Engine {
  const { alone: _, ...files } = createFiles({ root: join(folder, 'store') });
  return { ...files, prove: async () => [], close: async () => {}, ...over };
}

interface Replica {
  readonly sealed: Sealed;
  readonly lines: readonly Record<string, unknown>[];
}

interface Options {
  readonly keys?: readonly [SealingKey, ...SealingKey[]];
  readonly namespace?: string;
  /** Its own disk: the same name is the same replica, started again. */
  readonly disk?: string;
  readonly engine?: Engine;
}

async function replica(options: Options = {}): Promise<Replica> {
  const { log, lines } = recordedLog();
  const sealing = createSealing(options.keys ?? [key], options.namespace ?? 'app');
  const copy = await openLocalCopy(join(folder, options.disk ?? randomBytes(4).toString('hex')), sealing, {
    log,
  });
  const sealed = createSealed({ engine: options.engine ?? engine(), sealing, copy, log });
  opened.push(sealed);
  return { sealed, lines };
}

const bytes = (text: string) => Buffer.from(text);
async function text(storage: Storage, name: string) {
  return (await storage.read(name))?.bytes.toString();
}
async function write(storage: Storage, name: string, value: string) {
  const before = await storage.read(name);
  const version =
    before === undefined
      ? await storage.create(name, bytes(value))
      : await storage.replace(name, bytes(value), before.version);
  assert.ok(version);
}

test('what is kept shows nothing of what it is, neither in the store nor in the copy', async () => {
  const { sealed } = await replica({ disk: 'copy' });
  await write(sealed, 'd/account.json', SECRET);
  await sealed.close();
  for (const place of ['store', 'copy'])
    for (const file of await readdir(join(folder, place), { recursive: true, withFileTypes: true }))
      if (file.isFile())
        assert.doesNotMatch(await readFile(join(file.parentPath, file.name), 'latin1'), /PRIVATE KEY/);
  const { sealed: again } = await replica();
  assert.equal(await text(again, 'd/account.json'), SECRET);
});

const tamperings: Record<string, () => Promise<void>> = {
  'moved from another name': async () => writeFile(at('d/a.json'), await readFile(at('d/b.json'))),
  'flipped in one bit of its content': async () => {
    const whole = await readFile(at('d/a.json'));
    whole[whole.length - 20]! ^= 1;
    await writeFile(at('d/a.json'), whole);
  },
  'given a higher count than it was sealed with': async () => {
    const whole = await readFile(at('d/a.json'));
    whole.writeBigUInt64BE(99n, 12);
    await writeFile(at('d/a.json'), whole);
  },
  'cut off': async () => writeFile(at('d/a.json'), (await readFile(at('d/a.json'))).subarray(0, 50)),
  emptied: async () => writeFile(at('d/a.json'), ''),
  'written by something else': async () => writeFile(at('d/a.json'), '{"name":"a.example"}'),
  'of another app': async () => {
    const theirs = createSealing([key], 'another app');
    await writeFile(at('d/a.json'), theirs.seal('d/a.json', { counter: 1, bytes: bytes('theirs') }));
  },
  'sealed with a key that we do not have': async () => {
    const theirs = createSealing([sealingKey(randomBytes(32))], 'app');
    await writeFile(at('d/a.json'), theirs.seal('d/a.json', { counter: 1, bytes: bytes('theirs') }));
  },
};
for (const [what, tamper] of Object.entries(tamperings)) {
  test(`a record that is ${what} is never taken, and a newcomer writes nothing over it or beside it`, async () => {
    const { sealed } = await replica();
    await write(sealed, 'd/a.json', 'ours');
    await write(sealed, 'd/b.json', 'of b');
    await tamper();
    const { sealed: newcomer, lines } = await replica();
    const found = await readFile(at('d/a.json'));
    await assert.rejects(newcomer.read('d/a.json'), (error: StorageError) => {
      return ['hostile', 'unreadable'].includes(error.code);
    });
    await assert.rejects(newcomer.create('d/a.json', bytes('new')), StorageError);
    await assert.rejects(newcomer.create('d/c.json', bytes('new')), { code: 'hostile' });
    assert.ok((await readFile(at('d/a.json'))).equals(found));
    assert.equal(lines.filter(({ level }) => level === 'error').length, 1, 'said once, and loudly');
  });
}

test('an older state is hostile to whoever has seen the newer one, also after a restart, until it is back', async () => {
  const { sealed } = await replica({ disk: 'copy' });
  await write(sealed, 'd/ledger.json', 'no failures');
  const old = await readFile(at('d/ledger.json'));
  await write(sealed, 'd/ledger.json', 'five failures');
  const recent = await readFile(at('d/ledger.json'));
  await sealed.close();
  await writeFile(at('d/ledger.json'), old);
  const { sealed: restarted, lines } = await replica({ disk: 'copy' });
  await assert.rejects(restarted.read('d/ledger.json'), { code: 'hostile' });
  await assert.rejects(restarted.create('d/other.json', bytes('x')), { code: 'hostile' });
  await assert.rejects(
    (await replica()).sealed.read('d/ledger.json'),
    { code: 'hostile' },
    'a newcomer knows by the manifest',
  );
  await writeFile(at('d/ledger.json'), recent);
  assert.equal(await text(restarted, 'd/ledger.json'), 'five failures');
  await write(restarted, 'd/other.json', 'x');
  assert.ok(lines.some(({ msg }) => msg === 'store can be trusted again'));
});

test('two states with one count are a fork, and whoever has seen one takes no other', async () => {
  const { sealed } = await replica({ disk: 'copy' });
  await write(sealed, 'd/a.json', 'one');
  await rm(at('d/a.json'));
  const { sealed: other } = await replica();
  await write(other, 'd/a.json', 'another');
  await assert.rejects(sealed.read('d/a.json'), { code: 'hostile' });
});

test('a record that vanishes was not removed by us; one that we have removed does not come back', async () => {
  const { sealed } = await replica();
  await write(sealed, 'd/a.json', 'one');
  const one = await readFile(at('d/a.json'));
  assert.ok(await sealed.remove('d/a.json', (await sealed.read('d/a.json'))!.version));
  assert.equal(await sealed.read('d/a.json'), undefined);
  await writeFile(at('d/a.json'), one);
  await assert.rejects(sealed.read('d/a.json'), { code: 'hostile' });
  await rm(at('d/a.json'));
  await assert.rejects(sealed.read('d/a.json'), { code: 'hostile' });
});

test('a removed record is made anew, and its count goes on', async () => {
  const { sealed } = await replica();
  const { sealed: other } = await replica();
  for (const value of ['one', 'two', 'three']) {
    await write(sealed, 'd/a.json', value);
    assert.equal(await text(other, 'd/a.json'), value);
    assert.equal(await other.create('d/a.json', bytes('x')), undefined);
    assert.ok(await other.remove('d/a.json', (await other.read('d/a.json'))!.version));
    assert.equal(await sealed.read('d/a.json'), undefined);
  }
});

test('after a change of the key old records open, and each is sealed with the new one when it changes', async () => {
  const next = sealingKey(randomBytes(32));
  const { sealed: before } = await replica();
  await write(before, 'd/a.json', 'one');
  await before.close();
  const { sealed: both } = await replica({ keys: [next, key] });
  assert.equal(await text(both, 'd/a.json'), 'one');
  await write(both, 'd/a.json', 'two');
  // What is written once more is the manifest.
  await both.close();
  assert.equal(await text((await replica({ keys: [next] })).sealed, 'd/a.json'), 'two');
  await assert.rejects((await replica()).sealed.read('d/a.json'), { code: 'unreadable' });
});

test('without the store a replica starts with its copy, writes nothing, and goes on once the store is back', async () => {
  const { sealed } = await replica({ disk: 'copy' });
  await write(sealed, 'd/certificates/a.json', 'certificate');
  await sealed.close();
  let away = true;
  const real = engine();
  const failing = () => Promise.reject(new StorageError('unavailable', 'nobody answers'));
  const flaky = engine({
    read: (...args) => (away ? failing() : real.read(...args)),
    list: (...args) => (away ? failing() : real.list(...args)),
    create: (...args) => (away ? failing() : real.create(...args)),
    replace: (...args) => (away ? failing() : real.replace(...args)),
    prove: async () => (away ? failing() : []),
  });
  const { sealed: started, lines } = await replica({ disk: 'copy', engine: flaky });
  assert.deepEqual(await started.list('d/certificates'), ['a.json']);
  const kept = (await started.read('d/certificates/a.json'))!;
  assert.equal(kept.bytes.toString(), 'certificate');
  await assert.rejects(started.replace('d/certificates/a.json', bytes('x'), kept.version), {
    code: 'unavailable',
  });
  await assert.rejects(
    started.read('d/account.json'),
    { code: 'unavailable' },
    'what is unknown is not absent',
  );
  away = false;
  await write(started, 'd/certificates/a.json', 'next');
  const said = lines.map(({ msg }) => msg).filter((msg) => /^store/.test(String(msg)));
  assert.deepEqual(said, ['store does not answer, serving on', 'store answers again']);
});

test('a copy on disk that is damaged, or of another app, counts as none', async () => {
  const { sealed } = await replica({ disk: 'copy' });
  await write(sealed, 'd/a.json', 'one');
  await sealed.close();
  const [file] = await readdir(join(folder, 'copy'));
  await writeFile(join(folder, 'copy', file!), 'nonsense');
  assert.equal(await text((await replica({ disk: 'copy' })).sealed, 'd/a.json'), 'one');
  await rm(join(folder, 'store'), { recursive: true });
  assert.equal(
    await (await replica({ disk: 'copy', namespace: 'other' })).sealed.read('d/b.json'),
    undefined,
  );
});

test('a write whose answer was lost counts as done if it was done, and only then', async () => {
  const real = engine();
  let loses: 'answer' | 'question' | undefined;
  const lost = () => Promise.reject(new StorageError('unavailable', 'no answer'));
  const lossy = engine({
    async create(...args) {
      if (loses === 'question') return lost();
      const version = await real.create(...args);
      return loses === 'answer' ? lost() : version;
    },
    async replace(...args) {
      if (loses === 'question') return lost();
      const version = await real.replace(...args);
      return loses === 'answer' ? lost() : version;
    },
  });
  const { sealed } = await replica({ engine: lossy });
  await sealed.prove();
  loses = 'answer';
  const version = (await sealed.create('d/a.json', bytes('one')))!;
  assert.ok(await sealed.replace('d/a.json', bytes('two'), version));
  assert.equal(await sealed.create('d/a.json', bytes('x')), undefined);
  loses = 'question';
  await assert.rejects(sealed.create('d/b.json', bytes('one')), { code: 'unavailable' });
  assert.equal(await text(sealed, 'd/a.json'), 'two');
});

test('a read that was under way while we wrote is no older state', async () => {
  const real = engine();
  let hold: Promise<void> | undefined;
  const slow = engine({
    async read(...args) {
      const found = await real.read(...args);
      const wait = hold;
      hold = undefined;
      await wait;
      return found;
    },
  });
  const { sealed } = await replica({ engine: slow });
  await write(sealed, 'd/a.json', 'one');
  const { version } = (await sealed.read('d/a.json'))!;
  const release = Promise.withResolvers<void>();
  hold = release.promise;
  const early = sealed.read('d/a.json');
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.ok(await sealed.replace('d/a.json', bytes('two'), version));
  release.resolve();
  assert.equal((await early)!.bytes.toString(), 'one');
  assert.equal(await text(sealed, 'd/a.json'), 'two');
});

const liars: Record<string, (real: Engine) => Partial<Engine>> = {
  'that ignores that a record is there': (real) => ({
    async create(name, value) {
      const there = await real.read(name);
      return there === undefined ? real.create(name, value) : real.replace(name, value, there.version);
    },
  }),
  'that ignores the version': (real) => ({
    replace: async (name, value) => real.replace(name, value, (await real.read(name))!.version),
  }),
  'that keeps nothing': () => ({ read: async () => undefined }),
};
for (const [what, lie] of Object.entries(liars)) {
  test(`a store ${what} is refused before anything is written`, async () => {
    const { sealed } = await replica({ engine: engine(lie(engine())) });
    await assert.rejects(sealed.prove(), { code: 'unfit', message: /cannot be relied upon/ });
    await assert.rejects(sealed.create('d/a.json', bytes('one')), { code: 'unfit' });
    await assert.rejects(readFile(at('d/a.json')), { code: 'ENOENT' });
  });
}
