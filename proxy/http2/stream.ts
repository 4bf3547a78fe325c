// A stream as its user sees it: every call checks whether it can still be said, and says it.

import { isRestless } from './abuse.ts';
import { release } from './credit.ts';
import { errorCode } from './frames.ts';
import { type HeaderField, writeField } from './hpack.ts';
import { resetStream } from './resets.ts';
import { beginHead, endHead, letFinish, roomOf, sendData, waitForTurn, writeEnd } from './sending.ts';
import { StreamState } from './state.ts';

const NO_BYTES = Buffer.alloc(0);

export class Stream extends StreamState {
  get room(): number {
    return roomOf(this);
  }

  get restless(): boolean {
    return isRestless(this.connection);
  }

  get backlog(): number {
    return this.connection.out.length;
  }

  // What is not sent must not be encoded either: the peer's table would no longer be ours.

  beginHead(): void {
    if (!this.closed && !this.ending) beginHead(this.connection);
  }

  addField(name: string, value: string, neverIndexed = false): void {
    if (this.closed || this.ending) return;
    const { encoder, out } = this.connection;
    writeField(encoder, out, name, value, neverIndexed);
  }

  endHead(kind: 'interim' | 'open' | 'last'): void {
    if (this.closed || this.ending) return;
    if (kind !== 'interim') this.headersSent = true;
    this.ending = kind === 'last';
    endHead(this, this.ending);
  }

  sendData(bytes: Buffer, start: number, end: number, last: boolean): boolean {
    if (this.closed || this.ending) return true;
    this.ending = last;
    return sendData(this, bytes, start, end, last);
  }

  awaitDrain(): void {
    if (this.closed || this.ending) return;
    this.wantsDrain = true;
    waitForTurn(this);
  }

  sendEnd(): void {
    this.sendData(NO_BYTES, 0, 0, true);
  }

  sendTrailers(fields: readonly HeaderField[]): void {
    if (this.closed || this.ending) return;
    this.ending = true;
    this.trailers = fields;
    if (this.queue === undefined) writeEnd(this);
    else waitForTurn(this);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    release(this);
  }

  reset(code: number): void {
    if (!this.closed) resetStream(this, code, 'given-up');
  }

  resetMalformed(): void {
    if (!this.closed) resetStream(this, errorCode.protocolError, 'malformed');
  }

  refuseRest(): void {
    if (this.closed || this.remoteEnded || this.refusesRest) return;
    this.refusesRest = true;
    this.resume();
    if (this.localEnded) letFinish(this);
  }
}
