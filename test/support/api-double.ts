// What the doubles of vendors' DNS APIs share: a real HTTP server, a journal of its calls, faults on demand, and a DNS server to tell.

import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { RecordType } from '../../dns/provider.ts';

export interface Call {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Parsed, undefined if there was none. */
  readonly body: unknown;
}

export interface Fault {
  /** Which calls; default: all. */
  readonly method?: string;
  readonly path?: RegExp;
  /** In the text of the body. */
  readonly content?: RegExp;
  /** Default 1. */
  readonly times?: number;
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as it is. */
  readonly body?: string;
  readonly delayMs?: number;
  /** The call has its effect, and only the answer is bad. */
  readonly afterEffect?: boolean;
  /** The connection is cut in place of an answer. */
  readonly hangUp?: boolean;
}

export interface HeldRecord {
  readonly id: string;
  readonly name: string;
  readonly type: string;
  /** TXT: the text. CAA: `0 issue "value"`. */
  readonly value: string;
  readonly proxied?: boolean;
  /** Of a provider that chooses among several sets of one name and type. */
  readonly set?: { readonly identifier: string; readonly weight: string };
}

export interface HeldZone {
  readonly id: string;
  readonly name: string;
  records: HeldRecord[];
}

export interface DoubleOptions {
  /** The zones that the account has, by name, with what is in them from the start. */
  readonly zones?: Readonly<Record<string, readonly Omit<HeldRecord, 'id'>[]>>;
  readonly token?: string;
  /** The management address of a pebble-challtestsrv, told of every change before the call is answered. */
  readonly dns?: { readonly management: string };
  /** Entries on a page at most, whatever is asked. */
  readonly pageLimit?: number;
}

export interface ApiDouble {
  readonly url: string;
  readonly token: string;
  readonly journal: Call[];
  readonly zones: Map<string, HeldZone>;
  misbehave(fault: Fault): void;
  /** The calls that were meant to change something. */
  writes(): Call[];
  /** `TYPE name value` of every record, sorted. */
  contents(): string[];
  stop(): Promise<void>;
}

export interface Reply {
  readonly status: number;
  readonly body: unknown;
  /** The body is text to be sent as it is. */
  readonly raw?: boolean;
}

export interface Held {
  readonly zones: Map<string, HeldZone>;
  readonly token: string;
  readonly pageLimit: number;
  nextId(): string;
  /** To be called after each change of the records at this name. */
  changed(zone: HeldZone, name: string, type: string): Promise<void>;
}

export type Answer = (call: Call, held: Held) => Reply | Promise<Reply>;

