// A DNS server over real UDP, TCP and HTTP sockets that answers from a table, or with whatever bytes a test gives it.

import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import {
  decodeMessage,
  encodeMessage,
  encodeName,
  type Question,
  typeNumbers,
} from '../../dns/wire/message.ts';
import { parseCaa } from '../../dns/wire/presentation.ts';

export type Transport = 'udp' | 'tcp' | 'https';

export interface Asked {
  readonly query: Buffer;
  readonly question: Question;
  readonly transport: Transport;
}

/** Zero, one or several datagrams; over TCP and HTTP the first is the answer. */
export type Misanswer = (asked: Asked, honest: Buffer) => readonly Buffer[];

export interface DnsDouble {
  /** For plain DNS. */
  readonly server: string;
  /** For DNS over HTTPS, over plain HTTP as only loopback allows. */
  readonly doh: string;
  readonly port: number;
  readonly asked: Asked[];
  /** `TYPE name` -> values, in the forms of a zone file but TXT plain. */
  readonly table: Map<string, string[]>;
  misanswer(how: Misanswer | undefined): void;
  stop(): Promise<void>;
}

export async function startDnsDouble(
  table: Readonly<Record<string, readonly string[]>> = {},
  options: { readonly host?: string; readonly port?: number } = {},
): Promise<DnsDouble> {
  const { host = '127.0.0.1', port = 0 } = options;
  const held = new Map(Object.entries(table).map(([key, values]) => [key, [...values]]));
  const asked: Asked[] = [];
  let how: Misanswer | undefined;
  const answer = (query: Buffer, transport: Transport): readonly Buffer[] => {
    const [question] = decodeMessage(query).questions;
    const call = { query, question: question!, transport };
    asked.push(call);
    const honest = honestAnswer(call, held);
    return how === undefined ? [honest] : how(call, honest);
  };
  const tcp = createServer((socket) => answerStream(socket, answer));
  tcp.listen(port, host);
  await once(tcp, 'listening');
  const bound = (tcp.address() as AddressInfo).port;
  const udp = createSocket(host.includes(':') ? 'udp6' : 'udp4');
  udp.on('message', (query, from) => {
    for (const reply of answer(query, 'udp')) udp.send(reply, from.port, from.address);
  });
  udp.bind(bound, host);
  await once(udp, 'listening');
  const http = createHttpServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const [reply] = answer(Buffer.concat(chunks), 'https');
    response.writeHead(200, { 'content-type': 'application/dns-message' }).end(reply);
  });
  http.listen(0, host);
  await once(http, 'listening');
  const sockets = new Set<Socket>();
  tcp.on('connection', (socket) => sockets.add(socket.on('error', () => {})));
  return {
    server: host.includes(':') ? `[${host}]:${bound}` : `${host}:${bound}`,
    doh: `http://${host}:${(http.address() as AddressInfo).port}/dns-query`,
    port: bound,
    asked,
    table: held,
    misanswer: (next) => {
      how = next;
    },
    async stop() {
      for (const socket of sockets) socket.destroy();
      http.closeAllConnections();
      udp.close();
      tcp.close();
      http.close();
      await Promise.all([once(tcp, 'close'), once(http, 'close')]);
    },
  };
}

function answerStream(
  socket: Socket,
  answer: (query: Buffer, transport: Transport) => readonly Buffer[],
): void {
  let received: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    if (received.length < 2 || received.length < 2 + received.readUInt16BE()) return;
    const [reply] = answer(received.subarray(2, 2 + received.readUInt16BE()), 'tcp');
    received = Buffer.alloc(0);
    if (reply === undefined) return;
    const length = Buffer.alloc(2);
    length.writeUInt16BE(reply.length);
    socket.write(Buffer.concat([length, reply]));
  });
}

/** NXDOMAIN when the table has nothing at all of the name; an alias is answered with its first step only. */
function honestAnswer({ query, question }: Asked, table: ReadonlyMap<string, readonly string[]>): Buffer {
  const id = query.readUInt16BE();
  const type = Object.entries(typeNumbers).find(([, number]) => number === question.type)?.[0] ?? '';
  const own = table.get(`${type} ${question.name}`) ?? [];
  const alias = own.length === 0 ? (table.get(`CNAME ${question.name}`) ?? []) : [];
  const known = [...table.keys()].some((key) => key.endsWith(` ${question.name}`));
  const record = (kind: string, value: string) => ({
    name: question.name,
    type: typeNumbers[kind as keyof typeof typeNumbers],
    class: 1,
    ttl: 60,
    data: encodeData(kind, value),
  });
  return encodeMessage({
    id,
    flags: 0x8580 | (known ? 0 : 3),
    questions: [question],
    answers: [...own.map((value) => record(type, value)), ...alias.map((value) => record('CNAME', value))],
    authority: [],
    additional: [],
  });
}

export function encodeData(type: string, value: string): Buffer {
  if (type === 'A') return Buffer.from(value.split('.').map(Number));
  if (type === 'CNAME' || type === 'NS') return encodeName(value);
  if (type === 'TXT') {
    const strings = value.match(/.{1,255}/gs) ?? [''];
    return Buffer.concat(
      strings.map((text) => Buffer.concat([Buffer.from([text.length]), Buffer.from(text, 'latin1')])),
    );
  }
  if (type === 'CAA') {
    const { flags, tag, value: text } = parseCaa(value)!;
    return Buffer.concat([Buffer.from([flags, tag.length]), Buffer.from(tag + text)]);
  }
  return Buffer.from(value, 'hex');
}
