// A client of HTTP/1.1 whose request the rules decide about.

import { STATUS_CODES } from 'node:http';
import { beginBody } from '../http1/body-reader.ts';
import type { MessageHead } from '../http1/message.ts';
import { NO_LIMIT } from '../limits.ts';
import { SAID_ID, SAID_TRACE, saidBit } from '../rules/field-names.ts';
import { type ForwardMatch, speaksHttp2 } from '../rules/routes.ts';
import type { Forward } from '../rules/step.ts';
import { type AskedFacts, http1Facts } from './asked-facts.ts';
import { keptLines, linesOf } from './edited-request.ts';
import { HeadFields } from './head-fields.ts';
import {
  type Client,
  type ForwardedBefore,
  forwardedBefore,
  forwardedFields,
  forwardedLines,
  headerLines,
} from './headers.ts';
import { Http1Answer } from './http1-answer.ts';
import type { Http1Exchange } from './http1-exchange.ts';
import { writeOwnReply } from './http1-reply.ts';
import type { Http1ToHttp1 } from './http1-to-http1.ts';
import type { Http1ToHttp2 } from './http1-to-http2.ts';
import { fieldsFor, type OwnFields, type OwnReply, type RuledClient } from './ruled-client.ts';
import { usualReply } from './usual-reply.ts';

/** What is said of a client in the forwarded family is the same for most requests of its connection. */
export class FamilyLines {
  private says = -1;
  private clientAddress = '';
  private host = '';
  private lines = '';

  of(client: Client, host: string, says: number): string {
    const { clientAddress } = client;
    if (says !== this.says || host !== this.host || clientAddress !== this.clientAddress) {
      this.says = says;
      this.clientAddress = clientAddress;
      this.host = host;
      this.lines = forwardedLines(client, host, says);
    }
    return this.lines;
  }
}

/** What a connection keeps from one request to the next: the ways to upstreams, and what it says of itself. */
export interface Http1Sides {
  readonly family: FamilyLines;
  readonly asItComes: Http1ToHttp1;
  inFrames(): Http1ToHttp2;
}

export class Http1Ruled implements RuledClient {
  readonly exchange: Http1Exchange;
  readonly facts: AskedFacts;
  readonly nominated: readonly string[];
  readonly forwardedBefore: ForwardedBefore;
  readonly askedProtocol = undefined;
  readonly passUnderscores = undefined;
  private readonly sides: Http1Sides;
  private readonly headers: HeadFields;
  private readonly chunked: boolean;
  private readonly upgradeTo: string;
  private bodyGone = false;

  /** `target` in origin form or `*`. */
  constructor(
    exchange: Http1Exchange,
    head: MessageHead,
    target: string,
    hostText: string,
    sides: Http1Sides,
  ) {
    const { connection } = exchange;
    this.exchange = exchange;
    this.sides = sides;
    this.headers = new HeadFields(head);
    this.facts = http1Facts(head, this.headers, target, hostText, connection);
    if (exchange.id !== '') this.facts.id = exchange.id;
    this.nominated = head.nominated;
    this.chunked = head.chunked;
    this.upgradeTo = head.upgradeTo;
    this.forwardedBefore = connection.trustedClient ? forwardedBefore(head) : NOTHING_BEFORE;
    // Whoever is being asked has a clock of its own.
    exchange.setClock(NO_LIMIT);
  }

  /** What has been kept is in the form of the side that it was sent by. */
  hasWholeBody({ upstream }: ForwardMatch): boolean {
    const { exchange, sides } = this;
    if (exchange.contentLength <= 0 && !this.chunked) return true;
    if (exchange.request.received === 0 && exchange.kept === undefined) return exchange.bodyKept;
    const framesBefore = exchange.side !== undefined && exchange.side !== sides.asItComes;
    return exchange.bodyKept && framesBefore === speaksHttp2(upstream.protocol);
  }

