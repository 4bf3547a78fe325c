// Accepting connections: whose certificate, which protocol, from whom, how many, and an orderly end.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { createConnectionCounts, REQUESTS } from '../../../proxy/listener/counts.ts';
import { createListener, type ListenerOptions } from '../../../proxy/listener/listener.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { ask } from '../../support/http2-ingress.ts';
import {
  answering,
  appCertificate,
  eventually,
  HOST,
  type Ingress,
  makeCertificate,
  type RawClient,
  rawClient,
  request,
  routeTo,
  settingsFor,
  startIngress,
  startUpstream,
} from '../../support/proxy.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

async function setUp(
  options: Partial<ListenerOptions> = {},
  answer: (head: string) => string | undefined = () => OK,
) {
  const seen: string[] = [];
  const upstream = await startUpstream(
    answering((head) => {
      seen.push(head);
      return answer(head);
    }),
  );
  cleanups.push(upstream.close);
  const ingress = await startIngress(
    [routeTo(settingsFor(upstream.port)), routeTo(settingsFor(upstream.port), '*.wild.example.com')],
    options,
  );
  cleanups.push(ingress.close);
  return { upstream, ingress, seen };
}

/** Resolves with the certificate shown, or rejects with what the handshake failed of. */
async function shake(
  port: number,
  options: ConnectionOptions,
): Promise<{ socket: TLSSocket; shown: X509Certificate }> {
  const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false, ...options });
  await once(socket, 'secureConnect');
  const shown = socket.getPeerX509Certificate()!;
  socket.on('error', () => {});
  return { socket, shown };
}

function names(certificate: X509Certificate): string {
  return certificate.subjectAltName ?? '';
}

