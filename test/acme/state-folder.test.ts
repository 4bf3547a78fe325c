// Whatever lies in the files of the state folder: the program starts, says what is damaged, and gets its certificate.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { AccountError, generateKey, openAccount } from '../../acme/account.ts';
import { createManager } from '../../acme/manager.ts';
import { createStore, StoreError } from '../../acme/store.ts';
import { createTransport, type Session, type Transport } from '../../acme/transport.ts';
import type { Certificate } from '../../src/lib/certificate.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { makeCertificate } from '../support/certificates.ts';
import { recordedLog } from './support.ts';

const HOUR = 3_600_000;
const START = Date.now();
/** No wait that is ever written is longer. */
const PATIENCE_MS = 40 * HOUR;
const directoryUrl = 'https://ca.example/dir';
const a = parseDomain('a.example');
const key = generateKey();

const time = fc.oneof(
  fc.constantFrom(-400, -1, 0, 1, 20, 4000).map((days) => new Date(START + days * 24 * HOUR).toISOString()),
  fc.string(),
);
const text = fc.oneof(fc.constantFrom(a, 'x', '', key, 'https://ca.example/1'), fc.string());
const loose = <T extends Record<string, fc.Arbitrary<unknown>>>(fields: T) =>
  fc.oneof(fc.record(fields), fc.record(fields, { requiredKeys: [] }));
const count = fc.oneof(fc.nat(5), fc.constantFrom(-1, 1e15, 0.5), fc.jsonValue({ maxDepth: 1 }));
const byName = <T>(value: fc.Arbitrary<T>) =>
  fc.dictionary(fc.constantFrom<string>(a, 'b.example', '__proto__'), value);
/** Of the right shape or nearly so, by the file that it is for. */
const shapes: Record<string, fc.Arbitrary<unknown>> = {
  'account.json': loose({ key: text, nextKey: text, url: text, publicKey: fc.jsonValue({ maxDepth: 1 }) }),
  'ledger.json': byName(
    loose({
      names: fc.constantFrom([a], [], [a, 'b.example']),
      failures: count,
      crashes: count,
      notBefore: time,
      reason: text,
      failedAt: time,
    }),
  ),
  'windows.json': byName(loose({ certificate: text, start: time, end: time, chosen: time })),
  'caa.json': byName(
    loose({ allowed: fc.boolean(), pinned: fc.boolean(), findings: fc.array(text), checkedAt: time }),
  ),
  'challenges.json': fc.array(loose({ name: text, value: text })),
  'orders/a.example.json': loose({
    names: fc.constantFrom([a], []),
    url: text,
    key: text,
    account: text,
    createdAt: time,
  }),
  'certificates/a.example.json': loose({ name: text, chain: text, key: text }),
  'validations/a.example.json': loose({ keyAuthorization: text, at: time }),
  lock: loose({ token: text, pid: count, started: text, realm: text }),
};
const files = Object.keys(shapes);
const content = (file: string) =>
  fc.oneof(
    { weight: 3, arbitrary: shapes[file]!.map((value) => JSON.stringify(value) ?? '') },
    { weight: 1, arbitrary: fc.json({ maxDepth: 2 }) },
    { weight: 1, arbitrary: fc.string() },
  );
const folderContent = fc.record(Object.fromEntries(files.map((file) => [file, content(file)])), {
  requiredKeys: [],
});

/** A CA that gives each key an account, and is never asked for anything else. */
function hospitable(): Transport {
  const real = createTransport({ directoryUrl });
  const directory = { newNonce: 'https://x/', newAccount: 'https://x/', newOrder: 'https://x/', meta: {} };
  const session = (pem: string): Session => {
    const own = real.session(pem);
    const location = 'https://ca.example/1';
    const post = async () => ({ status: 200, headers: { location }, data: {}, retryAfterMs: undefined });
    return { ...own, post };
  };
  return { ...real, directory: async () => directory, session };
}

test('whatever lies in the state folder, the start ends, what is damaged is told, and the certificate is obtained', async (t) => {
  const fresh = await makeCertificate(a);
  const transport = hospitable();
  t.after(() => transport.close());
  // Thousands of synced writes: the memory's file system spares the disk.
  const root = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'state-'));
  t.after(() => rm(root, { recursive: true, force: true }));
  await fc.assert(
    fc.asyncProperty(folderContent, async (found) => {
      let nowMs = START;
      const stopping = new AbortController();
      const clock: Clock = {
        now: () => new Date(nowMs),
        async sleep(ms) {
          // The lock looks again by the real time.
          await new Promise((resolve) => setImmediate(resolve));
          nowMs += ms;
          if (nowMs > START + PATIENCE_MS) stopping.abort();
        },
      };
      const { log, lines } = recordedLog();
      const options = { directoryUrl, clock, log, lockPollMs: 1, lockStaleMs: 20 };
      const stateDir = await mkdtemp(join(root, 'state-'));
      const store = await createStore({ stateDir, ...options });
      for (const [file, body] of Object.entries(found)) await writeFile(join(store.folder, file), body!);
      const served: Certificate[] = [];
      let accountProblem: unknown;
      let refusals = 0;
      const manager = createManager({
        wanted: [[a]],
        store,
        async connect(signal) {
          try {
            const account = await openAccount({ transport, store, log }, signal);
            return { account, issuer: { obtain: async () => fresh } };
          } catch (error) {
            accountProblem = error;
            // By then it has been logged; it would go on until an operator acts.
            refusals += 1;
            if (refusals > 4) setImmediate(() => stopping.abort());
            throw error;
          }
        },
        renewalInfo: async () => undefined,
        recover: async () => void (await store.readChallenges()),
        prepare: async () => {
          await store.readVerdicts();
          await store.readOrder(a);
          await store.sharedChallenge(a);
        },
        deploy: async (_, certificate) => {
          served.push(certificate);
          stopping.abort();
        },
        intervalMs: 12 * HOUR,
        clock,
        log,
        random: () => 0,
      });
      await manager.load();
      await manager.run(stopping.signal);
      if (accountProblem !== undefined) {
        // The one thing that only an operator can decide, and then the log says so.
        assert.ok(
          accountProblem instanceof StoreError || accountProblem instanceof AccountError,
          String(accountProblem),
        );
        assert.ok(
          lines.some(({ msg, level }) => msg === 'certificates cannot be renewed' && level === 'error'),
        );
        return;
      }
      assert.equal(served[0]?.sha256, fresh.sha256, JSON.stringify(lines.slice(-5)));
      for (const [file, body] of Object.entries(found)) {
        if (isJson(body!) || file === 'lock') continue;
        const told = lines.some(
          ({ msg, path }) => msg === 'damaged state file set aside' && String(path).endsWith(file),
        );
        assert.ok(told, `${file} is damaged and nobody said so`);
      }
      assert.doesNotMatch(JSON.stringify(lines), /BEGIN PRIVATE/);
    }),
    { numRuns: 60 },
  );
});

function isJson(body: string): boolean {
  try {
    JSON.parse(body);
    return true;
  } catch {
    return false;
  }
}
