// All that was seen of a host, as plain data: gathered once, judged as often as one likes, kept on disk in between.

import type { Collateral } from './collateral.ts';

/** What came of asking for one file. */
export type Fetched =
  | { readonly state: 'got'; readonly body: Buffer }
  /** The host says that there is none. */
  | { readonly state: 'absent'; readonly why: string }
  /** It answered, with what may not be read: a redirect, too much, no HTTP. */
  | { readonly state: 'refused'; readonly why: string }
  /** No answer, or none yet. */
  | { readonly state: 'missing'; readonly why: string };

export const notAsked = (why: string): Fetched => ({ state: 'missing', why });

/** One TLS connection to the host. */
export interface SeenConnection {
  /** DER, the leaf first, as far as the host sent them. */
  readonly chain: readonly Buffer[];
  /** DER of the leaf's public key. */
  readonly spki: Buffer;
  /** As OpenSSL names it: "TLSv1.3". */
  readonly protocol: string;
  /** What Node's TLS says against the chain, a code of OpenSSL's; undefined if nothing. */
  readonly distrust: string | undefined;
}

/** What one visit brought, all over one connection. */
export interface SeenBundle {
  /** Its place in the list of connections. */
  readonly connection: number;
  readonly sums: Fetched;
  readonly quote: Fetched;
  /** By the names in the sums. */
  readonly files: ReadonlyMap<string, Fetched>;
}

/** The answer to our nonce. `connection` is the place in the list of connections of the one it came over. */
export interface SeenAttest {
  readonly answer: Fetched;
  readonly nonce: string;
  readonly exporter: string;
  readonly connection: number;
}

/** The records of one name as one server has them; in the forms of a zone file. */
export interface SeenRecords {
  readonly name: string;
  readonly values: readonly string[];
}

export interface SeenServer {
  readonly server: string;
  /** CAA from the host's name upwards, to the first name that has any; undefined: it did not answer. */
  readonly caa: readonly SeenRecords[] | undefined;
  /** Where the name leads, if it is an alias, and which app the gateway takes it for; undefined: not answered. */
  readonly alias: readonly string[] | undefined;
  readonly app: readonly string[] | undefined;
  /** Whether it says that it has validated what it answered about CAA (DNSSEC). */
  readonly authentic?: boolean | undefined;
  /** Why it did not answer. */
  readonly why?: string | undefined;
}

export interface SeenDns {
  readonly resolvers: readonly SeenServer[];
  /** The zone's own. */
  readonly authority: readonly SeenServer[];
  /** Why there is no server of the zone's to ask. */
  readonly why?: string | undefined;
}

/** A certificate in a log, as far as the source tells. Hashes and serial in lower-case hex. */
export interface LoggedCertificate {
  readonly id: string;
  readonly names: readonly string[];
  readonly notBefore: string | undefined;
  readonly notAfter: string;
  readonly spki?: string | undefined;
  readonly sha256?: string | undefined;
  readonly serial?: string | undefined;
  readonly issuer?: string | undefined;
}

export interface SeenSource {
  readonly source: string;
  /** All that it has for the name and for the wildcard over it; undefined: it did not answer, or not to the end. */
  readonly found: readonly LoggedCertificate[] | undefined;
  readonly why?: string | undefined;
}

/** The head of a log's tree; hex. */
export interface TreeHead {
  readonly size: number;
  readonly root: string;
  /** Eight bytes of time, and what is signed with it: of the log and perhaps of others. */
  readonly signatures: readonly { readonly time: string; readonly signature: string }[];
}

/** What a log gave as proof that it holds the certificate on the wire, for one of the timestamps in it. */
export interface SeenProof {
  readonly log: string;
  /** Hex. */
  readonly logId: string;
  /** DER, base64, as the list of logs has it. */
  readonly key: string;
  readonly index?: number | undefined;
  readonly head?: TreeHead | undefined;
  /** From the leaf up, hex. */
  readonly path?: readonly string[] | undefined;
  /** Why there is none. */
  readonly why?: string | undefined;
}

/** The connection over which the bundle came; undefined if there was none. */
export function ownConnection({ connections, bundle }: Seen): SeenConnection | undefined {
  return connections[bundle.connection];
}

export interface Seen {
  readonly host: string;
  readonly port: number;
  /** ISO 8601. */
  readonly at: string;
  /** In the order in which they were made; empty if none could be. */
  readonly connections: readonly SeenConnection[];
  /** Why there was no connection. */
  readonly unreachable?: string | undefined;
  readonly bundle: SeenBundle;
  readonly statement: Fetched;
  readonly history: Fetched;
  /** Undefined: it was not asked for, by a version that did not know of it. */
  readonly fleet?: Fetched | undefined;
  readonly attest: SeenAttest;
  readonly collateral: Collateral | undefined;
  /** Why there is no collateral. */
  readonly withoutCollateral?: string | undefined;
  readonly dns: SeenDns;
  readonly ct: readonly SeenSource[];
  readonly proofs: readonly SeenProof[];
}
