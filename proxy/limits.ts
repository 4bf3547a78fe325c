// What one client, and all of them together, may take of the ingress; production and tests begin with the same table.

/** The one value that says "no limit": nothing is larger, so no comparison needs to know it. */
export const NO_LIMIT = Number.POSITIVE_INFINITY;

export interface ListenerLimits {
  /** Connections open at once: for one more the longest idle is ended, and without an idle one it is closed at accept. */
  readonly maxConnections: number;
  /** File descriptors that this process may have. Near the limit room is made as at that of connections. */
  readonly maxDescriptors: number;
  /** From accept to the end of the TLS handshake, the PROXY header included. */
  readonly handshakeTimeoutMs: number;
  /** From the first byte of a request head (of a new connection: from its handshake) to its last. */
  readonly headerTimeoutMs: number;
  /** Longest silence of a client in the middle of a body, in a tunnel, or while it takes none of a reply. */
  readonly clientIdleTimeoutMs: number;
  /** How long a connection without a request is kept. */
  readonly keepAliveTimeoutMs: number;
  /** Of a request head, and of a reply head. */
  readonly maxHeaderBytes: number;
  /** Header lines. */
  readonly maxHeaderCount: number;
  /** Of a request body, where its route says nothing else. */
  readonly maxBodyBytes: number;
  /** HTTP/2 streams open at once in one connection. */
  readonly maxConcurrentStreams: number;
}

/** Those of the settings that nobody has set; docs/settings.md shows them. */
export const defaultLimits: ListenerLimits = {
  maxConnections: 4096,
  maxDescriptors: NO_LIMIT,
  handshakeTimeoutMs: 10_000,
  headerTimeoutMs: 30_000,
  clientIdleTimeoutMs: 24 * 60 * 60_000,
  keepAliveTimeoutMs: 75_000,
  maxHeaderBytes: 64 * 1024,
  maxHeaderCount: 128,
  maxBodyBytes: NO_LIMIT,
  maxConcurrentStreams: 100,
};

export function limitsWith(changes: Partial<ListenerLimits> = {}): ListenerLimits {
  return { ...defaultLimits, ...changes };
}
