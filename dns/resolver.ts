// What the world sees in DNS: DNS over HTTPS with a quorum, or the resolvers one names; and the wait until records show.

import type { Clock } from '../src/lib/clock.ts';
import type { Log } from '../src/lib/log.ts';
import type { DnsRecord, RecordType } from './provider.ts';

export interface Resolver {
  /** The values at this name, CNAMEs followed for every type but CNAME; empty if there are none. Rejects with DnsError. */
  resolve(name: string, type: RecordType): Promise<string[]>;
}

export interface PropagationOptions {
  resolver: Resolver;
  timeoutMs: number;
  /** Between two looks. */
  intervalMs?: number;
  clock?: Clock;
  log?: Log;
  signal?: AbortSignal;
}

export type WaitForRecords = (records: readonly DnsRecord[], options: PropagationOptions) => Promise<void>;
