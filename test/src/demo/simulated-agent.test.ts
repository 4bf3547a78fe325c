// The simulated agent answers like dstack's: the vendor's own SDK and plain curl find what they expect.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, createHmac } from 'node:crypto';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { ed25519 } from '@noble/curves/ed25519.js';
import { secp256k1 } from '@noble/curves/secp256k1.js';
import { keccak_256 } from '@noble/hashes/sha3.js';
import { DstackClient, TappdClient } from '@phala/dstack-sdk';
import { parseEventLog, replay } from '../../../evidence/event-log.ts';
import { parseQuote } from '../../../evidence/quote.ts';
import type { AgentVersion } from '../../../src/demo/simulated-agent.ts';
import { socketFolder, startAgentDouble } from '../../support/agent-double.ts';

const run = promisify(execFile);
const appId = '5a'.repeat(20);
const kmsSeed = Buffer.alloc(32, 9);

async function curl(socket: string, ...args: string[]) {
  const command = ['-sS', '--max-time', '20', '-w', '\n%{http_code}', '--unix-socket', socket, ...args];
  const { stdout } = await run('curl', command);
  const [body, status] = stdout.split('\n');
  return { status: Number(status), body: JSON.parse(body!) };
}

/** RFC 5869 with one block, written out so as not to trust what is under test. */
function hkdf(key: Uint8Array, salt: string, info: Uint8Array): Buffer {
  const extracted = createHmac('sha256', salt).update(key).digest();
  return createHmac('sha256', extracted)
    .update(info)
    .update(Buffer.from([1]))
    .digest();
}

test('too long, short or malformed report data is refused with 400 and an error, as by the real one', async (t) => {
  const { endpoint } = await startAgentDouble(t, {
    socketPath: join(await socketFolder(t), 'a.sock'),
    style: 'both',
  });
  for (const path of [
    `GetQuote?report_data=${'00'.repeat(65)}`,
    'GetQuote?report_data=xyz',
    'prpc/Tappd.RawQuote?report_data=00',
    `prpc/Tappd.TdxQuote?report_data=00&hash_algorithm=raw`,
    `prpc/Tappd.TdxQuote?report_data=00&hash_algorithm=md5`,
    'NoSuchMethod',
    'toString',
  ]) {
    const { status, body } = await curl(endpoint, `http://localhost/${path}`);
    assert.equal(status, 400, path);
    assert.deepEqual(Object.keys(body), ['error'], path);
  }
});

test('one interface does not answer the calls of the other', async (t) => {
  const folder = await socketFolder(t);
  const present = await startAgentDouble(t, { socketPath: join(folder, 'a.sock') });
  const old = await startAgentDouble(t, { socketPath: join(folder, 'b.sock'), style: 'tappd' });
  assert.equal((await curl(present.endpoint, 'http://localhost/prpc/Tappd.Info')).status, 400);
  assert.equal((await curl(old.endpoint, 'http://localhost/Info')).status, 400);
});

test("curl, as the older images' scripts use it, gets quotes from both interfaces", async (t) => {
  const agent = await startAgentDouble(t, {
    socketPath: join(await socketFolder(t), 'a.sock'),
    style: 'both',
  });
  const reportData = 'ef'.repeat(32).padEnd(128, '0');
  for (const path of ['GetQuote', 'prpc/Tappd.RawQuote']) {
    const { status, body } = await curl(agent.endpoint, `http://localhost/${path}?report_data=${reportData}`);
    assert.equal(status, 200);
    assert.equal(parseQuote(body.quote).reportData, reportData);
  }
});

test("the vendor's SDK drives it", async (t) => {
  const agent = await startAgentDouble(t, {
    socketPath: join(await socketFolder(t), 'a.sock'),
    eventLog: 'full',
    appCompose: '{"name":"demo"}',
  });
  const client = new DstackClient(agent.endpoint);
  assert.equal(await client.isReachable(), true);
  assert.deepEqual({ ...(await client.version()) }.rev, 'SIMULATED');
  const info = await client.info();
  assert.equal(info.app_id, agent.appId);
  assert.equal(info.compose_hash, createHash('sha256').update('{"name":"demo"}').digest('hex'));
  assert.equal(info.tcb_info.app_compose, '{"name":"demo"}');
  const answer = await client.getQuote('hello');
  const quote = parseQuote(answer.quote);
  assert.equal(quote.reportData, Buffer.from('hello').toString('hex').padEnd(128, '0'));
  assert.deepEqual(answer.replayRtmrs(), [...quote.rtmrs]);
  assert.equal(info.tcb_info.rtmr3, quote.rtmrs[3]);
});

