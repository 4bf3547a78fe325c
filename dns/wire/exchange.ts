// One question to one DNS server and its answer: over UDP with TCP behind it (RFC 1035, RFC 7766), or HTTPS (RFC 8484).

import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, isIP } from 'node:net';
import { HttpError, httpRequest } from '../../src/lib/fetch.ts';
import { DnsError, dnsCodeOf } from '../error.ts';
import {
  decodeMessage,
  encodeQuery,
  FLAG_RESPONSE,
  FLAG_TRUNCATED,
  type Message,
  type Question,
} from './message.ts';

/** Resolves to the answer to this very question, whatever its response code. Rejects with DnsError. */
export interface Exchange {
  /** As the operator wrote it: an address with port, or a URL. */
  readonly server: string;
  ask(question: Question): Promise<Message>;
}

export interface ExchangeOptions {
  /** For one question, including all attempts. Default 5 s. */
  readonly timeoutMs?: number;
  /** Off when an authoritative server is asked. Default on. */
  readonly recursion?: boolean;
  /** PEM, for a DNS over HTTPS server under a private CA. */
  readonly ca?: string;
}

/** How long a datagram may take before it is sent again. */
const RESEND_MS = 1_500;

export function createHttpsExchange(url: string, options: ExchangeOptions = {}): Exchange {
  const { timeoutMs = 5_000, recursion = true, ca } = options;
  return {
    server: url,
    async ask(question) {
      // RFC 8484 §4.1: an id of 0 lets caches share the answer.
      const query = encodeQuery(0, question, recursion);
      const reply = await post(url, query, timeoutMs, ca);
      if (reply.status === 429) throw new DnsError('rate-limited', `${url} wants fewer questions`);
      if (reply.status !== 200)
        throw new DnsError('unreachable', `${url} answered with HTTP status ${reply.status}`);
      if (!/^application\/dns-message\b/i.test(reply.headers['content-type'] ?? '')) {
        throw new DnsError('unintelligible', `${url} answered with something other than a DNS message`);
      }
      return accept(decodeFrom(url, reply.body), 0, question, url);
    },
  };
}

async function post(url: string, body: Buffer, timeoutMs: number, ca: string | undefined) {
  const type = 'application/dns-message';
  try {
    return await httpRequest({
      method: 'POST',
      url,
      headers: { accept: type, 'content-type': type },
      body,
      timeoutMs,
      maxBytes: 65_535,
      ...(ca === undefined ? {} : { ca }),
    });
  } catch (cause) {
    if (!(cause instanceof HttpError)) throw cause;
    throw new DnsError(dnsCodeOf(cause), `${url} gave no answer: ${cause.message}`, {
      cause,
      cure: cause.cure,
    });
  }
}

/** `server` is an IP address with an optional port: `192.0.2.1`, `192.0.2.1:5353`, `[2001:db8::1]:53`. */
export function createPlainExchange(server: string, options: ExchangeOptions = {}): Exchange {
  const { timeoutMs = 5_000, recursion = true } = options;
  const address = parseServer(server);
  return {
    server,
    async ask(question) {
      const id = randomInt(0x10000);
      const query = encodeQuery(id, question, recursion);
      const deadline = performance.now() + timeoutMs;
      const short = await askByDatagram(address, query, id, question, timeoutMs);
      if ((short.flags & FLAG_TRUNCATED) === 0) return short;
      const left = Math.max(1, deadline - performance.now());
      return accept(decodeFrom(server, await askByStream(address, query, left)), id, question, server);
    },
  };
}

export interface ServerAddress {
  readonly host: string;
  readonly port: number;
  readonly text: string;
}

/** Throws DnsError `unsupported` for anything but an IP address with an optional port. */
export function parseServer(text: string): ServerAddress {
  const bracketed = /^\[([^\]]+)\](?::(\d{1,5}))?$/.exec(text);
  const plain = /^([^:]+)(?::(\d{1,5}))?$/.exec(text);
  const host = bracketed?.[1] ?? (isIP(text) === 6 ? text : plain?.[1]) ?? '';
  const port = Number(bracketed?.[2] ?? (isIP(text) === 6 ? undefined : plain?.[2]) ?? 53);
  if (isIP(host) === 0 || port < 1 || port > 65_535) {
    throw new DnsError(
      'unsupported',
      `${JSON.stringify(text)} is not the address of a DNS server: give an IP address, with :port if it is not 53`,
    );
  }
  return { host, port, text };
}

