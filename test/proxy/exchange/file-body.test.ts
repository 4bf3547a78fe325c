// Files are read into memory that is used anew: what one client gets is never what another one was sent.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { FileBody } from '../../../proxy/exchange/file-body.ts';
import { createListener, type Listener } from '../../../proxy/listener/listener.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { readNginxFiles } from '../../../src/routes/nginx/read.ts';
import { makeCertificate } from '../../support/proxy.ts';

const HOST = 'files.example.com';
const BYTES = 2 * 1024 * 1024 + 12_345;
const folder = mkdtempSync(join(tmpdir(), 'file-body-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** No two of its blocks are alike, nor are those of two seeds. */
function content(seed: string): Buffer {
  const blocks = Array.from({ length: Math.ceil(BYTES / 32) }, (_, i) =>
    createHash('sha256').update(`${seed} ${i}`).digest(),
  );
  return Buffer.concat(blocks).subarray(0, BYTES);
}

const contents = ['a', 'b', 'c'].map((name) => ({ name, bytes: content(name) }));
for (const { name, bytes } of contents) writeFileSync(join(folder, name), bytes);

async function allLent(body: FileBody, most: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (;;) {
    const piece = await body.nextLent(most);
    if (piece === undefined) return Buffer.concat(pieces);
    assert.ok(piece.length <= most);
    pieces.push(Buffer.from(piece));
  }
}

describe('a body from a file', () => {
  it('lends the bytes of its parts in order, however small the pieces', async () => {
    const { bytes } = contents[0]!;
    const between = Buffer.from('-- between --');
    for (const most of [1_000_000, 65_536, 60_001]) {
      const parts = [{ start: 5, end: 900_001 }, between, { start: 0, end: BYTES }];
      const body = new FileBody(await open(join(folder, 'a')), parts);
      const expected = Buffer.concat([bytes.subarray(5, 900_001), between, bytes]);
      assert.ok((await allLent(body, most)).equals(expected));
    }
  });

  it('never lends memory again into which a read is still under way', async () => {
    const given = new FileBody(await open(join(folder, 'a')), [{ start: 0, end: BYTES }]);
    await given.nextLent(Number.POSITIVE_INFINITY);
    const reading = given.nextLent(Number.POSITIVE_INFINITY);
    given.destroy();
    const next = new FileBody(await open(join(folder, 'b')), [{ start: 0, end: BYTES }]);
    const [read] = await Promise.all([allLent(next, 65_536), reading]);
    assert.ok(read.equals(contents[1]!.bytes));
  });

  it('ends too early where the file has been cut short', async () => {
    const path = join(folder, 'short');
    writeFileSync(path, contents[0]!.bytes);
    const body = new FileBody(await open(path), [{ start: 0, end: BYTES }]);
    await body.nextLent(1_000);
    truncateSync(path, 300_000);
    const rest = await allLent(body, 65_536);
    assert.ok(rest.length + 1_000 < BYTES);
  });
});

describe('files for several clients at once, some of which stop and go', () => {
  let listener: Listener;
  let port: number;
  let ca: string;
  before(async () => {
    const text = `server { listen 443 ssl; server_name ${HOST}; root ${folder}; }`;
    const access = { readFile: () => text, listFolder: () => ['a.conf'] };
    const { rules, mistakes } = readNginxFiles('/c', access);
    assert.deepEqual(mistakes, []);
    const certificate = await makeCertificate([HOST]);
    ca = certificate.chain;
    listener = createListener({ host: '127.0.0.1', port: 0, log: silentLog });
    listener.setCertificates([certificate]);
    listener.setRoutes([], rules);
    ({ port } = await listener.listen());
  });
  after(async () => {
    await listener?.drain(0);
  });

  async function read(stream: Readable, pauses: boolean): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for await (const piece of stream as AsyncIterable<Buffer>) {
      pieces.push(piece);
      if (pauses && pieces.length % 16 === 1) await sleep(2);
    }
    return Buffer.concat(pieces);
  }

  async function overHttp1(path: string, pauses: boolean): Promise<Buffer> {
    const asked = request({ host: '127.0.0.1', port, servername: HOST, ca, path, agent: false });
    asked.setHeader('host', HOST);
    asked.end();
    const [reply] = (await once(asked, 'response')) as [Readable];
    return read(reply, pauses);
  }

  function overHttp2(session: ClientHttp2Session, path: string, pauses: boolean): Promise<Buffer> {
    return read(session.request({ ':path': path, ':authority': HOST }), pauses);
  }

  it('each gets its own, whole, over HTTP/1.1 and HTTP/2', async () => {
    const session = connectHttp2(`https://127.0.0.1:${port}`, { servername: HOST, ca });
    try {
      const asked = contents.flatMap(({ name, bytes }) =>
        [true, false].flatMap((pauses) => [
          overHttp1(`/${name}`, pauses).then((got) => got.equals(bytes)),
          overHttp2(session, `/${name}`, pauses).then((got) => got.equals(bytes)),
        ]),
      );
      assert.ok((await Promise.all(asked)).every((equal) => equal));
    } finally {
      session.destroy();
    }
  });
});
