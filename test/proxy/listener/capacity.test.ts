// Full: who has to go for whom, and that nobody who is at something does.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createCapacity, type Occupant } from '../../../proxy/listener/capacity.ts';
import type { ListenerOptions } from '../../../proxy/listener/listener.ts';
import { createRoster } from '../../../proxy/socket/roster.ts';
import { createFrameClient, frameType } from '../../support/http2-frames.ts';
import {
  eventually,
  HOST,
  type Ingress,
  type RawClient,
  request,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const cleanups: (() => unknown)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

class Seat implements Occupant {
  place = -1;
  peer: string | undefined = undefined;
  leaving = false;
  ended = '';
  asked = 0;
  readonly acceptedAt: number;
  since: number;

  constructor(acceptedAt: number, since: number) {
    this.acceptedAt = acceptedAt;
    this.since = since;
  }

  idleSince(): number {
    this.asked++;
    return this.since;
  }

  leave(): void {
    this.ended = 'left';
  }

  destroy(): void {
    this.ended = 'destroyed';
  }
}

function hall(limit: number, knowsPeers = false) {
  const open = createRoster<Seat>();
  const clock = { now: 1_000_000 };
  const said: unknown[] = [];
  const capacity = createCapacity<Seat>({
    limit,
    open,
    deadlines: { now: () => clock.now },
    knowsPeers,
    onFull: (since) => said.push(since),
  });
  const close = (seat: Seat) => {
    open.remove(seat);
    capacity.left(seat);
  };
  const enter = (since = Number.POSITIVE_INFINITY, address?: string) => {
    clock.now += 100;
    const seat = new Seat(clock.now, since);
    open.add(seat);
    const admitted = capacity.admits(seat) && (address === undefined || capacity.admitsPeer(seat, address));
    if (!admitted) close(seat);
    return { seat, admitted };
  };
  return { capacity, open, clock, said, enter, close };
}

describe('without addresses', () => {
  it('idle connections fill it: each newcomer is admitted, for the longest idle', () => {
    const { enter } = hall(4);
    const seats = [30, 10, 20, 40].map((since) => enter(since).seat);
    const busy = [enter(), enter()];
    assert.deepEqual(
      seats.map(({ ended }) => ended),
      ['', 'left', 'left', ''],
    );
    assert.ok(busy.every(({ admitted }) => admitted));
  });

  it('a busy connection is never ended, and neither is one that became busy after the last look: newcomers are refused instead', () => {
    const { enter, said } = hall(3);
    const [one, two, three] = [enter(10).seat, enter(20).seat, enter().seat];
    assert.equal(enter().admitted, true);
    two.since = Number.POSITIVE_INFINITY;
    assert.equal(enter().admitted, false);
    assert.deepEqual([one.ended, two.ended, three.ended], ['left', '', '']);
    assert.equal(said.length, 1);
  });

  it('a flood costs less than one look at every connection for each newcomer, whether some are idle or none', () => {
    const { enter, clock, capacity, open, close } = hall(5_000);
    const seats = Array.from({ length: 5_000 }, (_, i) => enter(i).seat);
    for (const seat of seats) seat.asked = 0;
    const flood = () => {
      for (let i = 0; i < 1_000; i++) {
        clock.now += 0.01;
        const seat = new Seat(clock.now, Number.POSITIVE_INFINITY);
        open.add(seat);
        if (!capacity.admits(seat)) close(seat);
      }
    };
    flood();
    for (const seat of seats) if (seat.ended === '') seat.since = Number.POSITIVE_INFINITY;
    flood();
    const asked = seats.reduce((sum, seat) => sum + seat.asked, 0);
    assert.ok(asked < 20 * 5_000, `${asked} for 2,000 newcomers`);
  });

  it('a connection that was told to end is not counted any more, and when too many are ending they are cut off', () => {
    const { enter } = hall(600);
    const seats = Array.from({ length: 600 }, (_, i) => enter(i).seat);
    for (let i = 0; i < 600; i++) assert.equal(enter().admitted, true);
    const ends = seats.map(({ ended }) => ended);
    assert.equal(ends.filter((end) => end === 'left').length, 256);
    assert.equal(ends.filter((end) => end === 'destroyed').length, 344);
  });
});

describe('with addresses', () => {
  it('the idle connections of the client that holds most end first, even if others have been idle for longer', () => {
    const { enter } = hall(40, true);
    const neighbour = enter(1, '192.0.2.1').seat;
    const crowd = Array.from({ length: 39 }, (_, i) => enter(100 + i, '192.0.2.66').seat);
    for (let i = 0; i < 15; i++) assert.equal(enter(1_000, `198.51.100.${i}`).admitted, true);
    assert.equal(neighbour.ended, '');
    assert.equal(crowd.filter(({ ended }) => ended === 'left').length, 15);
  });

  it('a client that holds all connections, all busy, loses them to others until it holds its share', () => {
    const { enter } = hall(32, true);
    const crowd = Array.from({ length: 32 }, () => enter(undefined, '2001:db8::1').seat);
    let admitted = 0;
    for (let i = 0; i < 32; i++) {
      // One client may have any address of its network.
      assert.equal(enter(undefined, `2001:db8::${i + 2}`).admitted, false);
      if (enter(undefined, `198.51.100.${i}`).admitted) admitted++;
    }
    assert.equal(crowd.filter(({ ended }) => ended === 'destroyed').length, admitted);
    assert.equal(admitted, 24);
  });
});

interface Started {
  readonly ingress: Ingress;
  readonly answer: () => void;
  readonly waiting: () => number;
}

/** Requests for /wait are answered by answer(), all others at once. */
async function start(options: Partial<ListenerOptions>): Promise<Started> {
  const held: Socket[] = [];
  const upstream = await startUpstream((socket) => {
    socket.on('data', (bytes) => {
      if (bytes.includes('/wait')) held.push(socket);
      else socket.write(OK);
    });
  });
  cleanups.push(upstream.close);
  const ingress = await startIngress([routeTo(settingsFor(upstream.port))], options);
  cleanups.push(ingress.close);
  return {
    ingress,
    answer: () => {
      for (const socket of held.splice(0)) socket.write(OK);
    },
    waiting: () => held.length,
  };
}

/** As often as it takes for those who were let in to count as idle. */
async function served(ingress: Ingress): Promise<RawClient> {
  for (;;) {
    const client = await ingress.connect().catch(() => undefined);
    if (client === undefined) continue;
    assert.equal((await client.request(request('GET /'))).body, 'ok');
    return client;
  }
}

/** An upstream that sends back what it gets, whatever it is. */
async function startRaw(protocol: 'tcp' | 'auto', limits: NonNullable<ListenerOptions['limits']>) {
  const upstream = await startUpstream((socket) => socket.on('data', (bytes) => socket.write(bytes)));
  cleanups.push(upstream.close);
  const ingress = await startIngress([routeTo(settingsFor(upstream.port, protocol))], { limits });
  cleanups.push(ingress.close);
  return { ingress };
}

async function echo(client: RawClient): Promise<void> {
  client.send('\x01hello');
  await client.until(/hello/);
}

/** As often as it takes for those who were let in to count as idle. */
async function echoed(ingress: Ingress): Promise<RawClient> {
  for (;;) {
    const client = await ingress.connect().catch(() => undefined);
    if (client === undefined) continue;
    await echo(client);
    return client;
  }
}

describe('a listener that is full', () => {
  it('of connections that have had their replies: the next visitor is served, the longest idle ends in order', async () => {
    const { ingress } = await start({ limits: { maxConnections: 3 } });
    const crowd: RawClient[] = [];
    for (let i = 0; i < 3; i++) {
      const client = await ingress.connect();
      await client.request(request('GET /'));
      crowd.push(client);
    }
    await served(ingress);
    assert.deepEqual(await crowd[0]!.rest(), { text: '', clean: true });
    assert.equal((await crowd[2]!.request(request('GET /'))).body, 'ok');
  });

  it('of handshakes that do not go on, and of connections that say nothing: the next visitor is served', async () => {
    const { ingress } = await start({ limits: { maxConnections: 4, handshakeTimeoutMs: 1_000_000 } });
    const silent = ['', '\x16\x03\x01\x02\x00\x01\x00', '', ''].map((text) => {
      const socket = connectTcp(ingress.port, '127.0.0.1').on('error', () => {});
      socket.write(text, 'latin1');
      return socket.resume();
    });
    await Promise.all(silent.map((socket) => once(socket, 'connect')));
    await served(ingress);
    for (const socket of silent) socket.destroy();
  });

  it('of request heads that do not go on: the next visitor is served', async () => {
    const { ingress } = await start({ limits: { maxConnections: 2, headerTimeoutMs: 1_000_000 } });
    const slow = [await ingress.connect(), await ingress.connect()];
    for (const client of slow) client.send('GET / HT');
    await served(ingress);
  });

  it('of HTTP/2 connections without streams: the next visitor is served, and one is told by GOAWAY', async () => {
    const { ingress } = await start({ limits: { maxConnections: 2 } });
    const one = await ingress.connect({ ALPNProtocols: ['h2'] });
    const frames = createFrameClient(one.socket);
    await frames.next((frame) => frame.type === frameType.settings);
    const two = await ingress.connect({ ALPNProtocols: ['h2'] });
    createFrameClient(two.socket);
    await served(ingress);
    const goaway = await frames.next((frame) => frame.type === frameType.goaway);
    assert.equal(goaway.payload.readUInt32BE(4), 0);
    two.socket.destroy();
  });

  for (const protocol of ['tcp', 'auto'] as const) {
    describe(`of raw bytes to ${protocol === 'tcp' ? 'a tcp:// upstream' : 'a bare host:port'}`, () => {
      it('when all are silent the next client is served, and the one that has waited longest ends in order', async () => {
        const { ingress } = await startRaw(protocol, { maxConnections: 2 });
        const first = await ingress.connect();
        const second = await ingress.connect();
        await echoed(ingress);
        assert.deepEqual(await first.rest(), { text: '', clean: true });
        second.socket.destroy();
      });

      it('when both sides have been silent for as long as a client may pause, the next client is served', async () => {
        const { ingress } = await startRaw(protocol, { maxConnections: 2, keepAliveTimeoutMs: 500 });
        const first = await echoed(ingress);
        const second = await echoed(ingress);
        await echoed(ingress);
        assert.equal((await first.rest()).clean, true);
        second.socket.destroy();
      });

      it('when something was said a moment ago no connection is ended, and the next client is turned away', async () => {
        const { ingress } = await startRaw(protocol, { maxConnections: 2, keepAliveTimeoutMs: 1_000_000 });
        const lively = [await echoed(ingress), await echoed(ingress)];
        for (let i = 0; i < 5; i++) await assert.rejects(ingress.connect());
        for (const client of lively) await echo(client);
      });
    });
  }

  it('a request that waits for its reply is never ended, whether others are idle or not', async () => {
    const { ingress, answer, waiting } = await start({ limits: { maxConnections: 2 } });
    const busy = await ingress.connect();
    busy.send(request('GET /wait'));
    await eventually(() => waiting() === 1);
    for (let i = 0; i < 3; i++) await served(ingress);
    const second = await served(ingress);
    second.send(request('GET /wait'));
    await eventually(() => waiting() === 2);
    await assert.rejects(ingress.connect());
    answer();
    assert.equal((await busy.reply()).body, 'ok');
    assert.equal((await second.reply()).body, 'ok');
  });

  it('behind a proxy that names clients, one client fills it with requests that wait, and another is served', async () => {
    const { ingress, waiting } = await start({
      limits: { maxConnections: 16 },
      proxyProtocol: true,
      trustedProxies: ['127.0.0.1'],
    });
    const from = (address: string) => {
      const socket = connectTcp(ingress.port, '127.0.0.1');
      socket.write(`PROXY TCP4 ${address} 192.0.2.1 1000 443\r\n`);
      return ingress.connect({ socket });
    };
    for (let i = 0; i < 16; i++) {
      const client = await from('192.0.2.66');
      client.send(request('GET /wait'));
      await eventually(() => waiting() === i + 1);
    }
    await assert.rejects(from('192.0.2.66'));
    const other = await from('192.0.2.7');
    assert.equal((await other.request(request('GET /'))).body, 'ok');
  });
});

it('file descriptors run out before the limit: idle connections make room, and visitors are served', async () => {
  const script = fileURLToPath(new URL('../../support/low-descriptors.ts', import.meta.url));
  const child = spawn('sh', ['-c', `ulimit -n 160; exec "${process.execPath}" "${script}"`], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const { port, maxDescriptors } = JSON.parse(line.toString()) as { port: number; maxDescriptors: number };
  assert.equal(maxDescriptors, 160);
  const crowd = Array.from({ length: 300 }, () => connectTcp(port, '127.0.0.1').on('error', () => {}));
  await Promise.all(crowd.map((socket) => once(socket.resume(), 'connect')));
  const { connectRaw } = await import('../../support/proxy.ts');
  for (let served = 0; served < 20; ) {
    const client = await connectRaw(port, { servername: HOST, rejectUnauthorized: false }).catch(
      () => undefined,
    );
    if (client === undefined) continue;
    assert.equal((await client.request(request('GET /'))).body, 'ok');
    served++;
    client.socket.destroy();
  }
  for (const socket of crowd) socket.destroy();
  child.stdin.end();
  await once(child, 'exit');
});
