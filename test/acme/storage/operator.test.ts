// The operator of the store attacks: each thing that he can do, who notices, and what nobody can notice; see docs/fleet.md.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { createSealing, sealingKey } from '../../../acme/sealing.ts';
import { openLocalCopy } from '../../../acme/storage/local-copy.ts';
import { MANIFEST } from '../../../acme/storage/manifest.ts';
import { createSealed, type Sealed } from '../../../acme/storage/sealed.ts';
import type { Engine, Storage, StorageError } from '../../../acme/storage.ts';
import { createLyingStore, type LyingStore } from '../../support/lying-store.ts';
import { recordedLog } from '../support.ts';

const key = sealingKey(randomBytes(32));
let disks: string;
const opened: Sealed[] = [];
before(async () => {
  disks = await mkdtemp(join(tmpdir(), 'operator-'));
});
afterEach(async () => {
  await Promise.all(opened.splice(0).map((sealed) => sealed.close()));
});
after(() => rm(disks, { recursive: true, force: true }));

async function replica(engine: Engine, disk = randomBytes(6).toString('hex')) {
  const { log, lines } = recordedLog();
  const sealing = createSealing([key], 'app');
  const copy = await openLocalCopy(join(disks, disk), sealing, { log });
  const sealed = createSealed({ engine, sealing, copy, log });
  opened.push(sealed);
  const alarms = () => lines.filter(({ level }) => level === 'error').map(({ record }) => String(record));
  return { sealed, disk, alarms };
}

async function write(storage: Storage, name: string, value: string): Promise<void> {
  const there = await storage.read(name);
  const bytes = Buffer.from(value);
  const written = there
    ? await storage.replace(name, bytes, there.version)
    : await storage.create(name, bytes);
  assert.ok(written, `${name} is written`);
}

const textOf = async (storage: Storage, name: string) => (await storage.read(name))?.bytes.toString();
const refused = (error: StorageError) => ['hostile', 'unreadable'].includes(error.code);

/** Two replicas have written; one of them has stopped and will come back with its disk. */
async function scene() {
  const store = createLyingStore();
  const one = await replica(store.engine());
  await write(one.sealed, 'd/a.json', 'a1');
  await write(one.sealed, 'd/b.json', 'b1');
  await one.sealed.close();
  const early = store.state();
  const two = await replica(store.engine());
  await write(two.sealed, 'd/a.json', 'a2');
  await two.sealed.close();
  return { store, one, two, early };
}

interface Attack {
  strike(store: LyingStore, early: ReadonlyMap<string, { bytes: Buffer; version: string }>): void;
  /** Whether one that comes with an empty disk notices. */
  readonly newcomerNotices: boolean;
  /** What it reads, where it does not. */
  readonly newcomerReads?: string | undefined;
}

const attacks: Record<string, Attack> = {
  'puts back an older state of one record': {
    strike: (store) => store.put('d/a.json', store.past('d/a.json')[0]),
    newcomerNotices: true,
  },
  'deletes a record': { strike: (store) => store.put('d/a.json', undefined), newcomerNotices: true },
  'puts another record in its place': {
    strike: (store) => store.put('d/a.json', store.state().get('d/b.json')),
    newcomerNotices: true,
  },
  'deletes the manifest': { strike: (store) => store.put(MANIFEST, undefined), newcomerNotices: true },
  'deletes a record and puts back the manifest from before it': {
    strike(store) {
      store.put('d/a.json', undefined);
      store.put(MANIFEST, store.past(MANIFEST)[0]);
    },
    newcomerNotices: false,
  },
  'puts back all of it as it was': {
    strike: (store, early) => store.restore(early),
    newcomerNotices: false,
    newcomerReads: 'a1',
  },
  'deletes everything': { strike: (store) => store.restore(new Map()), newcomerNotices: false },
};
for (const [what, { strike, newcomerNotices, newcomerReads }] of Object.entries(attacks)) {
  test(`who ${what} is noticed by whoever has seen more${newcomerNotices ? ', and by a newcomer' : ', and not by a newcomer'}`, async () => {
    const { store, two, early } = await scene();
    strike(store, early);
    for (const seen of [two, await replica(store.engine(), two.disk)]) {
      await seen.sealed.read('d/a.json').catch(() => {});
      await seen.sealed.read(MANIFEST).catch(() => {});
      await assert.rejects(seen.sealed.create('d/new.json', Buffer.from('x')), refused, 'nothing is written');
      assert.notDeepEqual(seen.alarms(), [], 'it is said');
      const still = await textOf(seen.sealed, 'd/a.json').catch(() => 'refused');
      assert.ok(['a2', 'refused'].includes(String(still)), 'nothing older is taken');
    }
    const newcomer = await replica(store.engine());
    if (newcomerNotices) {
      await assert.rejects(newcomer.sealed.read('d/a.json'), refused);
      await assert.rejects(newcomer.sealed.create('d/new.json', Buffer.from('x')), refused);
    } else assert.equal(await textOf(newcomer.sealed, 'd/a.json'), newcomerReads);
  });
}