test("the vendor's old SDK client drives the old interface", async (t) => {
  const agent = await startAgentDouble(t, {
    socketPath: join(await socketFolder(t), 'tappd.sock'),
    style: 'tappd',
  });
  const client = new TappdClient(agent.endpoint);
  const quote = parseQuote((await client.tdxQuote('hello', 'sha512')).quote);
  assert.equal(quote.reportData, createHash('sha512').update('app-data:hello').digest('hex'));
});

test('keys are derived as the key service derives them, and its signatures vouch for them', async (t) => {
  // The formula against a key pair that the vendor's own tests publish.
  const published = Buffer.from('1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b', 'hex');
  const publicKey = ed25519.getPublicKey(hkdf(published, 'RATLS', Buffer.from('vms')));
  assert.equal(Buffer.from(publicKey).toString('base64url'), '5Pbre1Amf1hrp2V2bbfKlIfxpQb2pJAmrgmhxgVoG9s');

  const { endpoint } = await startAgentDouble(t, {
    socketPath: join(await socketFolder(t), 'a.sock'),
    appId,
    kmsSeed,
  });
  const { key, signature_chain } = await new DstackClient(endpoint).getKey('acme/account', 'signing');
  const appKey = hkdf(kmsSeed, 'RATLS', Buffer.concat([Buffer.from(appId, 'hex'), Buffer.from('app-key')]));
  assert.deepEqual(Buffer.from(key), hkdf(appKey, 'RATLS', Buffer.from('acme/account')));
  const keyHex = Buffer.from(secp256k1.getPublicKey(key)).toString('hex');
  const appPublic = secp256k1.getPublicKey(appKey);
  const issued = Buffer.concat([Buffer.from('dstack-kms-issued:'), Buffer.from(appId, 'hex'), appPublic]);
  const messages = [Buffer.from(`signing:${keyHex}`), issued];
  const signers = [appPublic, secp256k1.getPublicKey(kmsSeed)];
  for (const [index, signature] of signature_chain.entries()) {
    const recovered = secp256k1.Signature.fromCompact(signature.slice(0, 64))
      .addRecoveryBit(signature[64]!)
      .recoverPublicKey(keccak_256(messages[index]!));
    assert.deepEqual(Buffer.from(recovered.toRawBytes(true)), Buffer.from(signers[index]!));
  }
  assert.equal(signature_chain.length, 2);
});

test('the log replays to the registers in the quote, whole or stripped', async (t) => {
  const folder = await socketFolder(t);
  for (const eventLog of ['full', 'stripped'] as const) {
    const { endpoint } = await startAgentDouble(t, {
      socketPath: join(folder, `${eventLog}.sock`),
      eventLog,
    });
    const { body } = await curl(endpoint, 'http://localhost/GetQuote?report_data=');
    const digests = (JSON.parse(body.event_log) as { imr: number; digest: string }[]).filter(
      ({ imr }) => imr === 3,
    );
    assert.equal(digests[0]!.digest === '', eventLog === 'stripped');
    assert.deepEqual(replay(parseEventLog(body.event_log)), parseQuote(body.quote).rtmrs);
  }
});

test('a socket left behind by a killed run does not keep it from starting', async (t) => {
  const socketPath = join(await socketFolder(t), 'a.sock');
  const first = await startAgentDouble(t, { socketPath });
  const second = await startAgentDouble(t, { socketPath });
  assert.equal((await curl(socketPath, 'http://localhost/Info')).status, 200);
  assert.deepEqual([first.calls, second.calls], [[], ['Info']]);
});

