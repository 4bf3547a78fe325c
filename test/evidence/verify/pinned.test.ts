// Connections after a verification: to the key that was verified, and not a byte to any other.

import assert from 'node:assert/strict';
import { get } from 'node:https';
import { text } from 'node:stream/consumers';
import { before, describe, test } from 'node:test';
import { request } from 'undici';
import {
  createVerifiedAgent,
  createVerifiedDispatcher,
  type Expected,
  NotVerifiedError,
  verify,
} from '../../../evidence/verify/index.ts';
import {
  createEvidenceWorld,
  type Lie,
  machine,
  startEvidenceHost,
  type World,
} from '../../support/evidence-host.ts';

let world: World;

before(async () => {
  world = await createEvidenceWorld();
});

function getWith(url: string, agent: ReturnType<typeof createVerifiedAgent>): Promise<string> {
  return new Promise((resolve, reject) => {
    get(url, { agent }, (reply) => void text(reply).then(resolve, reject)).on('error', reject);
  });
}

test('a host that was verified is reached over node:https and undici, one that changed its key is not', async () => {
  const other = await world.ca.issue(['localhost']);
  const host = await startEvidenceHost(world);
  try {
    const report = await verify(host.options);
    assert.equal(report.verdict, 'pass');
    const url = `${host.url}/evidences/sha256sum.txt`;
    const agent = createVerifiedAgent({ report });
    const dispatcher = await createVerifiedDispatcher({ report });
    assert.match(await getWith(url, agent), /acme-account\.json/);
    const { statusCode, body } = await request(url, { dispatcher });
    assert.equal(statusCode, 200);
    await body.text();
    agent.destroy();
    await dispatcher.close();

    host.show(other);
    const asked = host.asked.length;
    const isOther = (error: unknown) => error instanceof NotVerifiedError && error.code === 'another-key';
    await assert.rejects(getWith(url, createVerifiedAgent({ report })), isOther);
    await assert.rejects(request(url, { dispatcher: await createVerifiedDispatcher({ report }) }), isOther);
    assert.equal(host.asked.length, asked, 'nothing was asked of the other key');
    await assert.rejects(getWith('https://127.0.0.1:1/', createVerifiedAgent({ report })), {
      code: 'another-host',
    });
  } finally {
    await host.close();
  }
});

describe('a host that is not verified gets no agent', () => {
  const judged = async (lie: Lie, change: (expected: Expected) => Expected = (expected) => expected) => {
    const host = await startEvidenceHost(world, lie);
    const expected = change(host.options.expected);
    return verify({ ...host.options, expected }).finally(() => host.close());
  };
  const isRefused = (naming: RegExp) => (error: unknown) =>
    error instanceof NotVerifiedError && error.code === 'not-verified' && naming.test(error.message);

  test('if a check failed', async () => {
    const report = await judged({}, (expected) => ({ ...expected, appId: 'b2'.repeat(20) }));
    assert.throws(() => createVerifiedAgent({ report, acceptUnknown: true }), isRefused(/app\.id/));
    await assert.rejects(createVerifiedDispatcher({ report }), isRefused(/app\.id/));
  });

  test('if not all is known, unless that is accepted and the key does not hang on it', async () => {
    const report = await judged({ dns: { silent: 'second' } });
    assert.throws(() => createVerifiedAgent({ report }), isRefused(/dns\.agreement/));
    createVerifiedAgent({ report, acceptUnknown: true }).destroy();
  });

  test('if it withholds its evidence, whatever is accepted', async () => {
    const report = await judged({ files: { 'sha256sum.txt': () => ({ status: 500 }) } });
    assert.equal(report.verdict, 'unknown');
    assert.throws(() => createVerifiedAgent({ report, acceptUnknown: true }), isRefused(/quote\.signature/));
  });

  test('if something was expected that could not be compared, whatever is accepted', async () => {
    const rtmrs = {};
    const report = await judged({}, (expected) => ({
      ...expected,
      systems: [{ mrtd: undefined, rtmrs, image: machine.image }],
    }));
    assert.throws(() => createVerifiedAgent({ report, acceptUnknown: true }), isRefused(/os\.image/));
  });
});
