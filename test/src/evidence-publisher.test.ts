// The publisher: evidence is what is served, or it is not there.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Bundle, fileOf } from '../../evidence/bundle.ts';
import { createPublisher, type PublisherOptions } from '../../src/evidence-publisher.ts';
import type { Certificate } from '../../src/lib/certificate.ts';
import { silentLog } from '../../src/lib/log.ts';
import { makeCertificate } from '../support/certificates.ts';
import { sampleAttestation } from '../support/statements.ts';

const statementFile = fileOf('attestation.json', 'application/json', '{}', 'a statement');
const account = { uri: 'https://ca.example.com/acct/1' };

/** What visitors see, in order: the serial that the evidence is about, or "none". */
function stage(options: Partial<PublisherOptions> = {}) {
  const shown: string[] = [];
  const written: string[] = [];
  const publisher = createPublisher({
    build: async (_account, certificates) => bundleFor(certificates),
    statements: { draft: async () => sampleAttestation(), commit: async () => [statementFile] },
    write: async (bundle) => void written.push(bundle.builtAt),
    serve: async (bundle) => void shown.push(bundle?.builtAt ?? 'none'),
    log: silentLog,
    ...options,
  });
  return { publisher, shown, written };
}

/** Its date stands for the certificates that it describes. */
function bundleFor(certificates: readonly Certificate[]): Bundle {
  return {
    files: [],
    certificates: {},
    leaves: [],
    reportData: '',
    builtAt: certificates.map((one) => one.serial).join(),
  };
}

async function until(holds: () => boolean): Promise<void> {
  for (let tries = 0; tries < 500 && !holds(); tries++)
    await new Promise((resolve) => setTimeout(resolve, 10));
  assert.ok(holds());
}

test('the first certificates are served without waiting for the agent, and the evidence follows', async () => {
  const first = await makeCertificate('app.example.com');
  const gate = Promise.withResolvers<void>();
  const { publisher, shown, written } = stage({
    build: async (_account, certificates) => {
      await gate.promise;
      return bundleFor(certificates);
    },
  });
  publisher.setAccount(account);
  let served = false;
  await publisher.deploy([first], async () => {
    served = true;
  });
  assert.ok(served);
  assert.deepEqual(shown, ['none']);
  const stop = new AbortController();
  const run = publisher.run(stop.signal);
  gate.resolve();
  await publisher.complete;
  assert.deepEqual(shown, ['none', first.serial]);
  assert.deepEqual(written, [first.serial]);
  stop.abort();
  await run;
});

test('a renewal is quoted before it is served, and certificate and evidence change together', async () => {
  const [first, second] = [
    await makeCertificate('app.example.com'),
    await makeCertificate('app.example.com'),
  ];
  const { publisher, shown } = stage();
  publisher.setAccount(account);
  await publisher.deploy([first], async () => {});
  const stop = new AbortController();
  const run = publisher.run(stop.signal);
  await publisher.complete;
  const order: string[] = [];
  await publisher.deploy([second], async () => void order.push('swapped', ...shown.slice(-1)));
  assert.deepEqual(order, ['swapped', first.serial], 'the old evidence stood until the swap');
  assert.equal(shown.at(-1), second.serial);
  assert.ok(!shown.slice(1).includes('none'), 'there was evidence all the time');
  stop.abort();
  await run;
});

test('an agent that refuses delays no renewal: the old evidence goes, and comes back when the agent answers', async () => {
  const [first, second] = [
    await makeCertificate('app.example.com'),
    await makeCertificate('app.example.com'),
  ];
  let refuses = false;
  const { publisher, shown } = stage({
    build: async (_account, certificates) => {
      if (refuses) throw new Error('the agent says no');
      return bundleFor(certificates);
    },
    clock: { now: () => new Date(), sleep: (ms, signal) => pause(Math.min(ms, 20), signal) },
  });
  publisher.setAccount(account);
  await publisher.deploy([first], async () => {});
  const stop = new AbortController();
  const run = publisher.run(stop.signal);
  await publisher.complete;
  refuses = true;
  await publisher.deploy([second], async () => {});
  assert.equal(shown.at(-1), 'none', 'evidence about a certificate that is gone is not shown');
  refuses = false;
  await until(() => shown.at(-1) === second.serial);
  stop.abort();
  await run;
});

test('another key of the same account is stated at once, the same key in another order is not', async () => {
  const certificate = await makeCertificate('app.example.com');
  let drafts = 0;
  const { publisher } = stage({
    statements: {
      draft: async () => {
        drafts++;
        return sampleAttestation();
      },
      commit: async () => [statementFile],
    },
  });
  publisher.setAccount({ ...account, body: { key: { kty: 'EC', x: 'one' } } });
  await publisher.deploy([certificate], async () => {});
  const stop = new AbortController();
  const run = publisher.run(stop.signal);
  await publisher.complete;
  assert.equal(drafts, 1);
  publisher.setAccount({ ...account, body: { key: { x: 'one', kty: 'EC' } } });
  publisher.setAccount(account);
  publisher.setAccount({ ...account, body: { key: { kty: 'EC', x: 'two' } } });
  await until(() => drafts > 1);
  assert.equal(drafts, 2);
  stop.abort();
  await run;
});