/**
 * Resolves to a truncated answer as well: the caller then asks over TCP. Ignores datagrams that do not answer this very
 * question until the time is up, because anyone can send them (RFC 5452 §9.1).
 */
function askByDatagram(
  address: ServerAddress,
  query: Buffer,
  id: number,
  question: Question,
  timeoutMs: number,
) {
  return new Promise<Message>((resolve, reject) => {
    const socket = createSocket(isIP(address.host) === 6 ? 'udp6' : 'udp4');
    let stray: DnsError | undefined;
    const finish = (settle: () => void) => {
      clearInterval(resend);
      clearTimeout(timer);
      socket.close();
      settle();
    };
    const resend = setInterval(() => socket.send(query), RESEND_MS);
    const timer = setTimeout(() => {
      const late = new DnsError('unreachable', `${address.text} did not answer within ${timeoutMs} ms`);
      finish(() => reject(stray ?? late));
    }, timeoutMs);
    socket.on('message', (bytes) => {
      try {
        const message = readDatagram(address.text, bytes, id, question);
        finish(() => resolve(message));
      } catch (error) {
        stray = error as DnsError;
      }
    });
    socket.on('error', (cause) => finish(() => reject(unreachable(address, cause))));
    // A connected socket receives datagrams from this address only, and learns that a port is closed.
    socket.connect(address.port, address.host, () => socket.send(query));
  });
}

function readDatagram(server: string, bytes: Buffer, id: number, question: Question): Message {
  const flags = bytes.length >= 12 ? bytes.readUInt16BE(2) : 0;
  if ((flags & FLAG_TRUNCATED) !== 0 && bytes.readUInt16BE(0) === id) {
    // It may be cut off anywhere, so only its header is read.
    return { id, flags, questions: [question], answers: [], authority: [], additional: [] };
  }
  return accept(decodeFrom(server, bytes), id, question, server);
}

/** Sends one message over TCP and resolves to the answer (RFC 7766). Rejects with DnsError `unreachable`. */
export function askByStream(address: ServerAddress, query: Buffer, timeoutMs: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address.host, port: address.port });
    let received: Buffer = Buffer.alloc(0);
    const finish = (settle: () => void) => {
      clearTimeout(timer);
      socket.destroy();
      settle();
    };
    const timer = setTimeout(() => {
      finish(() => reject(new DnsError('unreachable', `${address.text} did not answer over TCP in time`)));
    }, timeoutMs);
    socket.on('connect', () => {
      const length = Buffer.alloc(2);
      length.writeUInt16BE(query.length);
      socket.write(Buffer.concat([length, query]));
    });
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      const length = received.length >= 2 ? received.readUInt16BE(0) : Number.POSITIVE_INFINITY;
      if (received.length >= 2 + length) finish(() => resolve(received.subarray(2, 2 + length)));
    });
    socket.on('error', (cause) => finish(() => reject(unreachable(address, cause))));
    socket.on('close', () =>
      finish(() => reject(unreachable(address, new Error('it closed the connection')))),
    );
  });
}

function decodeFrom(server: string, bytes: Buffer): Message {
  try {
    return decodeMessage(bytes);
  } catch (cause) {
    throw new DnsError('unintelligible', `${server} sent what is not a DNS message`, { cause });
  }
}

function accept(message: Message, id: number, question: Question, server: string): Message {
  const [asked, ...more] = message.questions;
  const answersIt =
    message.id === id &&
    (message.flags & FLAG_RESPONSE) !== 0 &&
    more.length === 0 &&
    asked?.name === question.name &&
    asked.type === question.type &&
    asked.class === question.class;
  if (!answersIt)
    throw new DnsError('unintelligible', `${server} answered another question than the one asked`);
  return message;
}

function unreachable(address: ServerAddress, cause: Error): DnsError {
  return new DnsError('unreachable', `${address.text} cannot be reached: ${cause.message}`, { cause });
}
