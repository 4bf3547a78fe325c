// HTTP/2 clients and servers made of bare frames (RFC 9113 §4.1), able to send what no library would.

import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

export const frameType = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const flag = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 32 } as const;

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

export function frame(
  type: number,
  flags: number,
  streamId: number,
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

export function settingsFrame(settings: readonly (readonly [id: number, value: number])[] = []): Buffer {
  const payload = Buffer.alloc(settings.length * 6);
  settings.forEach(([id, value], i) => {
    payload.writeUInt16BE(id, i * 6);
    payload.writeUInt32BE(value, i * 6 + 2);
  });
  return frame(frameType.settings, 0, 0, payload);
}

export function rstStreamFrame(streamId: number, code: number): Buffer {
  return frame(frameType.rstStream, 0, streamId, uint32(code));
}

export function windowUpdateFrame(streamId: number, increment: number): Buffer {
  return frame(frameType.windowUpdate, 0, streamId, uint32(increment));
}

export function headersFrame(
  streamId: number,
  fields: readonly (readonly [string, string])[],
  flags: number = flag.endHeaders | flag.endStream,
): Buffer {
  return frame(frameType.headers, flags, streamId, encodeFields(fields));
}

/** The fields of a plain request; `more` come after them. */
export function requestFields(method = 'GET', more: readonly (readonly [string, string])[] = []) {
  return [
    [':method', method],
    [':scheme', 'https'],
    [':authority', 'app.example.com'],
    [':path', '/'],
    ...more,
  ] as const;
}

/** Literals without indexing and without Huffman (RFC 7541 §6.2.2): any octets go through as they are. */
export function encodeFields(fields: readonly (readonly [string, string])[]): Buffer {
  const parts = fields.flatMap(([name, value]) => [
    Buffer.from([0]),
    encodeString(name),
    encodeString(value),
  ]);
  return Buffer.concat(parts);
}

function encodeString(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([encodeInteger(bytes.length, 7), bytes]);
}

function encodeInteger(value: number, prefixBits: number): Buffer {
  const limit = 2 ** prefixBits - 1;
  if (value < limit) return Buffer.from([value]);
  const bytes = [limit];
  let rest = value - limit;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  bytes.push(rest);
  return Buffer.from(bytes);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export interface FrameClient {
  readonly received: readonly Frame[];
  readonly closed: boolean;
  send(...frames: Buffer[]): void;
  /** The first frame, past or to come, that matches; rejects if the connection closes without one. */
  next(matches: (frame: Frame) => boolean): Promise<Frame>;
  /** Resolves when the peer has closed the connection. */
  ended(): Promise<void>;
  destroy(): void;
}

/** On a connected socket that the caller has made; sends the preface unless told not to. */
export function createFrameClient(socket: Socket, options: { preface?: boolean } = {}): FrameClient {
  const received: Frame[] = [];
  let rest = Buffer.alloc(0);
  let closed = false;
  const wake = () => socket.emit('frames');
  socket.on('error', () => {});
  socket.on('close', () => {
    closed = true;
    wake();
  });
  socket.on('data', (chunk: Buffer) => {
    rest = readFrames(Buffer.concat([rest, chunk]), received);
    wake();
  });
  if (options.preface !== false) socket.write(Buffer.concat([PREFACE, settingsFrame()]));
  return {
    received,
    get closed() {
      return closed;
    },
    send: (...frames) => void (closed || socket.write(Buffer.concat(frames))),
    async next(matches) {
      for (;;) {
        const found = received.find(matches);
        if (found !== undefined) return found;
        if (closed) throw new Error('the connection closed without the frame that was waited for');
        await once(socket, 'frames');
      }
    },
    async ended() {
      while (!closed) await once(socket, 'frames');
    },
    destroy: () => void socket.destroy(),
  };
}

/** One connection of a frame server's. */
export interface FramePeer {
  readonly received: readonly Frame[];
  readonly socket: Socket;
  send(...frames: Buffer[]): void;
}

export interface FrameServer {
  readonly port: number;
  readonly peers: readonly FramePeer[];
  close(): void;
}

/** Greets with `greeting`, by default empty SETTINGS; `answer` is called for every frame that arrives. */
export async function startFrameServer(
  answer: (frame: Frame, peer: FramePeer) => void,
  greeting: readonly Buffer[] = [settingsFrame()],
): Promise<FrameServer> {
  const peers: FramePeer[] = [];
  const server = createServer((socket) => {
    const received: Frame[] = [];
    const peer: FramePeer = {
      received,
      socket,
      send: (...frames) => void (socket.destroyed || socket.write(Buffer.concat(frames))),
    };
    let rest: Buffer<ArrayBuffer> = Buffer.alloc(0);
    let preface = PREFACE.length;
    peers.push(peer);
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      const skipped = Math.min(preface, rest.length);
      preface -= skipped;
      const before = received.length;
      rest = readFrames(rest.subarray(skipped), received);
      for (const frame of received.slice(before)) answer(frame, peer);
    });
    peer.send(...greeting);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    peers,
    close() {
      for (const { socket } of peers) socket.destroy();
      server.close();
    },
  };
}

function readFrames(bytes: Buffer, into: Frame[]): Buffer<ArrayBuffer> {
  let offset = 0;
  while (bytes.length - offset >= 9) {
    const length = bytes.readUIntBE(offset, 3);
    if (bytes.length - offset < 9 + length) break;
    into.push({
      type: bytes.readUInt8(offset + 3),
      flags: bytes.readUInt8(offset + 4),
      streamId: bytes.readUInt32BE(offset + 5) & 0x7fffffff,
      payload: Buffer.from(bytes.subarray(offset + 9, offset + 9 + length)),
    });
    offset += 9 + length;
  }
  return Buffer.from(bytes.subarray(offset));
}

/** The error code of a GOAWAY or RST_STREAM frame. */
export function errorCode(frame: Frame): number {
  return frame.payload.readUInt32BE(frame.type === frameType.goaway ? 4 : 0);
}

/** The status of a reply, if its header block begins with one in a form that nghttp2's encoder uses. */
export function statusOf(frame: Frame): number {
  const first = frame.payload[0]!;
  // RFC 7541 Appendix A: 8 to 14 are whole `:status` fields.
  const whole = [200, 204, 206, 304, 400, 404, 500][(first & 0x7f) - 8];
  if (first >= 0x80 && whole !== undefined) return whole;
  const length = frame.payload[1]!;
  const value = frame.payload.subarray(2, 2 + (length & 0x7f));
  return Number((length & 0x80) === 0 ? value.toString('latin1') : decodeDigits(value));
}

/** Huffman (RFC 7541 Appendix B): 0 to 2 are the five-bit codes 0 to 2, 3 to 9 the six-bit codes 25 to 31. */
function decodeDigits(bytes: Buffer): string {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  let digits = '';
  for (let i = 0; digits.length < 3; ) {
    const five = Number.parseInt(bits.slice(i, i + 5), 2);
    const six = Number.parseInt(bits.slice(i, i + 6), 2);
    digits += five <= 2 ? five : six - 22;
    i += five <= 2 ? 5 : 6;
  }
  return digits;
}