test('not one byte of a record can be changed unnoticed', async () => {
  const { store, two } = await scene();
  const whole = store.state().get('d/a.json')!;
  for (let at = 0; at < whole.bytes.length; at += 1) {
    const bytes = Buffer.from(whole.bytes);
    bytes[at]! ^= 1 << (at % 8);
    store.put('d/a.json', { ...whole, bytes });
    await assert.rejects(two.sealed.read('d/a.json'), refused, `byte ${at}`);
  }
  store.put('d/a.json', whole);
  assert.equal(await textOf(two.sealed, 'd/a.json'), 'a2');
});

test('a write that was confirmed and not kept is noticed when it is read', async () => {
  const { store, two } = await scene();
  store.swallow(1);
  await write(two.sealed, 'd/a.json', 'a3');
  await assert.rejects(two.sealed.read('d/a.json'), { code: 'hostile' });
});

test('two views of one store go on apart, and are noticed by all who meet the other one, a newcomer among them', async () => {
  const { store, two } = await scene();
  const other = store.fork();
  const apart = await replica(other.engine());
  await write(two.sealed, 'd/a.json', 'a3 here');
  await write(apart.sealed, 'd/a.json', 'a3 there');
  await Promise.all([two.sealed.close(), apart.sealed.close()]);
  assert.equal(await textOf(two.sealed, 'd/a.json'), 'a3 here', 'while they are kept apart nobody can know');
  const mixed = createLyingStore(store.state());
  mixed.put('d/a.json', other.state().get('d/a.json'));
  for (const disk of [two.disk, undefined]) {
    const met = await replica(mixed.engine(), disk);
    await assert.rejects(met.sealed.read('d/a.json'), { code: 'hostile' });
  }
  const late = await replica(store.engine(), apart.disk);
  await assert.rejects(late.sealed.read('d/a.json'), { code: 'hostile' });
});

test('once what was taken away is back the store is trusted again', async () => {
  const { store, two } = await scene();
  const whole = store.state();
  store.put('d/a.json', undefined);
  await assert.rejects(two.sealed.read('d/a.json'), { code: 'hostile' });
  store.restore(whole);
  assert.equal(await textOf(two.sealed, 'd/a.json'), 'a2');
  await write(two.sealed, 'd/a.json', 'a3');
});

/** Deterministic, so that a failure can be played again: OPERATOR_SEED, and OPERATOR_ROUNDS for a long run. */
function dice(seed: string): (sides: number) => number {
  let thrown = 0;
  return (sides) => createHash('sha256').update(`${seed} ${thrown++}`).digest().readUInt32BE() % sides;
}

test('whatever he does in whatever order, no replica reads what was not written there, or goes back', async () => {
  const { OPERATOR_SEED: seed = randomBytes(4).toString('hex'), OPERATOR_ROUNDS: rounds = '300' } =
    process.env;
  const throwDice = dice(seed);
  const store = createLyingStore();
  const names = ['d/a.json', 'd/b.json', 'e/c.json'];
  const team = await Promise.all([0, 1, 2].map(() => replica(store.engine())));
  // He would be found unfit before the trial begins, if he swallowed a write of that.
  await Promise.all(team.map(({ sealed }) => sealed.prove()));
  const seen = team.map(() => new Map<string, number>());
  let count = 0;
  let noticed = 0;
  for (let round = 0; round < Number(rounds); round += 1) {
    const who = throwDice(team.length);
    const name = names[throwDice(names.length)]!;
    const victim = names[throwDice(names.length)]!;
    switch (throwDice(12)) {
      case 0:
        store.put(victim, store.past(victim)[throwDice(Math.max(1, store.past(victim).length))]);
        break;
      case 1:
        store.put(victim, undefined);
        break;
      case 2:
        store.put(victim, store.state().get(name));
        break;
      case 3:
        store.put(MANIFEST, store.past(MANIFEST)[throwDice(Math.max(1, store.past(MANIFEST).length))]);
        break;
      case 4:
        store.swallow(1);
        break;
      case 5:
      case 6:
        // He repairs it all, or the trial would end with the first attack.
        for (const each of [...names, MANIFEST]) store.put(each, store.past(each).at(-1));
        store.swallow(0);
        break;
      default: {
        const { sealed } = team[who]!;
        const told = `seed ${seed}, round ${round}`;
        const there = await sealed.read(name).catch((error: StorageError) => error);
        if (there instanceof Error) {
          assert.ok(refused(there), `${told}: ${there.message}`);
          noticed += 1;
          break;
        }
        assert.equal(there?.bytes.toString().split('#')[0] ?? name, name, told);
        // Where he has let two go apart and shows the longer way, the change is later, whatever was written when.
        const change = changeOf(there?.version);
        assert.ok(change >= (seen[who]!.get(name) ?? 0), `${told}: ${name} went back to ${change}`);
        seen[who]!.set(name, change);
        count += 1;
        const bytes = Buffer.from(`${name}#${count}`);
        const written = await (there
          ? sealed.replace(name, bytes, there.version)
          : sealed.create(name, bytes)
        ).catch((error: StorageError) => assert.ok(refused(error), `${told}: ${error.message}`));
        if (written) seen[who]!.set(name, changeOf(written));
      }
    }
  }
  assert.ok(noticed > 0, `seed ${seed}: nothing was noticed`);
});

/** How often a record has changed, by its version. */
function changeOf(version: string | undefined): number {
  return version === undefined ? 0 : Number(version.split(':')[0]);
}
