// A request as a handler of our own sees it: what was asked, and of the connection no more than it needs.

import type { LocalCertificate, LocalConnection, LocalRequest } from '../../src/lib/local-handler.ts';
import type { ClientConnection } from './context.ts';
import { pathOf, queryOf } from './decide.ts';

export interface LocalAsked {
  readonly method: string;
  /** In origin form. */
  readonly target: string;
  readonly host: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly connection: ClientConnection;
}

/** The rest is made for who asks for it: most handlers want none of it. */
export class LocalQuestion implements LocalRequest {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly host: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly #connection: ClientConnection;
  readonly #openBody: () => AsyncIterable<Uint8Array>;
  #gone: AbortController | undefined;
  #over = false;

  constructor(asked: LocalAsked, openBody: () => AsyncIterable<Uint8Array>) {
    this.method = asked.method;
    this.path = pathOf(asked.target);
    this.query = queryOf(asked.target);
    this.host = asked.host;
    this.headers = asked.headers;
    this.#connection = asked.connection;
    this.#openBody = openBody;
  }

  get connection(): LocalConnection {
    return knownOf(this.#connection);
  }

  get signal(): AbortSignal {
    if (this.#gone === undefined) {
      this.#gone = new AbortController();
      if (this.#over) this.#gone.abort();
    }
    return this.#gone.signal;
  }

  readBody(): AsyncIterable<Uint8Array> {
    return this.#openBody();
  }

  /** Nobody waits for the reply any more. */
  abandon(): void {
    this.#over = true;
    this.#gone?.abort();
  }
}

/** One for all requests of a connection: handlers know it again by that. */
const known = new WeakMap<ClientConnection, LocalConnection>();

function knownOf(connection: ClientConnection): LocalConnection {
  const before = known.get(connection);
  if (before !== undefined) return before;
  const fresh = describe(connection);
  known.set(connection, fresh);
  return fresh;
}

function describe(connection: ClientConnection): LocalConnection {
  const { socket } = connection;
  return {
    get certificate() {
      return certificateOf(connection);
    },
    get serverName() {
      return connection.serverName;
    },
    get clientAddress() {
      return connection.clientAddress;
    },
    get secureVersion() {
      return socket.getProtocol() ?? undefined;
    },
    exportKeyingMaterial(length, label, context) {
      return socket.exportKeyingMaterial(length, label, Buffer.from(context));
    },
  };
}

function certificateOf({ socket }: ClientConnection): LocalCertificate | undefined {
  const leaf = socket.getX509Certificate();
  if (leaf === undefined) return undefined;
  return { pem: leaf.toString(), fingerprint: leaf.fingerprint256.replaceAll(':', '').toLowerCase() };
}
