// What an upstream is told of its client before anything else: a PROXY protocol header, version 2 (haproxy.org, proxy-protocol.txt §2.2).

import { isIPv4, isIPv6 } from 'node:net';

/** A connection that begins with it belongs to that client's connection, and carries nobody else's requests. */
export interface Announcement {
  /** Equal for what comes over one connection of a client, and for nothing else that is open. */
  readonly key: string;
  readonly header: Buffer;
}

export interface Endpoints {
  readonly source: { readonly address: string; readonly port: number };
  readonly destination: { readonly address: string; readonly port: number };
}

const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
const PROXY = 0x21;
const LOCAL = 0x20;
const TCP_OVER_IPV4 = 0x11;
const TCP_OVER_IPV6 = 0x21;

/** LOCAL: a connection of our own, which no client is behind. */
export const ownHeader: Buffer = Buffer.concat([SIGNATURE, Buffer.from([LOCAL, 0, 0, 0])]);

/** Of an address that is none, the header says that nothing is known (LOCAL). */
export function announce(endpoints: Endpoints): Announcement {
  const { source, destination } = unmapped(endpoints);
  const key = `${source.address} ${source.port} ${destination.address} ${destination.port}`;
  const plain = isIPv4(source.address) && isIPv4(destination.address);
  const [from, to] = [source.address, destination.address].map((address) => bytesOf(address, plain));
  if (from === undefined || to === undefined) return { key, header: ownHeader };
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(source.port, 0);
  ports.writeUInt16BE(destination.port, 2);
  const length = from.length + to.length + ports.length;
  const fixed = Buffer.from([PROXY, plain ? TCP_OVER_IPV4 : TCP_OVER_IPV6, length >> 8, length & 0xff]);
  return { key, header: Buffer.concat([SIGNATURE, fixed, from, to, ports]) };
}

/** A socket for both families names clients of IPv4 so. */
function unmapped({ source, destination }: Endpoints): Endpoints {
  const bare = (address: string) => address.replace(/^::ffff:(?=\d+\.)/i, '');
  return {
    source: { ...source, address: bare(source.address) },
    destination: { ...destination, address: bare(destination.address) },
  };
}

/** Where one of the two is IPv6 the other goes as an IPv4-mapped address (RFC 4291 §2.5.5.2): a header has one family. */
function bytesOf(address: string, plain: boolean): Buffer | undefined {
  if (isIPv4(address)) {
    const four = Buffer.from(address.split('.').map(Number));
    return plain ? four : Buffer.concat([Buffer.alloc(10), Buffer.from([0xff, 0xff]), four]);
  }
  // A zone (fe80::1%eth0) means something on that machine alone.
  const bare = address.replace(/%.*$/, '');
  return isIPv6(bare) ? sixOf(bare) : undefined;
}

function sixOf(address: string): Buffer {
  // The URL parser writes the one canonical form (RFC 5952), with no IPv4 in it.
  const [head = '', tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const [left, right] = [groups(head), groups(tail ?? '')];
  const zeros = Array<string>(8 - left.length - right.length).fill('0');
  const bytes = Buffer.alloc(16);
  for (const [i, group] of [...left, ...zeros, ...right].entries())
    bytes.writeUInt16BE(Number.parseInt(group, 16), 2 * i);
  return bytes;
}
