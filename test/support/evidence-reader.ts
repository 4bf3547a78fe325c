// A stranger who reads evidence: over one connection, with what he sees of its TLS, and what he computes himself.

import assert from 'node:assert/strict';
import { constants, createHash, randomBytes, verify, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect, type TLSSocket } from 'node:tls';

export interface Target {
  readonly port: number;
  readonly servername: string;
  readonly ca: string;
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export interface Reader {
  /** As it came with the handshake. */
  readonly certificate: X509Certificate;
  /** The keying material of an attest answer, hex. */
  readonly exporter: string;
  get(path: string): Promise<Answer>;
  close(): void;
}

const sha256 = (...parts: (string | Uint8Array)[]) => hashOf('sha256', parts);
const sha512 = (...parts: (string | Uint8Array)[]) => hashOf('sha512', parts);

function hashOf(algorithm: string, parts: readonly (string | Uint8Array)[]): Buffer {
  const hash = createHash(algorithm);
  for (const part of parts) hash.update(part);
  return hash.digest();
}

/** Takes one answer after the other from the bytes of a connection; ours always come with their length. */
export async function readHttp1(
  target: Target,
  maxVersion: 'TLSv1.2' | 'TLSv1.3' = 'TLSv1.3',
): Promise<Reader> {
  const { port, servername, ca } = target;
  const socket = connect({
    host: '127.0.0.1',
    port,
    servername,
    ca,
    maxVersion,
    ALPNProtocols: ['http/1.1'],
  });
  await once(socket, 'secureConnect');
  const chunks: Buffer[] = [];
  let wake = () => {};
  let over = false;
  socket.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    wake();
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    over = true;
    wake();
  });

  async function until<T>(find: (all: Buffer) => T | undefined): Promise<T> {
    for (;;) {
      const all = Buffer.concat(chunks.splice(0));
      chunks.push(all);
      const found = find(all);
      if (found !== undefined) return found;
      if (over) throw new Error(`the connection ended after ${all.length} bytes of an answer`);
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }

  return {
    ...seenOn(socket),
    async get(path) {
      socket.write(`GET ${path} HTTP/1.1\r\nHost: ${servername}\r\n\r\n`);
      const end = await until((all) =>
        all.indexOf('\r\n\r\n') === -1 ? undefined : all.indexOf('\r\n\r\n'),
      );
      const head = chunks[0]!.subarray(0, end).toString('latin1').split('\r\n');
      const headers = Object.fromEntries(
        head.slice(1).map((line) => {
          const colon = line.indexOf(':');
          return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
        }),
      );
      const length = Number(headers['content-length'] ?? 0);
      const whole = await until((all) => (all.length < end + 4 + length ? undefined : all));
      chunks.splice(0, chunks.length, whole.subarray(end + 4 + length));
      return {
        status: Number(head[0]!.slice(9, 12)),
        headers,
        body: whole.subarray(end + 4, end + 4 + length),
      };
    },
    close: () => socket.destroy(),
  };
}

/** Its requests may be under way at once. */
export async function readHttp2(target: Target): Promise<Reader> {
  const { port, servername, ca } = target;
  const session = connectHttp2(`https://127.0.0.1:${port}`, { servername, ca });
  session.on('error', () => {});
  await once(session, 'connect');
  return {
    ...seenOn(session.socket as TLSSocket),
    get: (path) => getHttp2(session, servername, path),
    close: () => session.destroy(),
  };
}

async function getHttp2(session: ClientHttp2Session, authority: string, path: string): Promise<Answer> {
  const stream = session.request({ ':path': path, ':authority': authority });
  const [head] = await once(stream, 'response');
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part as Buffer);
  const { ':status': status, ...headers } = head as Record<string, string>;
  return { status: Number(status), headers, body: Buffer.concat(parts) };
}

function seenOn(socket: TLSSocket) {
  return {
    certificate: socket.getPeerX509Certificate()!,
    exporter: socket
      .exportKeyingMaterial(32, 'EXPORTER-dstack-ingress-attest', Buffer.alloc(0))
      .toString('hex'),
  };
}

export interface Read {
  readonly sums: string;
  readonly files: ReadonlyMap<string, Buffer>;
  readonly quote: { readonly quote: string; readonly event_log: string; readonly report_data: string };
}

/** What sha256sum.txt lists, and the quote. */
export async function readBundle(reader: Reader, pause: () => Promise<void> = async () => {}): Promise<Read> {
  const take = async (name: string) => {
    const { status, body } = await reader.get(`/evidences/${encodeURIComponent(name)}`);
    assert.equal(status, 200, `${name}: ${body}`);
    await pause();
    return body;
  };
  const sums = (await take('sha256sum.txt')).toString();
  const files = new Map<string, Buffer>();
  for (const line of sums.trimEnd().split('\n')) files.set(line.slice(66), await take(line.slice(66)));
  const quote = JSON.parse((await take('quote.json')).toString()) as Read['quote'];
  return { sums, files, quote };
}

/** Undefined if it all fits together and is about this certificate. */
export function whyInconsistent(
  { sums, files, quote }: Read,
  host: string,
  wire: X509Certificate,
): string | undefined {
  for (const line of sums.trimEnd().split('\n')) {
    const [sum, name] = [line.slice(0, 64), line.slice(66)];
    if (sha256(files.get(name)!).toString('hex') !== sum) return `${name} does not fit its checksum`;
  }
  const expected = sha256(sums).toString('hex') + '00'.repeat(32);
  if (quote.report_data !== expected) return 'the quote is about other checksums';
  if (quote.quote.slice(1136, 1264) !== expected) return 'the quote does not hold its report data';
  const leaf = new X509Certificate(files.get(`cert-${host}.pem`)!);
  return leaf.fingerprint256 === wire.fingerprint256 ? undefined : 'the certificate is not that on the wire';
}

export const freshNonce = (bytes = 32) => randomBytes(bytes).toString('hex');

/** Recomputed from the description of the format alone. Throws with what does not hold. */
export function checkAttest(
  body: Buffer,
  nonce: string,
  { certificate, exporter }: Reader,
): { quote: string } {
  const answer = JSON.parse(body.toString());
  const spkiDer = certificate.publicKey.export({ type: 'spki', format: 'der' });
  assert.equal(answer.version, 1);
  assert.equal(answer.nonce, nonce);
  assert.equal(answer.exporter, exporter);
  assert.equal(answer.spki, sha256(spkiDer).toString('hex'));
  const claims = `{"exporter":"${exporter}","nonce":"${nonce}","spki":"${answer.spki}","type":"dstack-ingress/attest-leaf/v1"}`;
  const leaf = sha256('\x00', claims);
  assert.ok(answer.path.length <= 32);
  let root = leaf;
  for (const { side, hash } of answer.path) {
    const other = Buffer.from(hash, 'hex');
    root = side === 'left' ? sha256('\x01', other, root) : sha256('\x01', root, other);
  }
  assert.equal(answer.root, root.toString('hex'));
  const reportData = sha512('dstack-ingress/attest/v1\n', root).toString('hex');
  assert.equal(answer.report_data, reportData);
  assert.equal(answer.quote.slice(1136, 1264), reportData, 'the quote is over the root');
  const signed = verify(
    'sha256',
    Buffer.concat([Buffer.from('dstack-ingress/attest-key/v1\n'), leaf]),
    {
      key: certificate.publicKey,
      padding: constants.RSA_PKCS1_PSS_PADDING,
      saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
    },
    Buffer.from(answer.signature, 'hex'),
  );
  assert.ok(signed, 'the key of the certificate has signed');
  return answer;
}
