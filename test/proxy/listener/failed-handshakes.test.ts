// Handshakes that cannot be: what the client is told, and what the log.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { PassThrough } from 'node:stream';
import { after, describe, it } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { createFailedHandshakes } from '../../../proxy/listener/failed-handshakes.ts';
import type { ListenerOptions } from '../../../proxy/listener/listener.ts';
import { createLog } from '../../../src/lib/log.ts';
import { eventually, HOST, request, startIngress } from '../../support/proxy.ts';

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanUp of cleanups.reverse()) await cleanUp();
});

async function setUp(options: Partial<ListenerOptions> = {}) {
  const stream = new PassThrough();
  let text = '';
  stream.on('data', (bytes) => {
    text += bytes;
  });
  const ingress = await startIngress([], { log: createLog({ readable: false, stream }), ...options });
  cleanups.push(ingress.close);
  const notes = () =>
    text
      .split('\n')
      .filter((line) => line.includes('not served'))
      .map((line) => JSON.parse(line) as { level: string; serverName: string; leftOut: number });
  return { ingress, notes };
}

/** All that comes back until the close. */
async function said(port: number, ...pieces: (string | Buffer)[]): Promise<string> {
  const socket = connectTcp(port, '127.0.0.1');
  let text = '';
  socket.on('data', (bytes) => {
    text += bytes.toString('latin1');
  });
  socket.on('error', () => {});
  const closed = new Promise((resolve) => socket.once('close', resolve));
  await once(socket, 'connect');
  socket.setNoDelay(true);
  for (const piece of pieces) {
    socket.write(piece as string, 'latin1');
    await new Promise(setImmediate);
  }
  await closed;
  return text;
}

describe('plain HTTP on the port for TLS', () => {
  for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'CONNECT']) {
    it(`${method} gets 400 and one sentence, and the connection ends`, async () => {
      const { ingress } = await setUp();
      const text = await said(ingress.port, request(`${method} /`));
      assert.match(text, /^HTTP\/1\.1 400 Bad Request\r\n[\s\S]*\r\nConnection: close\r\n/);
      const [head = '', body = ''] = text.split('\r\n\r\n');
      assert.match(body, /^[^\n]*HTTPS[^\n]*\n$/);
      assert.match(head, new RegExp(`Content-Length: ${body.length}\\b`));
    });
  }

  it('gets it behind a PROXY header as well, in one piece with it or not', async () => {
    const { ingress } = await setUp({ proxyProtocol: true, trustedProxies: ['127.0.0.1'] });
    const header = 'PROXY TCP4 192.0.2.7 192.0.2.1 1234 443\r\n';
    assert.match(await said(ingress.port, header + request('GET /')), /^HTTP\/1\.1 400 /);
    assert.match(await said(ingress.port, header, request('GET /')), /^HTTP\/1\.1 400 /);
  });

  it('gets it when its first bytes come one by one', async () => {
    const { ingress } = await setUp();
    assert.match(await said(ingress.port, 'G', 'E', 'T', request('GET /').slice(3)), /^HTTP\/1\.1 400 /);
  });

  it('but bytes that are neither get no answer in the clear', async () => {
    const { ingress } = await setUp();
    for (const bytes of [
      'junk junk junk\r\n',
      '\0\x01\x02\x03\x04\x05\x06\x07',
      'SSH-2.0-client\r\n',
      '\x16\x03\x01\0\x05GET /',
    ]) {
      assert.doesNotMatch(await said(ingress.port, bytes), /HTTP/);
    }
  });
});

describe('a name that is not served', () => {
  async function shake(port: number, servername: string, maxVersion: 'TLSv1.2' | 'TLSv1.3'): Promise<void> {
    const socket = connectTls({ host: '127.0.0.1', port, servername, maxVersion, rejectUnauthorized: false });
    await assert.rejects(once(socket, 'secureConnect'));
  }

  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    for (const servername of ['evil.example', '']) {
      it(`${servername || 'none'} leaves one line, however many ask (${maxVersion})`, async () => {
        const { ingress, notes } = await setUp();
        for (let i = 0; i < 20; i++) await shake(ingress.port, servername, maxVersion);
        await eventually(() => notes().length > 0);
        assert.deepEqual(
          notes().map(({ level, serverName, leftOut }) => [level, serverName, leftOut]),
          [['info', servername, 0]],
        );
      });
    }
  }

  it('is not logged for a name that is served when no cipher was agreed on', async () => {
    const { ingress, notes } = await setUp();
    const ciphers = 'ECDHE-ECDSA-AES128-SHA256';
    const socket = connectTls({
      host: '127.0.0.1',
      port: ingress.port,
      servername: HOST,
      maxVersion: 'TLSv1.2',
      ciphers,
    });
    await assert.rejects(once(socket, 'secureConnect'));
    await shake(ingress.port, 'evil.example', 'TLSv1.3');
    await eventually(() => notes().length > 0);
    assert.deepEqual(
      notes().map(({ serverName }) => serverName),
      ['evil.example'],
    );
  });

  it('is written a minute later with the count of those in between, and as a terminal can show it', () => {
    const lines: Record<string, unknown>[] = [];
    let now = 0;
    const log = createLog({ level: 'silent' });
    const { failed } = createFailedHandshakes({
      isServed: () => false,
      now: () => now,
      log: Object.assign(Object.create(log), {
        info: (fields: Record<string, unknown>) => lines.push(fields),
      }),
    });
    const error = Object.assign(new Error('x'), { code: 'ERR_SSL_NO_SHARED_CIPHER' });
    const ask = (servername: string) => failed(error, { servername, destroy() {} } as unknown as TLSSocket);
    ask('a\x1b[2J\n.example');
    for (let i = 0; i < 1_000; i++) ask(`${i}.example`);
    now = 59_999;
    ask('b.example');
    now = 60_000;
    ask('c'.repeat(5_000));
    assert.deepEqual(lines, [
      { serverName: 'a?[2J?.example', leftOut: 0 },
      { serverName: `${'c'.repeat(253)}...`, leftOut: 1_001 },
    ]);
  });
});
