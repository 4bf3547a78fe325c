// S3 as it may be found: busy, forgetful of answers, or deaf to conditions.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { proveConflicts } from '../../../acme/storage/proof.ts';
import { createS3, type S3Options } from '../../../acme/storage/s3.ts';
import { type S3Double, startS3Double } from '../../support/s3-double.ts';

async function double(t: TestContext): Promise<S3Double> {
  const started = await startS3Double();
  t.after(() => started.stop());
  return started;
}

function open(
  { endpoint, bucket, accessKeyId, secret, region, ca }: S3Double,
  over: Partial<S3Options> = {},
) {
  return createS3({
    endpoint,
    bucket,
    prefix: '',
    accessKeyId,
    password: secret,
    region,
    ca,
    namespace: 'app',
    timeoutMs: 5_000,
    lease: { ttlMs: 600, pollMs: 30 },
    ...over,
  });
}

test('a service that is busy, or has met another write, is asked again', async (t) => {
  const s3 = await double(t);
  const storage = open(s3);
  s3.misbehave({ refuses: [503, 409, 500] });
  assert.ok(await storage.create('a/one', Buffer.from('1')));
  s3.misbehave({ refuses: [503, 503, 503, 503] });
  await assert.rejects(storage.create('a/two', Buffer.from('1')), {
    code: 'unavailable',
    message: /503 SlowDown/,
  });
});

test('a write that was done and answered with a failure is known as ours when it is tried again', async (t) => {
  const s3 = await double(t);
  const storage = open(s3);
  s3.misbehave({ doesAndRefuses: 1 });
  const first = (await storage.create('a/one', Buffer.from('1')))!;
  assert.deepEqual(s3.answered, ['PUT 503', 'PUT 412', 'GET 200']);
  s3.misbehave({ doesAndRefuses: 1 });
  assert.ok(await storage.replace('a/one', Buffer.from('2'), first));
  s3.misbehave({});
  assert.equal(
    await storage.create('a/one', Buffer.from('2')),
    undefined,
    'the same bytes of another are not ours',
  );
});

test('services that take no notice of a condition are found out', async (t) => {
  for (const ignored of ['if-none-match', 'if-match'] as const) {
    const s3 = await double(t);
    s3.misbehave({ ignores: [ignored] });
    await assert.rejects(proveConflicts(open(s3)), { code: 'unfit' }, ignored);
  }
});

test('a holder whose beats are answered late or not at all keeps its lease, and one that is taken over knows', async (t) => {
  const s3 = await double(t);
  await open(s3).lease('a/lease', AbortSignal.timeout(20_000), async (lease) => {
    s3.misbehave({ losesAnswers: 1 });
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    assert.ok(lease.isHeld());
    s3.misbehave({ refuses: Array.from({ length: 60 }, () => 500) });
    await new Promise((resolve) => lease.signal.addEventListener('abort', resolve));
    s3.misbehave({});
  });
  await open(s3).lease('a/lease', AbortSignal.timeout(20_000), async () => {});
});

test('contenders without a common clock are never inside together', async (t) => {
  const s3 = await double(t);
  s3.misbehave({ delayMs: 3 });
  let inside = 0;
  let entries = 0;
  const contend = async (skewMs: number) => {
    const clock = {
      now: () => new Date(Date.now() + skewMs),
      monotonicMs: () => performance.now() + skewMs,
      sleep: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
    };
    const storage = open(s3, { clock });
    for (let turn = 0; turn < 3; turn += 1)
      await storage.lease('turns/lease', AbortSignal.timeout(60_000), async () => {
        inside += 1;
        entries += 1;
        assert.equal(inside, 1);
        await new Promise((resolve) => setTimeout(resolve, 10));
        inside -= 1;
      });
  };
  await Promise.all([0, 600_000, -600_000].map(contend));
  assert.equal(entries, 9);
});

test('a bucket that is not there, a wrong secret and a certificate of nobody are named, and no secret is', async (t) => {
  const s3 = await double(t);
  for (const [over, why] of [
    [{ bucket: 'another' }, /NoSuchBucket/],
    [{ password: 'wrong-and-secret' }, /403 SignatureDoesNotMatch/],
    [{ ca: undefined }, /TLS|certificate/i],
  ] as const)
    await assert.rejects(
      open(s3, over as Partial<S3Options>).read('a/one'),
      (error: Error & { code: string }) => {
        assert.equal(error.code, 'unavailable');
        assert.match(error.message, why);
        assert.doesNotMatch(error.message, /wrong-and-secret|secret\/of/);
        return true;
      },
    );
});
