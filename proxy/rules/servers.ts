// What rules say, without variables, of the servers that they forward to and of the certificates that clients show.

export interface UpstreamServer {
  readonly host: string;
  /** Undefined: the protocol's own. */
  readonly port?: number;
  /** Default: 1. */
  readonly weight?: number;
  readonly backup?: boolean;
  readonly down?: boolean;
  /** So many failures within `failTimeoutMs` leave it out for as long; 0: never. Undefined: as on a route without rules. */
  readonly maxFails?: number;
  /** Default: 10 s. */
  readonly failTimeoutMs?: number;
  /** 0: no limit. */
  readonly maxConnections?: number;
}

export interface Retry {
  readonly on: readonly RetryCause[];
  /** Also what is not idempotent, once it may have been sent. */
  readonly nonIdempotent?: boolean;
  /** The first included; 0: as many as there are servers. */
  readonly tries?: number;
  /** Later than this after the first, no try begins. */
  readonly timeoutMs?: number;
  /** Once all servers were tried, they may be tried again. */
  readonly sameServers?: boolean;
}

/** A number is a status. */
export type RetryCause = 'error' | 'timeout' | 'invalid-reply' | number;

export interface UpstreamTls {
  readonly verify: boolean;
  /** PEM; undefined: those of the system. */
  readonly authorities?: string;
  /** Undefined: the host as written. */
  readonly name?: string;
  readonly sendName?: boolean;
  /** PEM. */
  readonly certificate?: string;
  readonly key?: string;
}

/** What is asked of a client's certificate. The result is in `$ssl_client_verify` and kin. */
export interface ClientAuth {
  /**
   * `require`: 400 without a good one. `optional`: none is well, and a bad one gets 400. `unverified`: nor does it matter
   * who has signed it; the rules see the result.
   */
  readonly mode: 'require' | 'optional' | 'unverified';
  /** PEM. */
  readonly authorities: string;
  /** The most authorities between a certificate and a trusted one. */
  readonly depth?: number;
  /** PEM: what has been revoked, by each authority. */
  readonly crl?: string;
}