export async function startApiDouble(
  options: DoubleOptions,
  answer: Answer,
  api: { readonly isWrite?: (call: Call) => boolean } = {},
): Promise<ApiDouble> {
  const isWrite = api.isWrite ?? (({ method }) => method !== 'GET');
  const token = options.token ?? 'token-of-the-double-0123456789';
  let lastId = 1_000;
  const nextId = () => String(++lastId);
  const zones = new Map<string, HeldZone>();
  for (const [name, records] of Object.entries(options.zones ?? {})) {
    zones.set(name, { id: nextId(), name, records: records.map((record) => ({ ...record, id: nextId() })) });
  }
  const held: Held = {
    zones,
    token,
    pageLimit: options.pageLimit ?? 100,
    nextId,
    changed: (zone, name, type) => tellDns(options.dns?.management, zone, name, type),
  };
  const journal: Call[] = [];
  const faults: { fault: Fault; left: number }[] = [];
  const server = createServer((request, response) => {
    serve(request, response, { journal, faults, answer, held }).catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  for (const zone of zones.values()) {
    for (const { name, type } of zone.records) await held.changed(zone, name, type);
  }
  return {
    url: `http://127.0.0.1:${port}`,
    token,
    journal,
    zones,
    misbehave: (fault) => void faults.push({ fault, left: fault.times ?? 1 }),
    writes: () => journal.filter(isWrite),
    contents: () =>
      [...zones.values()]
        .flatMap(({ records }) => records.map((one) => `${one.type} ${one.name} ${one.value}`))
        .sort(),
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

interface Serving {
  readonly journal: Call[];
  readonly faults: { fault: Fault; left: number }[];
  readonly answer: Answer;
  readonly held: Held;
}

async function serve(request: IncomingMessage, response: ServerResponse, serving: Serving): Promise<void> {
  const call = await readCall(request);
  serving.journal.push(call);
  const fault = takeFault(serving.faults, call);
  if (fault?.delayMs !== undefined)
    await new Promise((resolve) => setTimeout(resolve, fault.delayMs).unref());
  const spoils =
    fault !== undefined && (fault.status !== undefined || fault.body !== undefined || fault.hangUp);
  if (!spoils || fault.afterEffect) {
    const reply = await serving.answer(call, serving.held);
    if (!spoils)
      return send(response, reply.status, {}, reply.raw ? String(reply.body) : JSON.stringify(reply.body));
  }
  if (fault.hangUp) {
    response.destroy();
    return;
  }
  send(response, fault.status ?? 200, fault.headers ?? {}, fault.body ?? '{}');
}

function send(
  response: ServerResponse,
  status: number,
  headers: Readonly<Record<string, string>>,
  body: string,
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(body);
}

async function readCall(request: IncomingMessage): Promise<Call> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString('utf8');
  return {
    at: Date.now(),
    method: request.method ?? '',
    path: request.url ?? '',
    headers: request.headers as Record<string, string>,
    body: text === '' ? undefined : parseBody(text),
  };
}

function parseBody(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function takeFault(faults: { fault: Fault; left: number }[], call: Call): Fault | undefined {
  const hit = faults.find(
    ({ fault, left }) =>
      left > 0 &&
      (fault.method ?? call.method) === call.method &&
      (fault.path?.test(call.path) ?? true) &&
      (fault.content?.test(JSON.stringify(call.body)) ?? true),
  );
  if (hit === undefined) return undefined;
  hit.left--;
  return hit.fault;
}

/** A part of a list: pages count from 1, an absurd size is cut to the limit. */
export function pageOf<T>(items: readonly T[], page: number, size: number): { items: T[]; pages: number } {
  return {
    items: items.slice((page - 1) * size, page * size),
    pages: Math.max(1, Math.ceil(items.length / size)),
  };
}

async function tellDns(
  management: string | undefined,
  zone: HeldZone,
  name: string,
  type: string,
): Promise<void> {
  if (management === undefined) return;
  const host = `${name}.`;
  const values = zone.records
    .filter((record) => record.name === name && record.type === type)
    .map(({ value }) => value);
  const post = (path: string, body: unknown) => tell(`${management}${path}`, body);
  switch (type as RecordType) {
    case 'TXT':
      await post('/clear-txt', { host });
      for (const value of values) await post('/set-txt', { host, value });
      return;
    case 'CNAME':
      await post('/clear-cname', { host });
      for (const value of values) await post('/set-cname', { host, target: `${value}.` });
      return;
    case 'CAA': {
      await post('/clear-caa', { host });
      const policies = values.map((value) => {
        const [, tag, text] = /^\d+ (\S+) "(.*)"$/.exec(value) ?? [];
        return { tag, value: text };
      });
      if (policies.length > 0) await post('/add-caa', { host, policies });
      return;
    }
    default: {
      const kind = type.toLowerCase();
      await post(`/clear-${kind}`, { host });
      if (values.length > 0) await post(`/add-${kind}`, { host, addresses: values });
    }
  }
}

async function tell(url: string, body: unknown): Promise<void> {
  const reply = await fetch(url, { method: 'POST', body: JSON.stringify(body) });
  await reply.arrayBuffer();
  if (!reply.ok) throw new Error(`the DNS server refused ${url}: ${reply.status}`);
}
