// A reply that the ingress gives by itself instead of an upstream; the proxy asks, a feature answers.

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
}

export interface LocalReply {
  readonly status: number;
  /** Lower-case names. Framing headers (content-length and kin) belong to the proxy and must not be set here. */
  readonly headers: Readonly<Record<string, string>>;
  /** Not sent for HEAD, but its length is. */
  readonly body: Uint8Array;
}

export interface LocalHandler {
  handle(request: LocalRequest): LocalReply | Promise<LocalReply>;
}

/** By the names that route matches give them. */
export type LocalHandlers = Readonly<Record<string, LocalHandler>>;
