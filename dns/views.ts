// Who can be asked what DNS holds: a resolver, each server behind it, and the servers of a zone itself.

import type { RecordType } from './provider.ts';

export interface Resolver {
  /** The values at this name, CNAMEs followed for every type but CNAME; empty if there are none. Rejects with DnsError. */
  resolve(name: string, type: RecordType): Promise<string[]>;
  /** Each resolver behind this one, for callers that must know which of them says what. */
  readonly views?: readonly ResolverView[];
  /** How many views have to answer before their answers count. */
  readonly quorum?: number;
  /** The zones' own servers, if they may be asked. */
  readonly authority?: Authority;
}

export interface ResolverView extends Pick<Resolver, 'resolve'> {
  /** The server as the operator wrote it. */
  readonly server: string;
  /** As resolve, and whether the server says that it has validated what it answers (DNSSEC). */
  look?(name: string, type: RecordType): Promise<{ values: string[]; authentic: boolean }>;
}

export interface Authority {
  /** One view for each name server of the name's zone. Rejects with DnsError when they cannot be found. */
  viewsOf(name: string): Promise<ResolverView[]>;
}
