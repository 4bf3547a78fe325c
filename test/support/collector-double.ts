// A collector of OTLP over HTTP over a real socket, able to misbehave; what it is sent in JSON is kept as spans.

import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';

/** How a request is answered; it has been read whole. */
export type CollectorManner = (response: ServerResponse, index: number) => void;

export const manners = {
  takes: (response) => response.setHeader('content-type', 'application/json').end('{}'),
  hangs: () => {},
  cuts: (response) => response.destroy(),
  garbage: (response) => response.end('\u0000 what is no JSON }{'),
  noHttp: (response) => void response.socket?.end('SSH-2.0-collector\r\n'),
  endless: (response) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    const more = () => {
      while (!response.destroyed && response.write('x'.repeat(16_384)));
      response.once('drain', more);
    };
    more();
  },
  trickles: (response) => {
    response.writeHead(200);
    const timer = setInterval(() => response.write(' '), 20).unref();
    response.once('close', () => clearInterval(timer));
  },
} as const satisfies Record<string, CollectorManner>;

export const refuses =
  (status: number, headers: Readonly<Record<string, string>> = {}): CollectorManner =>
  (response) =>
    response.writeHead(status, headers).end('no');

export interface ReceivedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly start: bigint;
  readonly end: bigint;
  readonly status: number | undefined;
  readonly message: string | undefined;
  readonly flags: number;
  readonly attributes: Readonly<Record<string, string | number | boolean>>;
}

export interface ReceivedRequest {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  /** Decompressed. */
  readonly body: Buffer;
}

export interface CollectorDouble {
  readonly port: number;
  readonly endpoint: string;
  readonly requests: ReceivedRequest[];
  /** Of those that came in JSON. */
  spans(): ReceivedSpan[];
  /** What the last one said of the program. */
  resource(): Readonly<Record<string, string | number | boolean>>;
  /** From now on. */
  behave(manner: CollectorManner): void;
  close(): Promise<void>;
}

export async function startCollector(first: CollectorManner = manners.takes): Promise<CollectorDouble> {
  const requests: ReceivedRequest[] = [];
  const sockets = new Set<Socket>();
  let manner = first;
  const server = createServer((request, response) => {
    void buffer(request).then((sent) => {
      const zipped = request.headers['content-encoding'] === 'gzip';
      requests.push({
        path: request.url ?? '',
        headers: request.headers,
        body: zipped ? gunzipSync(sent) : sent,
      });
      response.on('error', () => {});
      manner(response, requests.length - 1);
    });
  });
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    port,
    endpoint: `http://127.0.0.1:${port}`,
    requests,
    spans: () => requests.flatMap(spansIn),
    resource: () => attributesOf(parsed(requests.at(-1)!)!.resourceSpans[0]!.resource.attributes),
    behave(next) {
      manner = next;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

interface KeyValue {
  readonly key: string;
  readonly value: { readonly stringValue?: string; readonly intValue?: string; readonly boolValue?: boolean };
}

interface ExportRequest {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly KeyValue[] };
    readonly scopeSpans: readonly {
      readonly spans: readonly (Omit<ReceivedSpan, 'attributes' | 'start' | 'end' | 'status' | 'message'> & {
        readonly startTimeUnixNano: string;
        readonly endTimeUnixNano: string;
        readonly status?: { readonly code: number; readonly message?: string };
        readonly attributes: readonly KeyValue[];
      })[];
    }[];
  }[];
}

function parsed({ headers, body }: ReceivedRequest): ExportRequest | undefined {
  if (headers['content-type'] !== 'application/json') return undefined;
  return JSON.parse(body.toString('utf8')) as ExportRequest;
}

function spansIn(request: ReceivedRequest): ReceivedSpan[] {
  const sent = parsed(request)?.resourceSpans ?? [];
  return sent.flatMap(({ scopeSpans }) =>
    scopeSpans.flatMap(({ spans }) =>
      spans.map(({ startTimeUnixNano, endTimeUnixNano, status, attributes, ...rest }) => ({
        ...rest,
        start: BigInt(startTimeUnixNano),
        end: BigInt(endTimeUnixNano),
        status: status?.code,
        message: status?.message,
        attributes: attributesOf(attributes),
      })),
    ),
  );
}

function attributesOf(list: readonly KeyValue[]): Record<string, string | number | boolean> {
  return Object.fromEntries(
    list.map(({ key, value: { stringValue, intValue, boolValue } }) => [
      key,
      stringValue ?? (intValue === undefined ? boolValue! : Number(intValue)),
    ]),
  );
}