const told: readonly {
  version: AgentVersion;
  payloads: boolean;
  markers: boolean;
  digests: boolean;
  asks: object;
}[] = [
  { version: '0.5.5', payloads: true, markers: false, digests: true, asks: { Version: 400, EmitEvent: 200 } },
  {
    version: '0.5.6',
    payloads: false,
    markers: false,
    digests: false,
    asks: { Version: 400, EmitEvent: 200 },
  },
  {
    version: '0.6.0',
    payloads: false,
    markers: true,
    digests: false,
    asks: { Version: 200, EmitEvent: 400 },
  },
];

for (const { version, payloads, markers, digests, asks } of told) {
  test(`agent ${version} has the calls and tells as much of the log as the real one of that version`, async (t) => {
    const agent = await startAgentDouble(t, { socketPath: join(await socketFolder(t), 'a.sock'), version });
    const { body } = await curl(agent.endpoint, 'http://localhost/GetQuote?report_data=00');
    assert.deepEqual(Object.keys(body), ['quote', 'event_log', 'report_data', 'vm_config']);
    const log = JSON.parse(body.event_log) as {
      imr: number;
      event: string;
      event_payload: string;
      digest: string;
    }[];
    const firmware = log.filter(({ imr }) => imr < 3);
    assert.equal(
      firmware.every(({ digest }) => digest.length === 96),
      true,
    );
    assert.equal(
      firmware.some(({ imr, event_payload }) => imr === 1 && event_payload !== ''),
      payloads,
    );
    assert.equal(
      firmware.some(({ event }) => event === 'acpi-tables'),
      markers,
    );
    assert.equal(
      log.filter(({ imr }) => imr === 3).every(({ digest }) => digest !== ''),
      digests,
    );
    assert.deepEqual(replay(parseEventLog(body.event_log)), parseQuote(body.quote).rtmrs);
    for (const [method, status] of Object.entries(asks)) {
      const url = `http://localhost/${method}?event=mine&payload=0102`;
      assert.equal((await curl(agent.endpoint, url)).status, status, method);
    }
  });
}

test("an app's own event comes after the system's, and RTMR3 grows by it", async (t) => {
  const options = { socketPath: join(await socketFolder(t), 'a.sock'), version: '0.5.6' } as const;
  const agent = await startAgentDouble(t, options);
  const before = await curl(agent.endpoint, 'http://localhost/GetQuote?report_data=00');
  await curl(agent.endpoint, 'http://localhost/EmitEvent?event=mine&payload=0102');
  const { body } = await curl(agent.endpoint, 'http://localhost/GetQuote?report_data=00');
  const quote = parseQuote(body.quote);
  assert.notEqual(quote.rtmrs[3], parseQuote(before.body.quote).rtmrs[3]);
  const log = parseEventLog(body.event_log);
  assert.deepEqual(
    log.slice(-2).map(({ name }) => name),
    ['system-ready', 'mine'],
  );
  assert.deepEqual(replay(log), quote.rtmrs);
});

test('an app that chooses the second version of digests has them, stripped and in full', async (t) => {
  const folder = await socketFolder(t);
  for (const version of ['0.5.5', '0.6.0'] as const) {
    const agent = await startAgentDouble(t, {
      socketPath: join(folder, `${version}.sock`),
      version,
      appCompose: '{"event_log_version": 2}',
    });
    const { body } = await curl(agent.endpoint, 'http://localhost/GetQuote?report_data=00');
    assert.match(body.event_log, /"version":2/);
    assert.deepEqual(replay(parseEventLog(body.event_log)), parseQuote(body.quote).rtmrs);
  }
});

test('a machine that measured something else says so in its log and its registers alike', async (t) => {
  const agent = await startAgentDouble(t, {
    socketPath: join(await socketFolder(t), 'a.sock'),
    measures: (events) => events.filter(([name]) => name !== 'system-ready'),
    mrConfigId: '00'.repeat(48),
  });
  const { body } = await curl(agent.endpoint, 'http://localhost/GetQuote?report_data=00');
  const quote = parseQuote(body.quote);
  assert.doesNotMatch(body.event_log, /system-ready/);
  assert.deepEqual(replay(parseEventLog(body.event_log)), quote.rtmrs);
  assert.equal(quote.mrConfigId, '00'.repeat(48));
});
