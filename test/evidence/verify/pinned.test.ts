// Connections after a verification: to the key that was verified, and not a byte to any other.

import assert from 'node:assert/strict';
import { get } from 'node:https';
import { text } from 'node:stream/consumers';
import { before, test } from 'node:test';
import { request } from 'undici';
import {
  createVerifiedAgent,
  createVerifiedDispatcher,
  NotVerifiedError,
  type Verification,
  verify,
} from '../../../evidence/verify/index.ts';
import { createEvidenceWorld, startEvidenceHost, type World } from '../../support/evidence-host.ts';

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

test('a host that is not verified gets no agent, and one of which not all is known only if that is accepted', async () => {
  const host = await startEvidenceHost(world);
  const report = await verify(host.options).finally(() => host.close());
  const with_ = (verdict: Verification['verdict']) => ({ ...report, verdict });
  assert.throws(() => createVerifiedAgent({ report: with_('fail'), acceptUnknown: true }), NotVerifiedError);
  assert.throws(() => createVerifiedAgent({ report: with_('unknown') }), NotVerifiedError);
  await assert.rejects(createVerifiedDispatcher({ report: with_('fail') }), NotVerifiedError);
  createVerifiedAgent({ report: with_('unknown'), acceptUnknown: true }).destroy();
});
