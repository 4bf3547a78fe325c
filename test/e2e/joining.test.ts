// A replica comes and goes: its port is open while it can serve, and nobody is sent to one that cannot.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { fleetSchema } from '../../evidence/fleet.ts';
import { startSimulatedAgent } from '../../src/demo/simulated-agent.ts';
import { runProgram } from '../support/ingress-process.ts';
import { freePort } from '../support/ports.ts';
import { startRedis } from '../support/redis.ts';
import { createWorld, get, handshake } from '../support/world.ts';

const servername = 'app.example.com';

/** What becomes of a connection to this port. */
async function knock(port: number): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return 'accepted';
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code);
  } finally {
    socket.destroy();
  }
}

test('a replica without a certificate takes no connections and says why; one that drains takes no more, and ends what it has', async () => {
  await using world = await createWorld();
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<void>();
  const app = createServer(async (request, response) => {
    if (request.url === '/slow') {
      asked.resolve();
      await answer.promise;
    }
    response.end('served');
  }).listen(0, '127.0.0.1');
  await once(app, 'listening');
  const store = await startRedis({ tls: false });
  const agents: { close(): Promise<void> }[] = [];
  const replica = async (name: string, port: number) => {
    const agent = await startSimulatedAgent({
      socketPath: join(world.folder, `${name}.sock`),
      appId: 'ab'.repeat(20),
      instanceId: port.toString(16).padStart(40, '0'),
    });
    agents.push(agent);
    return {
      DOMAIN: servername,
      TARGET_ENDPOINT: `http://127.0.0.1:${(app.address() as AddressInfo).port}`,
      CHALLENGE_TYPE: 'tls-alpn-01',
      DNS_SETUP_MODE: 'print',
      WORKERS: '1',
      PORT: String(port),
      DSTACK_SIMULATOR_ENDPOINT: agent.endpoint,
      STATE_DIR: join(world.folder, `state-${name}`),
      EVIDENCE_DIR: join(world.folder, `evidences-${name}`),
      STORE_URL: `redis://:${store.password}@127.0.0.1:${store.port}/0`,
      STORE_KEY: Buffer.alloc(32, 9).toString('base64'),
    };
  };
  try {
    const settings = await replica('one', world.port);
    const one = world.start(settings);
    const begun = await one.waitFor('replica begins to take connections');
    assert.equal(begun.why, 'a challenge must be answered', 'nobody else can');
    await one.waitFor('ready', undefined, 90_000);
    const ca = await world.roots();

    await store.kill();
    const port = await freePort();
    const newcomer = await replica('two', port);
    const two = world.start(newcomer);
    await two.waitFor('replica takes no connections yet');
    await two.waitFor('store does not answer, serving on');
    assert.equal(await knock(port), 'ECONNREFUSED', 'the gateway goes on to the next replica');
    const ask = () => runProgram(['healthcheck'], { ...world.env, ...newcomer });
    let health = await ask();
    for (let tries = 0; !health.stdout.includes('does not answer') && tries < 20; tries += 1)
      health = await ask();
    assert.equal(health.code, 1);
    assert.match(health.stdout, /no connections are taken yet: the store does not answer/);
    await store.restart();
    await two.waitFor('ready');
    assert.equal((await get({ port, servername, ca })).body, 'served');
    assert.equal((await ask()).code, 0);
    assert.equal(world.pebble.made('order'), 1);

    const fleet = async () => {
      const { status, body } = await get({ port, servername, ca, path: '/evidences/fleet.json' });
      return status === 200 ? fleetSchema.parse(JSON.parse(body)).replicas : [];
    };
    // The other one was without the store when it had something to say.
    for (let tries = 0; (await fleet()).length < 2; tries += 1) {
      assert.ok(tries < 600, 'both are told of');
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    const [first, second] = (await fleet()).map(({ statement }) => statement);
    assert.deepEqual(first!.certificates, second!.certificates);
    assert.notEqual(first!.instanceId, second!.instanceId);

    const busy = await handshake({ port: world.port, servername, ca });
    busy.write(`GET /slow HTTP/1.1\r\nHost: ${servername}\r\n\r\n`);
    await asked.promise;
    one.kill('SIGTERM');
    await one.waitFor('stopping');
    while ((await knock(world.port)) === 'accepted') await new Promise((resolve) => setTimeout(resolve, 20));
    answer.resolve();
    let reply = '';
    for await (const bytes of busy) {
      reply += bytes;
      if (reply.includes('served')) break;
    }
    assert.match(reply, /^HTTP\/1\.1 200 [\s\S]*served/);
    assert.equal((await get({ port, servername, ca })).body, 'served', 'the other one goes on');
    assert.equal((await one.exited).code, 0);
  } finally {
    await Promise.all(agents.map((agent) => agent.close()));
    app.closeAllConnections();
    app.close();
    await store.stop();
  }
});
