// One request after another over TLS, by HTTP/1.1 as bytes or by HTTP/2, and what came back of each.

import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { Identity } from '../support/client-pki.ts';

export interface Ask {
  readonly target: string;
  readonly method?: string;
  readonly host?: string;
  readonly headers?: readonly (readonly [name: string, value: string])[];
  readonly body?: string;
  /** What Node's client of HTTP/2 cannot send, or not take. */
  readonly over?: 'HTTP/1.1';
  /** What the client shows in its handshake, in PEM; undefined: nothing. */
  readonly identity?: Identity | undefined;
}

export interface Reply {
  /** 0: the connection was closed, or the stream reset, without a reply. */
  readonly status: number;
  /** Names in lower case, in the order they came. */
  readonly fields: readonly (readonly [name: string, value: string])[];
  readonly body: string;
}

export interface Client {
  ask(ask: Ask & { readonly host: string }): Promise<Reply>;
  close(): void;
}

export interface Server {
  readonly address: string;
  readonly port: number;
  /** PEM. */
  readonly ca: string;
}

/** Longer than anything takes that is not stuck. */
const STUCK_MS = 30_000;

export function createHttp1Client(server: Server): Client {
  let connection: Connection | undefined;
  let name = '';
  let shown: Identity | undefined;
  const connected = async ({ host, identity }: Ask & { host: string }): Promise<Connection> => {
    if (connection?.isOver === false && name === nameOf(host) && shown === identity) return connection;
    connection?.close();
    name = nameOf(host);
    shown = identity;
    connection = await openConnection(server, name, identity);
    return connection;
  };
  return {
    async ask(ask) {
      const wasOpen = connection;
      const first = await (await connected(ask)).ask(ask);
      // A connection that was kept may be closed before it is heard.
      return first.status === 0 && wasOpen === connection ? (await connected(ask)).ask(ask) : first;
    },
    close: () => connection?.close(),
  };
}

/** SNI, as a browser has it. */
function nameOf(host: string): string {
  return host.toLowerCase().replace(/:\d+$/, '').replace(/\.$/, '');
}

interface Connection {
  readonly isOver: boolean;
  ask(ask: Ask & { readonly host: string }): Promise<Reply>;
  close(): void;
}

async function openConnection(
  { address, port, ca }: Server,
  name: string,
  identity: Identity | undefined,
): Promise<Connection> {
  const socket: TLSSocket = connectTls({
    ...identity,
    host: address,
    port,
    servername: name,
    ca,
    ALPNProtocols: ['http/1.1'],
  });
  await once(socket, 'secureConnect');
  let text = '';
  let ended = false;
  let wake = () => {};
  socket.on('data', (bytes) => {
    text += bytes.toString('latin1');
    wake();
  });
  for (const event of ['end', 'error', 'close'])
    socket.on(event, () => {
      ended = true;
      wake();
    });
  socket.setTimeout(STUCK_MS, () => socket.destroy(new Error('stuck')));

  /** Up to `length` bytes or to the end of the stream. */
  const take = async (isThere: () => number): Promise<string> => {
    for (;;) {
      const length = isThere();
      if (length >= 0 || ended) {
        const taken = text.slice(0, length < 0 ? text.length : length);
        text = text.slice(taken.length);
        return taken;
      }
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  const upTo = (mark: string) => {
    const at = text.indexOf(mark);
    return at < 0 ? -1 : at + mark.length;
  };
  const exactly = (length: number) => (text.length >= length ? length : -1);

  async function chunked(): Promise<string> {
    let body = '';
    for (;;) {
      const length = Number.parseInt(await take(() => upTo('\r\n')), 16);
      if (!(length > 0)) break;
      body += (await take(() => exactly(length + 2))).slice(0, length);
    }
    await take(() => upTo('\r\n'));
    return body;
  }

  return {
    get isOver() {
      return ended;
    },
    async ask({ method = 'GET', target, host, headers = [], body }) {
      const lines = [`${method} ${target} HTTP/1.1`, `Host: ${host}`];
      for (const [field, value] of headers) lines.push(`${field}: ${value}`);
      if (body !== undefined) lines.push(`Content-Length: ${body.length}`);
      socket.write(`${lines.join('\r\n')}\r\n\r\n${body ?? ''}`, 'latin1');
      let head = '';
      do head = await take(() => upTo('\r\n\r\n'));
      while (/^HTTP\/1\.1 1/.test(head));
      const [start = '', ...rest] = head.split('\r\n').filter((line) => line !== '');
      const fields = rest.map((line) => {
        const colon = line.indexOf(':');
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trimStart()] as const;
      });
      const fieldOf = (wanted: string) => fields.find(([name]) => name === wanted)?.[1];
      const status = Number(start.slice(9, 12));
      let replyBody = '';
      if (method === 'HEAD' || status === 204 || status === 304 || status === 0) replyBody = '';
      else if (fieldOf('transfer-encoding') !== undefined) replyBody = await chunked();
      else if (fieldOf('content-length') !== undefined) {
        const length = Number(fieldOf('content-length'));
        replyBody = await take(() => exactly(length));
      } else replyBody = await take(() => -1);
      if (fieldOf('connection') === 'close') {
        ended = true;
        socket.destroy();
      }
      return { status, fields, body: replyBody };
    },
    close: () => socket.destroy(),
  };
}

export function createHttp2Client({ address, port, ca }: Server): Client {
  let session: ClientHttp2Session | undefined;
  let name = '';
  let shown: Identity | undefined;
  const open = (): ClientHttp2Session => {
    const made = connectHttp2(`https://${name}:${port}`, {
      createConnection: () =>
        connectTls({ ...shown, host: address, port, servername: name, ca, ALPNProtocols: ['h2'] }),
    });
    made.on('error', () => {});
    return made;
  };
  return {
    async ask({ method = 'GET', target, host, headers = [], body, identity }) {
      const isOpen = session !== undefined && !session.closed && !session.destroyed;
      if (!isOpen || name !== nameOf(host) || shown !== identity) {
        session?.close();
        name = nameOf(host);
        shown = identity;
        session = open();
      }
      const grouped: Record<string, string | string[]> = {};
      for (const [field, value] of headers) {
        const before = grouped[field.toLowerCase()];
        grouped[field.toLowerCase()] = before === undefined ? value : [...[before].flat(), value];
      }
      if (body !== undefined) grouped['content-length'] = String(body.length);
      const stream = session!.request(
        { ':method': method, ':path': target, ':authority': host, ':scheme': 'https', ...grouped },
        { endStream: body === undefined },
      );
      stream.setTimeout(STUCK_MS, () => stream.close());
      if (body !== undefined) stream.end(body, 'latin1');
      let status = 0;
      const fields: (readonly [string, string])[] = [];
      let text = '';
      stream.on('response', (head, _flags, raw) => {
        status = Number(head[':status']);
        for (let i = 0; i < raw.length; i += 2)
          if (!raw[i]!.startsWith(':')) fields.push([raw[i]!, raw[i + 1]!]);
      });
      stream.on('data', (bytes: Buffer) => {
        text += bytes.toString('latin1');
      });
      stream.on('error', () => {});
      if (!stream.destroyed) await new Promise((resolve) => stream.once('close', resolve));
      return { status, fields, body: text };
    },
    close: () => session?.destroy(),
  };
}