describe('a name that is not served', async () => {
  const { ingress } = await setUp();

  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    for (const servername of ['evil.example', 'a.b.wild.example.com', 'wild.example.com', '']) {
      it(`${servername || 'none'} gets an alert and nobody's certificate (${maxVersion})`, async () => {
        await assert.rejects(shake(ingress.port, { servername, maxVersion }), /alert/i);
      });
    }
  }

  it('but an exact name and one label under a wildcard get theirs', async () => {
    for (const servername of [HOST, HOST.toUpperCase(), 'x.wild.example.com']) {
      const { socket, shown } = await shake(ingress.port, { servername });
      assert.match(names(shown), /app\.example\.com/);
      socket.destroy();
    }
  });

  it('weak versions and ciphers are refused', async () => {
    await assert.rejects(
      shake(ingress.port, {
        servername: HOST,
        maxVersion: 'TLSv1.1',
        minVersion: 'TLSv1',
        ciphers: 'DEFAULT@SECLEVEL=0',
      }),
    );
    await assert.rejects(
      shake(ingress.port, { servername: HOST, maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-SHA256' }),
      /alert/i,
    );
  });

  it('a protocol that is not offered is refused', async () => {
    await assert.rejects(shake(ingress.port, { servername: HOST, ALPNProtocols: ['smtp'] }), /alert/i);
  });
});

describe('a renewed certificate', () => {
  it('serves the next handshake, and open connections live on', async () => {
    const { ingress } = await setUp();
    const open = await ingress.connect();
    await open.request(request('GET /'));
    const renewed = await makeCertificate([HOST]);
    ingress.listener.setCertificates([renewed]);
    const { socket, shown } = await shake(ingress.port, { servername: HOST });
    assert.equal(shown.fingerprint256, new X509Certificate(renewed.chain).fingerprint256);
    socket.destroy();
    assert.equal((await open.request(request('GET /'))).body, 'ok');
  });

  it('that does not load throws, and the one before goes on serving', async () => {
    const { ingress } = await setUp();
    const other = await makeCertificate([HOST]);
    for (const broken of [
      { ...other, chain: 'nonsense' },
      { ...other, key: appCertificate.key },
      { ...other, key: 'nonsense' },
      { ...other, names: ['someone.else.example'] },
    ]) {
      assert.throws(() => ingress.listener.setCertificates([other, broken]), { code: 'certificate-refused' });
      const { socket, shown } = await shake(ingress.port, { servername: HOST });
      assert.equal(shown.fingerprint256, new X509Certificate(appCertificate.chain).fingerprint256);
      socket.destroy();
    }
  });

  it('is not outlived by sessions of the one before', async () => {
    const { ingress } = await setUp();
    const { socket } = await shake(ingress.port, { servername: HOST });
    const [session] = (await once(socket, 'session')) as [Buffer];
    socket.destroy();
    const again = await shake(ingress.port, { servername: HOST, session });
    assert.equal(again.socket.isSessionReused(), true);
    again.socket.destroy();
    ingress.listener.setCertificates([await makeCertificate([HOST])]);
    const late = await shake(ingress.port, { servername: HOST, session });
    assert.equal(late.socket.isSessionReused(), false);
    late.socket.destroy();
  });

  it('of a name that is no longer served ends what resumes it', async () => {
    const ticketKeys = Buffer.alloc(48, 7);
    const { ingress } = await setUp({ ticketKeys });
    const { socket } = await shake(ingress.port, { servername: HOST });
    const [session] = (await once(socket, 'session')) as [Buffer];
    socket.destroy();
    ingress.listener.setCertificates([await makeCertificate(['other.example.com'])]);
    const resumed = shake(ingress.port, { servername: HOST, session }).then(({ socket: late }) =>
      once(late, 'close'),
    );
    // Refused in the handshake or closed after it: what must not happen is that it stays.
    await resumed.catch(() => {});
  });
});

describe('sessions', () => {
  it('resume in every process that has the same ticket keys', async () => {
    const ticketKeys = Buffer.alloc(48, 9);
    const [one, two] = [await setUp({ ticketKeys }), await setUp({ ticketKeys })];
    const { socket } = await shake(one.ingress.port, { servername: HOST });
    const [session] = (await once(socket, 'session')) as [Buffer];
    socket.destroy();
    const resumed = await shake(two.ingress.port, { servername: HOST, session });
    assert.equal(resumed.socket.isSessionReused(), true);
    resumed.socket.destroy();
    two.ingress.listener.setTicketKeys(Buffer.alloc(48, 10));
    const fresh = await shake(two.ingress.port, { servername: HOST, session });
    assert.equal(fresh.socket.isSessionReused(), false);
    fresh.socket.destroy();
  });
});

describe('a tls-alpn-01 challenge', async () => {
  const challenge = async (domain: string) => {
    const made = await makeCertificate([domain]);
    return { cert: made.chain, key: made.key };
  };

  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`is shown to acme-tls/1 alone, beside a live certificate and without one (${maxVersion})`, async () => {
      const { ingress } = await setUp();
      for (const domain of [HOST, 'new.example.org']) {
        const options = { servername: domain, ALPNProtocols: ['acme-tls/1'], maxVersion };
        await assert.rejects(shake(ingress.port, options), /alert/i, 'before there is a challenge');
        const own = await challenge(domain);
        ingress.listener.setChallenge(domain, own);
        const { socket, shown } = await shake(ingress.port, options);
        assert.equal(shown.fingerprint256, new X509Certificate(own.cert).fingerprint256);
        assert.equal(socket.alpnProtocol, 'acme-tls/1');
        socket.resume();
        await once(socket, 'end');
        socket.destroy();
        ingress.listener.setChallenge(domain, undefined);
        await assert.rejects(shake(ingress.port, options), /alert/i, 'after it is over');
      }
    });

    it(`leaves everyone else their certificate (${maxVersion})`, async () => {
      const { ingress } = await setUp();
      ingress.listener.setChallenge(HOST, await challenge(HOST));
      for (const ALPNProtocols of [undefined, ['http/1.1'], ['h2', 'http/1.1']]) {
        const { socket, shown } = await shake(ingress.port, {
          servername: HOST,
          maxVersion,
          ...(ALPNProtocols && { ALPNProtocols }),
        });
        assert.equal(shown.fingerprint256, new X509Certificate(appCertificate.chain).fingerprint256);
        socket.destroy();
      }
    });
  }

  it('that does not load throws', async () => {
    const { ingress } = await setUp();
    assert.throws(() => ingress.listener.setChallenge(HOST, { cert: 'x', key: 'y' }), {
      code: 'certificate-refused',
    });
  });
});

