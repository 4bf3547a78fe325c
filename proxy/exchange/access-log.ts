// The access log: one JSON line for each request, stream or tunnel, written when it has ended, many lines at a time.

import type { FaultCode } from '../faults.ts';
import type { Address } from '../rules/routes.ts';
import { loggedTarget } from './logged.ts';

/** What is known of one exchange; filled while it goes on. */
export interface AccessEntry {
  protocol: 'http/1.1' | 'h2' | 'websocket' | 'tcp';
  readonly clientAddress: string;
  /** Empty: not known, for the request could not be read that far, or there was none. So are the next two. */
  method: string;
  host: string;
  /** As sent; the line has what loggedTarget() leaves of it. */
  target: string;
  /** What the client was answered, 499 if it left before; 0: nothing. */
  status: number;
  /** -1: none, or not known. */
  grpcStatus: number;
  /** Bytes of the request's body; of a tunnel, all that the client sent. */
  received: number;
  /** Bytes of the reply's body; of a tunnel, all that the client was sent. */
  sent: number;
  /** In the time of the proxy's deadlines, ms. */
  startedAt: number;
  upstream: Address | undefined;
  fault: FaultCode | undefined;
}

export interface AccessLog {
  /** `endedAt` in the same time as `entry.startedAt`. The entry is read at once and may be used again. */
  write(entry: AccessEntry, endedAt: number): void;
  /** Writes what waits for the end of this turn of the event loop. */
  flush(): void;
}

/**
 * PIPE_BUF of Linux: what is not longer leaves in one piece (pipe(7)), so that lines of workers that share their stdout
 * never run into each other.
 */
const LONGEST_WRITE = 4_096;
/** Of one text once it is escaped: with all of them this long a line still fits into one write. */
const LONGEST_TEXT = 1_600;
const LONGEST_METHOD = 64;

/** `sink` takes ASCII text of whole lines; it must not keep less than all of it. */
export function createAccessLog(sink: (lines: string) => void, now: () => number = Date.now): AccessLog {
  let pending = '';
  let scheduled = false;
  let lastMs = 0;
  let lastTime = '';
  const repeated: Repeated = {
    clientAddress: '',
    opening: '',
    method: '',
    host: '',
    methodAndHost: '',
    upstream: undefined,
    upstreamText: '',
  };

  const time = () => {
    const ms = now();
    if (ms !== lastMs) {
      lastMs = ms;
      lastTime = new Date(ms).toISOString();
    }
    return lastTime;
  };
  const flush = () => {
    scheduled = false;
    if (pending === '') return;
    const lines = pending;
    pending = '';
    sink(lines);
  };

  return {
    flush,
    write(entry, endedAt) {
      const line = lineOf(entry, time(), endedAt, repeated);
      if (pending.length + line.length > LONGEST_WRITE) {
        const lines = pending;
        pending = '';
        sink(lines);
      }
      pending += line;
      if (scheduled) return;
      scheduled = true;
      setImmediate(flush);
    },
  };
}

/** A new entry; 0 and empty where nothing is known yet. */
export function createAccessEntry(
  protocol: AccessEntry['protocol'],
  clientAddress: string,
  startedAt: number,
): AccessEntry {
  return {
    protocol,
    clientAddress,
    method: '',
    host: '',
    target: '',
    status: 0,
    grpcStatus: -1,
    received: 0,
    sent: 0,
    startedAt,
    upstream: undefined,
    fault: undefined,
  };
}

/** Of consecutive lines, what is often the same: each is put together once. */
interface Repeated {
  clientAddress: string;
  opening: string;
  method: string;
  host: string;
  methodAndHost: string;
  upstream: Address | undefined;
  upstreamText: string;
}

function lineOf(entry: AccessEntry, time: string, endedAt: number, repeated: Repeated): string {
  const { clientAddress, method, host, target, upstream } = entry;
  if (clientAddress !== repeated.clientAddress) {
    repeated.clientAddress = clientAddress;
    repeated.opening = `","msg":"access","client":"${clientAddress}","protocol":"`;
  }
  if (method !== repeated.method || host !== repeated.host) {
    repeated.method = method;
    repeated.host = host;
    const methodText = method === '' ? '' : `,"method":${quoted(method, LONGEST_METHOD)}`;
    repeated.methodAndHost = host === '' ? methodText : `${methodText},"host":${quoted(host, LONGEST_TEXT)}`;
  }
  if (upstream !== repeated.upstream) {
    repeated.upstream = upstream;
    repeated.upstreamText = upstream === undefined ? '' : `,"upstream":"${upstream.host}:${upstream.port}"`;
  }
  const path = loggedTarget(target);
  let line = `{"time":"${time}${repeated.opening}${entry.protocol}"${repeated.methodAndHost}`;
  if (path !== '') line += `,"path":${quoted(path, LONGEST_TEXT)}`;
  if (entry.status !== 0) line += `,"status":${entry.status}`;
  if (entry.grpcStatus !== -1) line += `,"grpcStatus":${entry.grpcStatus}`;
  line += `,"received":${entry.received},"sent":${entry.sent},"durationMs":${inMs(endedAt - entry.startedAt)}`;
  line += repeated.upstreamText;
  if (entry.fault !== undefined) line += `,"fault":"${entry.fault}"`;
  return `${line}}\n`;
}

const FRACTIONS = Array.from({ length: 1_000 }, (_, index) =>
  index === 0 ? '' : `${index / 1_000}`.slice(1),
);

/** With three decimals at most. V8 remembers the texts of small whole numbers, but makes those of others anew. */
function inMs(ms: number): string {
  const rounded = Math.max(0, Math.round(ms * 1_000));
  return `${Math.floor(rounded / 1_000)}${FRACTIONS[rounded % 1_000]}`;
}

// Visible ASCII and the space, but for the two that JSON escapes.
const PLAIN = /^[ !#-[\]-~]*$/;

/** A JSON string in ASCII: what is not plain would be for terminals, or for readers of other encodings, to act upon. */
function quoted(text: string, longest: number): string {
  if (text.length <= longest && PLAIN.test(text)) return `"${text}"`;
  let escaped = '';
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!;
    const code = text.charCodeAt(i);
    const piece =
      code < 32 || code > 126
        ? `\\u${code.toString(16).padStart(4, '0')}`
        : char === '"' || char === '\\'
          ? `\\${char}`
          : char;
    if (escaped.length + piece.length > longest - 3) return `"${escaped}..."`;
    escaped += piece;
  }
  return `"${escaped}"`;
}
