// Somebody in between who forwards everything: told by his own key, and by his own connection if he has stolen ours.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, createServer, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { before, test } from 'node:test';
import { verify } from '../../../evidence/verify/index.ts';
import {
  createEvidenceWorld,
  type EvidenceHost,
  HOST,
  type Served,
  startEvidenceHost,
  type World,
} from '../../support/evidence-host.ts';

let world: World;

before(async () => {
  world = await createEvidenceWorld();
});

/** What fails where a relay with this certificate stands before an honest host. */
async function failuresBehind(relay: Served): Promise<string[]> {
  const host = await startEvidenceHost(world);
  const { port, close } = await startRelay(host, relay);
  try {
    const { checks } = await verify({ ...host.options, url: `https://${HOST}:${port}` });
    return checks.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
  } finally {
    close();
    await host.close();
  }
}

async function startRelay({ port: honest }: EvidenceHost, { cert, key }: Served) {
  const agent = new Agent({ keepAlive: true, rejectUnauthorized: false });
  const server = createServer({ cert, key }, (incoming, outgoing) => {
    const { url: path, headers } = incoming;
    const on = request(
      { agent, host: '127.0.0.1', servername: HOST, port: honest, path, headers },
      (reply) => {
        outgoing.writeHead(reply.statusCode!, reply.headers);
        reply.pipe(outgoing);
      },
    );
    on.end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = () => {
    agent.destroy();
    server.closeAllConnections();
    server.close();
  };
  return { port: (server.address() as AddressInfo).port, close };
}

test('a relay with a certificate of its own for the name is caught, though the CA is trusted and all evidence is genuine', async () => {
  const failed = await failuresBehind(await world.ca.issue([HOST]));
  for (const id of ['bundle.leaf', 'statement.content', 'attest.exporter', 'attest.key'])
    assert.ok(failed.includes(id), `${id} does not fail: ${failed}`);
  assert.ok(!failed.includes('tls.chain'));
});

test('a relay that has stolen the key of the certificate is caught by its connection alone', async () => {
  assert.deepEqual(await failuresBehind(world.served), ['attest.exporter']);
});