describe('PROXY headers', async () => {
  const trusted = { proxyProtocol: true, trustedProxies: ['127.0.0.1'] };

  async function connectBehind(
    port: number,
    header: string | Buffer,
    pieces = false,
    options: ConnectionOptions = {},
  ): Promise<RawClient> {
    const socket = connectTcp(port, '127.0.0.1');
    await once(socket, 'connect');
    socket.setNoDelay(true);
    if (pieces) {
      for (const byte of Buffer.from(header as string, 'latin1')) {
        socket.write(Buffer.of(byte));
        await new Promise(setImmediate);
      }
    } else socket.write(header);
    const secure = connectTls({ socket, servername: HOST, ca: appCertificate.chain, ...options });
    await once(secure, 'secureConnect');
    return rawClient(secure);
  }

  const version2 = (family: number, addresses: number[], command = 0x21) =>
    Buffer.concat([
      Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1'),
      Buffer.from([command, family, addresses.length >> 8, addresses.length & 0xff, ...addresses]),
    ]);
  const tcp4 = [192, 0, 2, 7, 192, 0, 2, 1, 4, 210, 32, 251];
  const named = 'PROXY TCP4 192.0.2.7 192.0.2.1 1234 8443\r\n';

  for (const [what, header, client, port] of [
    ['version 1, IPv4', 'PROXY TCP4 192.0.2.7 192.0.2.1 1234 8443\r\n', '192.0.2.7', '8443'],
    ['version 1, IPv6', 'PROXY TCP6 2001:db8::7 2001:db8::1 1234 8443\r\n', '2001:db8::7', '8443'],
    ['version 1, unknown', 'PROXY UNKNOWN\r\n', '127.0.0.1', undefined],
    ['version 2, IPv4', version2(0x11, [192, 0, 2, 7, 192, 0, 2, 1, 4, 210, 32, 251]), '192.0.2.7', '8443'],
    [
      'version 2, IPv6',
      version2(0x21, [0x20, 1, 0x0d, 0xb8, ...Array(11).fill(0), 7, ...Array(16).fill(1), 4, 210, 32, 251]),
      '2001:db8::7',
      '8443',
    ],
    [
      'version 2, with a TLV',
      version2(0x11, [192, 0, 2, 7, 192, 0, 2, 1, 4, 210, 32, 251, 4, 0, 1, 0]),
      '192.0.2.7',
      '8443',
    ],
    ['version 2, local', version2(0x00, [], 0x20), '127.0.0.1', undefined],
    ['version 2, 600 bytes of TLVs', version2(0x11, [...tcp4, ...Array(600).fill(4)]), '192.0.2.7', '8443'],
    [
      'version 2, 1,500 bytes of TLVs',
      version2(0x11, [...tcp4, ...Array(1_500).fill(4)]),
      '192.0.2.7',
      '8443',
    ],
    ['version 2, 4 KiB', version2(0x11, [...tcp4, ...Array(4_084).fill(4)]), '192.0.2.7', '8443'],
    ['version 2, UDP over IPv4', version2(0x12, tcp4), '127.0.0.1', undefined],
    ['version 2, UDP over IPv6', version2(0x22, Array(36).fill(1)), '127.0.0.1', undefined],
    ['version 2, a UNIX stream', version2(0x31, Array(216).fill(47)), '127.0.0.1', undefined],
    ['version 2, UNIX datagrams with TLVs', version2(0x32, Array(800).fill(47)), '127.0.0.1', undefined],
  ] as const) {
    it(`${what}: the client is who it says, coalesced with the handshake or byte by byte`, async () => {
      const { ingress, seen } = await setUp(trusted);
      for (const pieces of [false, true]) {
        const connection = await connectBehind(ingress.port, header, pieces);
        await connection.request(request('GET /'));
        const head = seen.at(-1)!;
        assert.match(head, new RegExp(`\\r\\nx-forwarded-for: ${client.replaceAll('.', '\\.')}\\r\\n`));
        if (port !== undefined) assert.match(head, new RegExp(`\\r\\nx-forwarded-port: ${port}\\r\\n`));
        connection.socket.destroy();
      }
    });
  }

  for (const [attack, bytes] of [
    ['no header', '\x16\x03\x01\x02\x00\x01'],
    ['an address that is none', 'PROXY TCP4 localhost 192.0.2.1 1 2\r\n'],
    ['an IPv6 address as IPv4', 'PROXY TCP4 ::1 ::1 1 2\r\n'],
    ['a port that is none', 'PROXY TCP4 192.0.2.7 192.0.2.1 65536 2\r\n'],
    ['too many words', 'PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n'],
    ['no end within 107 bytes', `PROXY UNKNOWN ${'a'.repeat(120)}`],
    ['another version', version2(0x11, [192, 0, 2, 7, 192, 0, 2, 1, 4, 210, 32, 251], 0x31)],
    ['an unknown command', version2(0x11, [192, 0, 2, 7, 192, 0, 2, 1, 4, 210, 32, 251], 0x22)],
    ['addresses that are too short', version2(0x11, [192, 0, 2, 7])],
    ['an unknown family', version2(0x41, tcp4)],
    ['an unknown transport', version2(0x13, tcp4)],
    ['more than 4 KiB', version2(0x11, [...tcp4, ...Array(4_085).fill(4)])],
    [
      'a size beyond all sense',
      Buffer.concat([Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1'), Buffer.from([0x21, 0x11, 255, 255])]),
    ],
  ] as const) {
    it(`${attack}: closed`, async () => {
      const { ingress } = await setUp(trusted);
      await closedAfter(connectTcp(ingress.port, '127.0.0.1'), bytes);
    });
  }

  /** What the app is told, of a client that claims to be many, over each protocol. */
  async function toldBehind(ingress: Ingress, seen: string[], header: string | Buffer) {
    const claims = {
      'x-real-ip': '192.0.2.66',
      'x-forwarded-for': '192.0.2.66',
      'x-forwarded-host': 'evil.example',
      'x-forwarded-proto': 'gopher',
      'x-forwarded-port': '6666',
      forwarded: 'for=192.0.2.66;host=evil.example;proto=gopher',
    };
    const one = await connectBehind(ingress.port, header);
    await one.request(request('GET /', ...Object.entries(claims).map((field) => field.join(': '))));
    one.socket.destroy();
    const two = await connectBehind(ingress.port, header, false, { ALPNProtocols: ['h2'] });
    const session = connectHttp2(`https://${HOST}`, { createConnection: () => two.socket });
    await once(session.request({ ':path': '/', ...claims }), 'response');
    session.destroy();
    return seen.slice(-2);
  }

  for (const header of [named, version2(0x11, tcp4), 'PROXY UNKNOWN\r\n', version2(0, [], 0x20)]) {
    it(`${JSON.stringify(header.toString('latin1'))} vouches for the address, and for no field of a request`, async () => {
      for (const trustedForwarders of [undefined, ['127.0.0.1']]) {
        const { ingress, seen } = await setUp({
          ...trusted,
          ...(trustedForwarders && { trustedForwarders }),
        });
        const heads = await toldBehind(ingress, seen, header);
        assert.equal(heads.length, 2);
        for (const head of heads) {
          assert.doesNotMatch(head, /192\.0\.2\.66|evil|gopher|6666/);
          assert.match(head, /\r\nx-real-ip: (?:192\.0\.2\.7|127\.0\.0\.1)\r\n/);
        }
      }
    });
  }

  it('that name a proxy which ends TLS before us: its fields are believed, and those of no other address', async () => {
    const { ingress, seen } = await setUp({ ...trusted, trustedForwarders: ['192.0.2.7'] });
    for (const head of await toldBehind(ingress, seen, named)) {
      assert.match(head, /\r\nx-forwarded-for: 192\.0\.2\.66, 192\.0\.2\.7\r\n/);
      assert.match(head, /\r\nx-forwarded-host: evil\.example\r\n/);
      assert.match(head, /\r\nx-real-ip: 192\.0\.2\.66\r\n/);
    }
    const other = 'PROXY TCP4 192.0.2.8 192.0.2.1 1234 8443\r\n';
    for (const head of await toldBehind(ingress, seen, other)) assert.doesNotMatch(head, /192\.0\.2\.66/);
  });

  it('from an address that is not trusted: closed', async () => {
    const { ingress } = await setUp({ proxyProtocol: true, trustedProxies: ['192.0.2.0/24'] });
    await closedAfter(connectTcp(ingress.port, '127.0.0.1'), 'PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n');
  });

  it('that never comes: closed', async () => {
    const { ingress } = await setUp({ ...trusted, limits: { handshakeTimeoutMs: 100 } });
    await closedAfter(connectTcp(ingress.port, '127.0.0.1'), 'PROXY');
  });

  it('when none is expected the connection is closed', async () => {
    const { ingress } = await setUp();
    await closedAfter(connectTcp(ingress.port, '127.0.0.1'), 'PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n');
  });
});

async function closedAfter(socket: Socket, bytes: string | Buffer): Promise<void> {
  socket.on('error', () => {});
  socket.resume();
  socket.on('connect', () => socket.write(bytes as string, 'latin1'));
  await once(socket, 'close');
}

describe('what is no TLS', async () => {
  const { ingress } = await setUp({ limits: { handshakeTimeoutMs: 100 } });

  it('plain HTTP: closed', () => closedAfter(connectTcp(ingress.port, '127.0.0.1'), request('GET /')));
  it('a handshake that stalls: closed', () =>
    closedAfter(connectTcp(ingress.port, '127.0.0.1'), '\x16\x03\x01\x02\x00\x01\x00'));
  it('silence: closed', () => closedAfter(connectTcp(ingress.port, '127.0.0.1'), ''));
});

describe('limits', () => {
  it('more connections than allowed, of which none is idle, are closed, and the others are served', async () => {
    const sockets: Socket[] = [];
    const upstream = await startUpstream((socket) => {
      sockets.push(socket);
    });
    cleanups.push(upstream.close);
    const ingress = await startIngress([routeTo(settingsFor(upstream.port))], {
      limits: { maxConnections: 2 },
    });
    cleanups.push(ingress.close);
    const [one, two] = [await ingress.connect(), await ingress.connect()];
    for (const client of [one, two]) client.send(request('GET /'));
    await eventually(() => sockets.length === 2);
    await closedAfter(connectTcp(ingress.port, '127.0.0.1'), '');
    for (const socket of sockets) socket.write(OK);
    for (const client of [one, two]) assert.equal((await client.reply()).body, 'ok');
  });

  it('a connection that ends before its handshake frees its place', async () => {
    const { ingress } = await setUp({ limits: { maxConnections: 1, handshakeTimeoutMs: 1_000_000 } });
    for (const text of ['', '\x16\x03\x01\x02\x00\x01\x00']) {
      const socket = connectTcp({ port: ingress.port, host: '127.0.0.1', allowHalfOpen: true });
      await once(socket, 'connect');
      socket.end(text, 'latin1');
      socket.resume();
      await once(socket, 'end');
      socket.destroy();
    }
    // The last place is free a moment after its client has seen the end.
    let client: RawClient | undefined;
    while (client === undefined) client = await ingress.connect().catch(() => undefined);
    assert.equal((await client.request(request('GET /'))).body, 'ok');
  });

  it('a port that is taken is an error of listen()', async () => {
    const { ingress } = await setUp();
    const second = createListener({ host: '127.0.0.1', port: ingress.port, log: silentLog });
    await assert.rejects(second.listen(), { code: 'EADDRINUSE' });
  });

  it('several listeners share a port when asked to', async () => {
    const { ingress } = await setUp({ reusePort: true });
    const second = createListener({ host: '127.0.0.1', port: ingress.port, reusePort: true, log: silentLog });
    assert.equal((await second.listen()).port, ingress.port);
    await second.drain(0);
  });
});

it('requests are counted, whatever their protocol and whatever becomes of them', async () => {
  const counts = createConnectionCounts();
  const { ingress } = await setUp({ counts });
  const client = await ingress.connect();
  assert.equal((await client.request(request('GET /'))).status, 200);
  assert.equal((await client.request(request('GET /').replace(HOST, 'elsewhere.example'))).status, 421);
  const session = connectHttp2(`https://${HOST}:${ingress.port}`, {
    rejectUnauthorized: false,
    servername: HOST,
    lookup: (_host: string, options: { all?: boolean }, done: (...args: unknown[]) => void) =>
      options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4),
  } as object);
  for (let i = 0; i < 3; i++) assert.equal((await ask(session)).headers[':status'], 200);
  session.destroy();
  assert.equal(counts[REQUESTS], 5);
  const garbled = await ingress.connect();
  assert.equal((await garbled.request('what is this\r\n\r\n')).status, 400);
  assert.equal(counts[REQUESTS], 6);
});

describe('draining', () => {
  it('ends idle connections, lets open exchanges finish with Connection: close, and takes no new ones', async () => {
    let answer: (reply: string) => void = () => {};
    const upstream = await startUpstream((socket) => {
      answer = (reply) => void socket.write(reply);
    });
    cleanups.push(upstream.close);
    const ingress = await startIngress([routeTo(settingsFor(upstream.port))]);
    const [idle, busy] = [await ingress.connect(), await ingress.connect()];
    busy.send(request('GET /'));
    await eventually(() => upstream.sockets.size === 1);
    const drained = ingress.listener.drain(60_000);
    assert.deepEqual(await idle.rest(), { text: '', clean: true });
    await assert.rejects(ingress.connect(), { code: 'ECONNREFUSED' });
    answer(OK);
    const { head, body } = await busy.reply();
    assert.match(head, /\r\nConnection: close\r\n/);
    assert.equal(body, 'ok');
    await drained;
  });

  it('says goodbye to HTTP/2 sessions', async () => {
    const { ingress } = await setUp();
    const session = connectHttp2(`https://${HOST}:${ingress.port}`, {
      ca: appCertificate.chain,
      servername: HOST,
      lookup: (_host: string, options: { all?: boolean }, done: (...args: unknown[]) => void) =>
        options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4),
    } as object);
    await once(session, 'connect');
    const goodbye = once(session, 'close');
    await ingress.listener.drain(60_000);
    await goodbye;
  });

  it('destroys what is left at the deadline', async () => {
    const { ingress, upstream } = await setUp({}, () => undefined);
    const client = await ingress.connect();
    client.send(request('GET /'));
    await eventually(() => upstream.sockets.size === 1);
    await ingress.listener.drain(50);
    assert.equal((await client.rest()).text, '');
    await eventually(() => upstream.sockets.size === 0);
  });
});