test('collateral stands beside whatever is shown, from the moment that it is there until it is taken away', async () => {
  const names: string[][] = [];
  const [first, second] = [
    await makeCertificate('app.example.com'),
    await makeCertificate('app.example.com'),
  ];
  const { publisher } = stage({
    serve: async (bundle) => void names.push(bundle?.files.map(({ name }) => name) ?? []),
  });
  const file = (text: string) => fileOf('quote-collateral.json', 'application/json', text, 'of the vendor');
  await publisher.setCollateral(file('too early'));
  publisher.setAccount(account);
  await publisher.deploy([first], async () => {});
  const stop = new AbortController();
  const run = publisher.run(stop.signal);
  await publisher.complete;
  const both = ['attestation.json', 'quote-collateral.json'];
  assert.deepEqual(names.at(-1), both);
  await publisher.setCollateral(file('another'));
  assert.deepEqual(names.at(-1), both);
  assert.equal(publisher.shown()?.files.at(-1)?.text, 'another');
  await publisher.deploy([second], async () => {});
  assert.deepEqual(names.at(-1), both);
  await publisher.setCollateral(undefined);
  assert.deepEqual(names.at(-1), ['attestation.json']);
  stop.abort();
  await run;
});

test('certificates that could not be swapped in change nothing about the evidence', async () => {
  const [first, second] = [
    await makeCertificate('app.example.com'),
    await makeCertificate('app.example.com'),
  ];
  const { publisher, shown } = stage();
  publisher.setAccount(account);
  await publisher.deploy([first], async () => {});
  const stop = new AbortController();
  const run = publisher.run(stop.signal);
  await publisher.complete;
  await assert.rejects(
    publisher.deploy([second], async () => {
      throw new Error('it does not load');
    }),
    /does not load/,
  );
  assert.equal(shown.at(-1), first.serial);
  stop.abort();
  await run;
});

test('a folder that cannot be written does not keep the evidence from being served', async () => {
  const first = await makeCertificate('app.example.com');
  const { publisher, shown } = stage({ write: () => Promise.reject(new Error('read-only')) });
  publisher.setAccount(account);
  await publisher.deploy([first], async () => {});
  const stop = new AbortController();
  const run = publisher.run(stop.signal);
  await publisher.complete;
  assert.equal(shown.at(-1), first.serial);
  stop.abort();
  await run;
});

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

test('without a statement the evidence is published all the same, and both are tried again', async () => {
  const faults = ['draft', 'commit'];
  const files: string[][] = [];
  const { publisher } = stage({
    statements: {
      draft: async () => {
        if (faults[0] === 'draft') throw new Error(`no ${faults.shift()}`);
        return sampleAttestation();
      },
      commit: async () => {
        if (faults[0] === 'commit') throw new Error(`no ${faults.shift()}`);
        return [statementFile];
      },
    },
    serve: async (bundle) => void files.push(bundle?.files.map(({ name }) => name) ?? ['none']),
    clock: { now: () => new Date(), sleep: (ms, signal) => pause(Math.min(ms, 20), signal) },
    requoteMs: 10_000_000,
  });
  publisher.setAccount(account);
  await publisher.deploy([await makeCertificate('app.example.com')], async () => {});
  const stop = new AbortController();
  const run = publisher.run(stop.signal);
  await until(() => files.length >= 4);
  stop.abort();
  await run;
  assert.deepEqual(files.slice(0, 4), [['none'], [], [], ['attestation.json']]);
});

test('a statement is kept before it is shown, and one about what is not served is not kept', async () => {
  const [first, second] = [
    await makeCertificate('app.example.com'),
    await makeCertificate('app.example.com'),
  ];
  const events: string[] = [];
  const { publisher } = stage({
    statements: {
      draft: async (_account, [certificate]) => {
        events.push(`drafted ${certificate!.serial}`);
        return sampleAttestation({ revision: certificate!.serial });
      },
      commit: async ({ statement }) => {
        events.push(`kept ${statement.revision}`);
        return [statementFile];
      },
    },
    serve: async (bundle, next) => void events.push(`shown ${bundle?.builtAt} then ${next?.builtAt}`),
  });
  publisher.setAccount(account);
  await publisher.deploy([first], async () => {});
  const stop = new AbortController();
  const run = publisher.run(stop.signal);
  await publisher.complete;
  events.length = 0;
  await assert.rejects(
    publisher.deploy([second], async () => {
      throw new Error('the workers refuse it');
    }),
  );
  const announced = `shown ${first.serial} then ${second.serial}`;
  assert.deepEqual(events, [`drafted ${second.serial}`, announced, `shown ${first.serial} then undefined`]);
  events.length = 0;
  await publisher.deploy([second], async () => void events.push('swapped'));
  assert.deepEqual(events, [
    `drafted ${second.serial}`,
    announced,
    'swapped',
    `kept ${second.serial}`,
    `shown ${second.serial} then undefined`,
  ]);
  stop.abort();
  await run;
});
