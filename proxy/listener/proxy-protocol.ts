// PROXY protocol headers, versions 1 and 2: who the client of a load balancer is (haproxy.org, proxy-protocol.txt).

import { isIPv4, isIPv6, type Socket } from 'node:net';
import type { Deadline, Deadlines } from '../socket/deadlines.ts';

export interface ProxyHeader {
  /** Bytes that the header took. */
  readonly size: number;
  /**
   * Undefined: the connection is the balancer's own (LOCAL), such as a health check, or its client has no address that
   * could be named here (UNKNOWN, and every family but TCP).
   */
  readonly source: { readonly address: string; readonly port: number } | undefined;
  readonly destinationPort: number | undefined;
}

/** §2.1: the longest header of version 1. */
const LONGEST_V1 = 107;
/** §2.2: 16 bytes, and behind them addresses and TLVs: ids, names, and what is known of a TLS session, certificates included. */
const LONGEST_V2 = 16 + 4_096;
const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');

/** Takes a header in any pieces, each byte once. */
export interface ProxyHeaderReader {
  /** 'incomplete': more bytes are needed; 'malformed': close. */
  read(chunk: Buffer): ProxyHeader | 'incomplete' | 'malformed';
  /** Of the last chunk, what lies behind the header. */
  readonly rest: Buffer;
}

export function createProxyHeaderReader(): ProxyHeaderReader {
  /** Used only if a header does not arrive whole, which is rare. */
  let gathered: Buffer | undefined;
  let size = 0;
  let rest = Buffer.alloc(0) as Buffer;
  return {
    get rest() {
      return rest;
    },
    read(chunk) {
      let known = chunk;
      if (gathered !== undefined) {
        known = gathered.subarray(0, size + chunk.copy(gathered, size));
      }
      const header = parseProxyHeader(known);
      if (header === 'malformed') return header;
      if (header !== 'incomplete') {
        rest = chunk.subarray(header.size - size);
        return header;
      }
      if (gathered === undefined) {
        gathered = Buffer.allocUnsafe(LONGEST_V2);
        chunk.copy(gathered);
      }
      size += chunk.length;
      return header;
    },
  };
}

export interface ProxyHeaderWait {
  readonly deadlines: Deadlines;
  readonly timeoutMs: number;
  /** The socket is paused, and what came behind the header is to be read from it. */
  readonly taken: (header: ProxyHeader) => void;
  /** There is no header, or a malformed one; the socket is destroyed. */
  readonly refused: () => void;
}

/** Reads the header that a connection begins with. A connection that is lost or too slow is destroyed without a call. */
export function awaitProxyHeader(socket: Socket, wait: ProxyHeaderWait): void {
  const { deadlines, timeoutMs } = wait;
  const reader = createProxyHeaderReader();
  const deadline: Deadline = { at: deadlines.now() + timeoutMs, expired: () => socket.destroy() };
  deadlines.watch(deadline);
  const stop = () => {
    deadlines.forget(deadline);
    socket.off('data', read);
    socket.off('end', refuse);
    socket.off('error', refuse);
    socket.off('close', stop);
  };
  const refuse = () => {
    stop();
    wait.refused();
    socket.destroy();
  };
  const read = (chunk: Buffer) => {
    const header = reader.read(chunk);
    if (header === 'incomplete') return;
    if (header === 'malformed') return refuse();
    stop();
    socket.pause();
    if (reader.rest.length > 0) socket.unshift(reader.rest);
    wait.taken(header);
  };
  socket.on('data', read);
  socket.on('end', refuse);
  socket.on('error', refuse);
  socket.on('close', stop);
}

/** Reads from the first byte of a connection, in constant time until all of it is there. */
export function parseProxyHeader(bytes: Buffer): ProxyHeader | 'incomplete' | 'malformed' {
  if (bytes.length === 0) return 'incomplete';
  return bytes[0] === SIGNATURE[0] ? parseVersion2(bytes) : parseVersion1(bytes);
}

function parseVersion1(bytes: Buffer): ProxyHeader | 'incomplete' | 'malformed' {
  const text = bytes.toString('latin1', 0, LONGEST_V1);
  const end = text.indexOf('\r\n');
  if (!'PROXY '.startsWith(text.slice(0, 6)) && !text.startsWith('PROXY ')) return 'malformed';
  if (end === -1) return text.length < LONGEST_V1 ? 'incomplete' : 'malformed';
  const [, family, source, destination, sourcePort, destinationPort, ...more] = text.slice(0, end).split(' ');
  const size = end + 2;
  if (family === 'UNKNOWN') return { size, source: undefined, destinationPort: undefined };
  const isAddress = family === 'TCP4' ? isIPv4 : family === 'TCP6' ? isIPv6 : undefined;
  if (isAddress === undefined || more.length > 0) return 'malformed';
  if (!isAddress(source ?? '') || !isAddress(destination ?? '')) return 'malformed';
  const ports = [sourcePort, destinationPort].map(parsePort);
  if (ports.includes(undefined)) return 'malformed';
  return { size, source: { address: source!, port: ports[0]! }, destinationPort: ports[1] };
}

function parsePort(text: string | undefined): number | undefined {
  if (text === undefined || !/^(?:0|[1-9]\d{0,4})$/.test(text) || Number(text) > 65_535) return undefined;
  return Number(text);
}

function parseVersion2(bytes: Buffer): ProxyHeader | 'incomplete' | 'malformed' {
  const known = Math.min(bytes.length, SIGNATURE.length);
  if (bytes.compare(SIGNATURE, 0, known, 0, known) !== 0) return 'malformed';
  if (bytes.length < 16) return 'incomplete';
  const version = bytes[12]! >> 4;
  const command = bytes[12]! & 0x0f;
  const family = bytes[13]!;
  const length = bytes.readUInt16BE(14);
  const size = 16 + length;
  if (version !== 2 || command > 1 || size > LONGEST_V2) return 'malformed';
  if (bytes.length < size) return 'incomplete';
  if (command === 0) return { size, source: undefined, destinationPort: undefined };
  // §2.2: TCP over IPv4 and over IPv6.
  if (family === 0x11 && length >= 12) return sourceOf(bytes, size, ipv4At(bytes, 16), 24);
  if (family === 0x21 && length >= 36) return sourceOf(bytes, size, ipv6At(bytes, 16), 48);
  if (family === 0x11 || family === 0x21) return 'malformed';
  // A client behind UDP or a UNIX socket has no address that could be used here, so none is read.
  if (family >> 4 > UNIX || (family & 0x0f) > DATAGRAM) return 'malformed';
  return { size, source: undefined, destinationPort: undefined };
}

/** §2.2: the last address family and the last transport that version 2 knows. */
const UNIX = 3;
const DATAGRAM = 2;

function sourceOf(bytes: Buffer, size: number, address: string, ports: number): ProxyHeader {
  const port = bytes.readUInt16BE(ports);
  return { size, source: { address, port }, destinationPort: bytes.readUInt16BE(ports + 2) };
}

function ipv4At(bytes: Buffer, at: number): string {
  return bytes.subarray(at, at + 4).join('.');
}

function ipv6At(bytes: Buffer, at: number): string {
  const groups: string[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(bytes.readUInt16BE(at + i).toString(16));
  // The URL parser writes the one canonical form (RFC 5952).
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}
