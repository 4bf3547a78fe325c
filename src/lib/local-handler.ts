// A reply that the ingress gives by itself instead of an upstream; the proxy asks, a feature answers.

/**
 * What a handler may know of the connection that brought the request. Each is looked up when it is asked for. All requests
 * of a connection have the same object.
 */
export interface LocalConnection {
  /** The leaf certificate that the client was served; undefined once the connection is gone. */
  readonly certificate: LocalCertificate | undefined;
  /** The name of the handshake, lower case; empty if there was none. */
  readonly serverName: string;
  /** From the PROXY header if there was one. */
  readonly clientAddress: string;
  /** As OpenSSL names it: "TLSv1.3". Undefined once the connection is gone. */
  readonly secureVersion: string | undefined;
  /** RFC 5705 and RFC 8446 §7.5. Throws once the connection is gone. */
  exportKeyingMaterial(length: number, label: string, context: Uint8Array): Uint8Array;
}

export interface LocalCertificate {
  readonly pem: string;
  /** SHA-256 of the DER, as lower-case hex. */
  readonly fingerprint: string;
}

export interface LocalRequest {
  /** As sent by the client, upper case by convention. */
  readonly method: string;
  /** The path without the query, as sent. */
  readonly path: string;
  /** Without the question mark; empty if there is none. */
  readonly query: string;
  /** The host asked, lower case, without a port. */
  readonly host: string;
  /** Lower-case names; repeated headers joined by ", ". */
  readonly headers: Readonly<Record<string, string>>;
  readonly connection: LocalConnection;
  /** Aborted when nobody waits for the reply any more. */
  readonly signal: AbortSignal;
  /**
   * The body, read no faster than the handler takes it and no further than the route allows. To be asked for before the
   * reply is given. It throws if the body breaks off, is malformed or is too large; the client then has its answer. A body
   * that no handler asks for is thrown away, or ends the connection with the reply.
   */
  readBody(): AsyncIterable<Uint8Array>;
}

export interface LocalReply {
  readonly status: number;
  /** Lower-case names. Framing headers (content-length and kin) belong to the proxy and must not be set here. */
  readonly headers: Readonly<Record<string, string>>;
  /** Beside them: names that may come more than once. */
  readonly fields?: readonly (readonly [name: string, value: string])[];
  /**
   * Bytes, or a stream of them that is read no faster than the client takes it; neither may change afterwards. Not sent
   * for HEAD, but the length of bytes is. A stream that fails cuts the reply. A stream that is not needed to its end is
   * destroyed if it has a destroy(), as Node's streams do, and otherwise told to return.
   */
  readonly body: Uint8Array | AsyncIterable<Uint8Array>;
  /** Of a stream, if it is known; a stream that does not keep to it has failed. */
  readonly length?: number;
}

export interface LocalHandler {
  handle(request: LocalRequest): LocalReply | Promise<LocalReply>;
}

/** By the names that route matches give them. */
export type LocalHandlers = Readonly<Record<string, LocalHandler>>;
