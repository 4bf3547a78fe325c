// What rules may know of a request before anything is decided; nothing is looked up or made until a rule asks.

import { randomBytes } from 'node:crypto';
import type { MessageHead } from '../http1/message.ts';
import type { Facts, Fields, TlsFacts } from '../rules/compiled.ts';
import { clientCertificateOf } from './client-certificate.ts';
import type { ClientConnection } from './context.ts';
import { type HeadFields, type SentField, valuesOf } from './head-fields.ts';
import type { Http2Request } from './http2-request.ts';

/** The fields of a request in the order they came. */
export interface AskedFields extends Fields {
  list(): readonly SentField[];
}

export interface AskedOfRules {
  readonly method: string;
  readonly target: string;
  readonly host: string;
  readonly protocol: Facts['protocol'];
  readonly headerBytes: number;
  readonly contentLength: number;
}

export class AskedFacts implements Facts {
  readonly method: string;
  readonly target: string;
  readonly host: string;
  readonly protocol: Facts['protocol'];
  readonly scheme = 'https';
  readonly headers: AskedFields;
  readonly headerBytes: number;
  readonly contentLength: number;
  readonly clientAddress: string;
  readonly startedAt = Date.now();
  readonly connectionRequests: number;
  private readonly client: ClientConnection;
  /** That of the request, where requests have one; otherwise made when a rule asks. */
  id: string | undefined = undefined;

  constructor(asked: AskedOfRules, headers: AskedFields, client: ClientConnection) {
    this.method = asked.method;
    this.target = asked.target;
    this.host = asked.host;
    this.protocol = asked.protocol;
    this.headers = headers;
    this.headerBytes = asked.headerBytes;
    this.contentLength = asked.contentLength;
    this.clientAddress = client.clientAddress;
    this.client = client;
    const count = countOf(client);
    this.connectionRequests = ++count.requests;
  }

  get clientPort(): number {
    return this.client.socket.remotePort ?? 0;
  }

  get serverAddress(): string {
    return this.client.socket.localAddress ?? '';
  }

  get serverPort(): number {
    return this.client.serverPort;
  }

  get connection(): number {
    return countOf(this.client).serial;
  }

  get tls(): TlsFacts {
    return tlsFactsOf(this.client);
  }

  requestId(): string {
    this.id ??= randomBytes(16).toString('hex');
    return this.id;
  }
}

let connections = 0;

function countOf(client: ClientConnection): NonNullable<ClientConnection['asked']> {
  client.asked ??= { serial: ++connections, requests: 0 };
  return client.asked;
}

function tlsFactsOf(client: ClientConnection): TlsFacts {
  const { socket, serverName } = client;
  return {
    protocol: socket.getProtocol() ?? '',
    // A socket that is gone has none, whatever its type says.
    cipher: (socket.getCipher() as { readonly name: string } | undefined)?.name ?? '',
    serverName,
    resumed: socket.isSessionReused(),
    clientAuth: client.clientAuth,
    get client() {
      return clientCertificateOf(client);
    },
  };
}

/** `target` in origin form or `*`; `host` as it was sent. */
export function http1Facts(
  head: MessageHead,
  headers: HeadFields,
  target: string,
  host: string,
  client: ClientConnection,
): AskedFacts {
  const asked: AskedOfRules = {
    method: head.method,
    target,
    host,
    protocol: head.minor === 0 ? 'HTTP/1.0' : 'HTTP/1.1',
    headerBytes: head.text.length - head.fieldsStart,
    contentLength: head.contentLength,
  };
  return new AskedFacts(asked, headers, client);
}

export function http2Facts(request: Http2Request, client: ClientConnection): AskedFacts {
  const headers = new StreamFields(request);
  const asked: AskedOfRules = {
    // RFC 8441 §5: an extended CONNECT is the GET of HTTP/1.1's handshake, and rules know no other.
    method: request.protocol === undefined ? request.method : 'GET',
    target: request.path,
    host: request.authority,
    protocol: 'HTTP/2.0',
    headerBytes: headers.bytes(),
    contentLength: request.contentLength,
  };
  return new AskedFacts(asked, headers, client);
}

/** What a request of HTTP/2 says in pseudo-header fields is there by the names of HTTP/1.1 as well. */
class StreamFields implements AskedFields {
  private readonly request: Http2Request;
  private known: readonly SentField[] | undefined = undefined;

  constructor(request: Http2Request) {
    this.request = request;
  }

  bytes(): number {
    let bytes = 0;
    for (const { name, value } of this.request.fields) bytes += name.length + value.length + 4;
    return bytes;
  }

  list(): readonly SentField[] {
    this.known ??= listOf(this.request);
    return this.known;
  }

  all(name: string): readonly string[] {
    return valuesOf(this.list(), name);
  }
}

function listOf({
  authority,
  contentLength,
  protocol,
  fields,
  forwarded,
  underscored = [],
}: Http2Request): SentField[] {
  const said: [string, string][] = [['host', authority]];
  if (contentLength >= 0) said.push(['content-length', String(contentLength)]);
  if (protocol !== undefined) said.push(['connection', 'Upgrade'], ['upgrade', protocol]);
  for (const [name, value] of Object.entries(forwarded ?? {}))
    if (value !== undefined) said.push([name, value]);
  return [
    ...said.map(([name, value]) => ({ name, lower: name, value })),
    ...[...fields, ...underscored].map(({ name, value }) => ({ name, lower: name, value })),
  ];
}
