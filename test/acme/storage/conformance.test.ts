// What every storage promises, whichever it is: conflicts conflict, a lease excludes, and nothing hangs.

import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { proveConflicts } from '../../../acme/storage/proof.ts';
import type { Engine, Storage } from '../../../acme/storage.ts';
import { type OpenOptions, openStorage, type Server, servers } from './engines.ts';

const SHORT = { ttlMs: 900, pollMs: 30 };
const text = (stored: { bytes: Buffer } | undefined) => stored?.bytes.toString();
const soon = () => AbortSignal.timeout(30_000);

for (const [name, start] of Object.entries(servers)) {
  describe(name, () => {
    let folder: string;
    let server: Server;
    let storage: Storage;
    const opened: (Storage & Partial<Engine>)[] = [];
    const namespaces = 0;
    const open = (options: Partial<OpenOptions> = {}) => {
      const namespace = options.namespace ?? `app-${namespaces}`;
      const one = openStorage(server.recipe, { timeoutMs: 4_000, lease: SHORT, ...options, namespace });
      opened.push(one);
      return one;
    };

    before(async (t) => {
      folder = await mkdtemp(join(tmpdir(), 'storage-'));
      server = await start(t as never, folder);
      storage = open();
      await (storage as Partial<Engine>).prove?.();
    });
    after(async () => {
      for (const one of opened) await one.close?.().catch(() => {});
      await server?.stop();
      await rm(folder, { recursive: true, force: true });
    });

    test('two writes that conflict do conflict, and the proof leaves nothing behind', async () => {
      await proveConflicts(storage);
      assert.deepEqual(await storage.list('probe'), []);
    });

    test('a record is made once, replaced only by who knows it, and removed so too', async () => {
      const first = (await storage.create('a/one.json', Buffer.from('1')))!;
      assert.equal(await storage.create('a/one.json', Buffer.from('x')), undefined);
      const second = (await storage.replace('a/one.json', Buffer.from('2'), first))!;
      assert.equal(await storage.replace('a/one.json', Buffer.from('x'), first), undefined);
      assert.equal(await storage.remove('a/one.json', first), false);
      assert.equal(text(await storage.read('a/one.json')), '2');
      assert.equal(await storage.remove('a/one.json', second), true);
      assert.equal(await storage.read('a/one.json'), undefined);
      assert.equal(await storage.replace('a/one.json', Buffer.from('x'), second), undefined);
    });

    test('bytes of every value, none and many come back as they were', async () => {
      const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
      for (const [i, bytes] of [all, Buffer.alloc(0), Buffer.alloc(300_000, 7)].entries()) {
        await storage.create(`bytes/${i}`, bytes);
        assert.ok((await storage.read(`bytes/${i}`))!.bytes.equals(bytes), `${i}`);
      }
    });

    test('a folder is listed without what lies deeper, and without its neighbours', async () => {
      for (const one of ['l/x.json', 'l/%y_.json', 'l/deeper/z.json', 'lx/no.json'])
        await storage.create(one, Buffer.from('1'));
      const files = (await storage.list('l')).filter((each) => each !== 'deeper');
      assert.deepEqual(files.sort(), ['%y_.json', 'x.json']);
      assert.deepEqual(await storage.list('nothing'), []);
    });

    test('one app never sees the records of another', async () => {
      await storage.create('mine/a', Buffer.from('1'));
      const other = open({ namespace: 'another' });
      assert.equal(await other.read('mine/a'), undefined);
      assert.deepEqual(await other.list('mine'), []);
    });

    test('of twelve changes at once by three processes’ worth of clients none is lost', async () => {
      const clients = [storage, open(), open()];
      await storage.create('counter', Buffer.from('0'));
      const increment = async (client: Storage) => {
        for (;;) {
          const now = (await client.read('counter'))!;
          const next = Buffer.from(String(Number(text(now)) + 1));
          if ((await client.replace('counter', next, now.version)) !== undefined) return;
        }
      };
      // Files are compared and replaced within one process only: there the lease keeps processes apart.
      const used = server.recipe.engine === 'files' ? [storage] : clients;
      await Promise.all(Array.from({ length: 12 }, (_, i) => increment(used[i % used.length]!)));
      assert.equal(text(await storage.read('counter')), '12');
    });

    test('a lease is held by one at a time, and goes to the next when it is given back', async () => {
      await storage.create('turns/record', Buffer.from('1'));
      let inside = 0;
      const enter = (client: Storage) =>
        client.lease('turns/lease', soon(), async (lease) => {
          inside += 1;
          assert.equal(inside, 1);
          assert.ok(lease.isHeld());
          await new Promise((resolve) => setTimeout(resolve, 40));
          inside -= 1;
        });
      await Promise.all([enter(storage), enter(open()), enter(open())]);
    });

    test('a lease outlives its time while its holder lives', async () => {
      await storage.create('long/first', Buffer.from('1'));
      const other = open();
      await storage.lease('long/lease', soon(), async (lease) => {
        const waiting = new AbortController();
        const taken = other.lease('long/lease', waiting.signal, async () => {});
        await new Promise((resolve) => setTimeout(resolve, 2.5 * SHORT.ttlMs));
        assert.equal(lease.signal.aborted, false);
        assert.ok(await storage.create('long/record', Buffer.from('1'), { lease }));
        waiting.abort(new Error('enough'));
        await assert.rejects(taken, /enough/);
      });
    });

    test('a holder that is killed is followed by the next', async () => {
      const record = `killed-${name}`;
      const { child } = await holder(record);
      child.kill('SIGKILL');
      await open({ namespace: record }).lease('work/lease', soon(), async () => {});
    });

    test('a holder that was stopped past its time changes nothing when it goes on', async () => {
      const record = `stopped-${name}`;
      const { child } = await holder(record);
      child.kill('SIGSTOP');
      const other = open({ namespace: record });
      // Files know that a process of this machine lives: there nobody takes its lock.
      if (server.recipe.engine !== 'files')
        await other.lease('work/lease', soon(), async (lease) => {
          const now = (await other.read('work/record'))!;
          assert.ok(await other.replace('work/record', Buffer.from('theirs'), now.version, { lease }));
          child.send('go on');
          const said = once(child, 'message');
          child.kill('SIGCONT');
          const [tried] = (await said) as [Record<string, unknown>];
          assert.equal(tried.knowing, 'lease-lost');
          assert.equal(tried.byVersion, 'refused');
          assert.equal(tried.told, true);
          if (server.guards) assert.deepEqual([tried.blind, tried.anew], ['lease-lost', 'lease-lost']);
          else assert.equal(tried.blind, 'refused');
        });
      else child.kill('SIGKILL');
      const left = text(await other.read('work/record'));
      assert.equal(left, server.recipe.engine === 'files' ? 'first' : 'theirs');
    });

    test('when the link is cut every call ends, the holder is told in time, and all is well once it is mended', async (t) => {
      if (server.link === undefined) return t.skip('there is no link');
      const { link } = server;
      const impatient = open({ timeoutMs: 1_000 });
      await eventually(async () => void (await impatient.read('cut/record')));
      await impatient.create('cut/record', Buffer.from('1'));
      await impatient.lease('cut/lease', soon(), async (lease) => {
        link.cut();
        const calls = [
          impatient.read('cut/record'),
          impatient.create('cut/new', Buffer.from('1')),
          impatient.replace('cut/record', Buffer.from('2'), 'x'),
          impatient.list('cut'),
        ];
        for (const call of calls) await assert.rejects(call, { code: 'unavailable' });
        if (!lease.signal.aborted) await once(lease.signal, 'abort');
        await assert.rejects(impatient.create('cut/late', Buffer.from('1'), { lease }), {
          code: 'lease-lost',
        });
      });
      link.mend();
      await eventually(async () => assert.equal(text(await impatient.read('cut/record')), '1'));
      await impatient.lease('cut/lease', soon(), async () => {});
    });

    test('a caller that gives up is let go at once', async (t) => {
      if (server.link === undefined) return t.skip('there is no link');
      const giveUp = new AbortController();
      server.link.cut();
      const call = storage.read('a/one.json', { signal: giveUp.signal });
      giveUp.abort(new Error('no longer wanted'));
      await assert.rejects(call, /no longer wanted/);
      server.link.mend();
    });

    test('what was written is there after a crash of the server, and so is the way to it', async (t) => {
      if (server.restart === undefined) return t.skip('there is no server');
      // Connections of before the cut are found dead one by one.
      await eventually(async () => void (await storage.read('kept/record')));
      const version = await storage.create('kept/record', Buffer.from('kept'));
      await server.restart();
      await eventually(async () => {
        const kept = await storage.read('kept/record');
        assert.deepEqual([text(kept), kept?.version], ['kept', version]);
      });
      assert.ok(await storage.replace('kept/record', Buffer.from('on'), version!));
      await storage.lease('kept/lease', soon(), async () => {});
    });

    test('who watches a folder is told of a change there', async (t) => {
      if (server.recipe.engine === 'files' || server.recipe.engine === 's3') return t.skip('nobody tells');
      const told = Promise.withResolvers<void>();
      const end = storage.watch('watched', told.resolve);
      t.after(end);
      const other = open();
      let n = 0;
      const noise = setInterval(
        () => void other.create(`watched/${n++}`, Buffer.from('1')).catch(() => {}),
        50,
      );
      t.after(() => clearInterval(noise));
      await told.promise;
    });

    async function holder(namespace: string): Promise<{ child: ChildProcess }> {
      await open({ namespace }).create('work/record', Buffer.from('first'));
      const options: OpenOptions = { namespace, timeoutMs: 4_000, lease: SHORT };
      const child = fork(join(import.meta.dirname, 'holder.ts'), [
        JSON.stringify({ recipe: server.recipe, options }),
      ]);
      await once(child, 'message');
      return { child };
    }
  });
}

async function eventually(check: () => Promise<void>): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await check();
    } catch (error) {
      if (tries > 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
