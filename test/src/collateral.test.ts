// The collateral beside the evidence: there while it is sound and in force, gone when it has run out, and nobody is asked needlessly.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BundleFile } from '../../evidence/bundle.ts';
import { type CollateralOptions, keepCollateral } from '../../src/collateral.ts';
import { createSimulatedProcessor, type SimulatedPlatform } from '../../src/demo/simulated-quote.ts';
import { silentLog } from '../../src/lib/log.ts';
import { startPccsDouble } from '../support/pccs-double.ts';

const DAY_MS = 86_400_000;
const register = '00'.repeat(48);

/** What is published, one after the other, until the clock has been asked to wait so many times. */
async function published(
  t: Parameters<typeof startPccsDouble>[0],
  waits: number,
  {
    platform = {},
    fails = () => false,
    root,
  }: {
    readonly platform?: SimulatedPlatform;
    /** By how many times it has waited. */
    readonly fails?: (waited: number) => boolean;
    readonly root?: Uint8Array;
  } = {},
) {
  const processor = await createSimulatedProcessor(platform);
  const rtmrs = [register, register, register, register] as const;
  const quote = processor.quote({ mrTd: register, mrConfigId: register, rtmrs }, Buffer.alloc(64));
  const pauses: number[] = [];
  const service = await startPccsDouble(t, processor.collateral, {
    intercept: () => (fails(pauses.length) ? { status: 404 } : undefined),
  });
  const stop = new AbortController();
  const files: (BundleFile | undefined)[] = [];
  let now = Date.now();
  const clock: CollateralOptions['clock'] = {
    now: () => new Date(now),
    async sleep(ms) {
      pauses.push(ms);
      now += ms;
      if (pauses.length === waits) stop.abort();
    },
  };
  await keepCollateral(
    {
      quote: () => quote.toString('hex'),
      publish: async (file) => void files.push(file),
      services: [service.url],
      root: root ?? processor.rootDer,
      log: silentLog,
      clock,
    },
    stop.signal,
  );
  return { processor, files, pauses, asked: service.asked };
}

test('it is published as verify takes it, and fetched anew every day', async (t) => {
  const { processor, files, pauses } = await published(t, 2);
  assert.deepEqual(pauses, [DAY_MS, DAY_MS]);
  assert.equal(files.length, 2);
  assert.equal(files[0]?.name, 'quote-collateral.json');
  const { pck_certificate_chain: _, ...expected } = processor.collateral;
  assert.deepEqual(JSON.parse(files[0]!.text), expected);
});

test('what is not sound is not published, and asked for again later and later', async (t) => {
  const until = new Date(Date.now() - 1_000);
  const { files, pauses } = await published(t, 3, { platform: { dates: { tcbInfo: { until } } } });
  assert.deepEqual(files, []);
  assert.deepEqual(pauses, [60_000, 120_000, 240_000]);
});

test('while the services are away it stays until it has run out, and no longer', async (t) => {
  const away = (waited: number) => waited > 0;
  const { files, pauses } = await published(t, 45, { fails: away });
  assert.equal(files.length, 2);
  assert.ok(files[0] !== undefined && files[1] === undefined);
  assert.equal(Math.max(...pauses), DAY_MS);
});

test('nobody is asked about a quote that does not lead to the root', async (t) => {
  const other = await createSimulatedProcessor();
  const { files, asked } = await published(t, 1, { root: other.rootDer });
  assert.deepEqual([files, asked], [[], []]);
});