  /** What is still to come of it cannot be told from another request: the connection ends with the reply. */
  ignoreBody(): void {
    const { exchange } = this;
    this.bodyGone = true;
    exchange.dropKept();
    if (exchange.request.done) return;
    exchange.carrier.keepAlive = false;
    beginBody(exchange.request, 'none');
    exchange.carrier.takeHeld();
  }

  forward(step: Forward, match: ForwardMatch, clientAddress: string) {
    const { exchange, facts, sides } = this;
    const method = exchange.changedMethod ?? exchange.method;
    const host = step.host ?? facts.host;
    const length = this.bodyGone ? -1 : facts.contentLength;
    if (speaksHttp2(match.upstream.protocol)) {
      // No connection of HTTP/2 becomes another protocol's (RFC 9113 §8.6).
      exchange.upgrading = undefined;
      const side = sides.inFrames();
      const fields = fieldsFor(this, step, {
        clientAddress,
        own: this.exchange.ownFields,
        withBody: step.passBody,
      });
      const pairs = fields.flatMap(({ name, value }) => [name.toLowerCase(), value]);
      if (length >= 0) pairs.push('content-length', String(length));
      side.keepFields({ method, path: step.target, authority: host }, pairs);
      return exchange.forward(match, side);
    }
    let lines = this.linesFor(step, clientAddress);
    if (this.chunked && !this.bodyGone) lines += 'Transfer-Encoding: chunked\r\n';
    else if (length >= 0) lines += `Content-Length: ${length}\r\n`;
    else if (this.bodyGone && method !== 'GET' && method !== 'HEAD') lines += 'Content-Length: 0\r\n';
    if (exchange.upgrading !== undefined) lines += `Connection: Upgrade\r\nUpgrade: ${this.upgradeTo}\r\n`;
    exchange.headText = `${method} ${step.target} HTTP/1.1\r\nHost: ${host}\r\n${lines}\r\n`;
    exchange.forward(match, sides.asItComes);
  }

  /** What fieldsFor() says, as lines: those of the client as they came, as long as they are at hand. */
  private linesFor(step: Forward, clientAddress: string): string {
    const { exchange, nominated } = this;
    const { read } = this.headers;
    if (read === undefined)
      return linesOf(
        fieldsFor(this, step, { clientAddress, own: this.exchange.ownFields, withBody: step.passBody }),
      );
    const kept = keptLines(read, step, { nominated, withBody: step.passBody });
    const family = step.forwardedFields ? this.familyLines(step.says, clientAddress) : '';
    const id = (step.says & SAID_ID) === 0 ? exchange.replyLine : '';
    const trace = (step.says & SAID_TRACE) === 0 ? exchange.traceLine : '';
    return kept + linesOf(step.own) + family + id + trace;
  }

  private familyLines(says: number, clientAddress: string): string {
    const { exchange, facts, sides, forwardedBefore } = this;
    const { serverPort, trustedClient } = exchange.connection;
    const known = { clientAddress, serverPort, trustedClient };
    if (!trustedClient) return sides.family.of(known, facts.host, says);
    // What a proxy before us says changes with every request.
    const fields = forwardedFields(known, facts.host, forwardedBefore);
    return headerLines(fields.filter(([name]) => (says & saidBit(name)) === 0));
  }

  reply(own: OwnReply): void {
    const { exchange, facts } = this;
    exchange.side = undefined;
    const { status, fields, body } = own.body === undefined ? usualReply(own, facts.headers) : own;
    writeOwnReply(exchange, status, STATUS_CODES[status] ?? '', headerLines(fields), body ?? NO_BYTES);
  }

  stream(
    status: number,
    fields: OwnFields,
    body: AsyncIterable<Uint8Array>,
    length: number | undefined,
  ): void {
    const { exchange, facts } = this;
    exchange.side = undefined;
    exchange.answer = new Http1Answer(exchange, {}, facts.target);
    exchange.answer.begin({
      handle: () => ({ status, headers: {}, fields, body, ...(length === undefined ? {} : { length }) }),
    });
  }

  close(): void {
    this.exchange.closeSilently();
  }
}

const NOTHING_BEFORE: ForwardedBefore = {};
const NO_BYTES = Buffer.alloc(0);
