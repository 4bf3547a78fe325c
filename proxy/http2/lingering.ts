// A stream whose reply is whole and whose request is not: what still comes is thrown away, for a while.

import type { Deadline, Deadlines } from '../socket/deadlines.ts';
import { Lingering } from '../socket/lingering.ts';
import type { Http2Stream, StreamUser } from './contract.ts';

/** Takes the place of the stream's user and tells it only of the end. `giveUp` is called when the peer sends too much or stops. */
export class LingeringStream implements StreamUser, Deadline {
  at: number;
  place = -1;
  readonly expired: () => void;
  private readonly before: StreamUser;
  private readonly deadlines: Deadlines;
  private readonly lingering: Lingering;

  constructor(before: StreamUser, deadlines: Deadlines, giveUp: () => void) {
    this.before = before;
    this.deadlines = deadlines;
    this.expired = giveUp;
    this.lingering = new Lingering(deadlines);
    this.at = this.lingering.at;
    deadlines.watch(this);
  }

  streamData(_bytes: Buffer, start: number, end: number): void {
    if (this.lingering.tires(end - start)) this.expired();
    else this.at = this.lingering.at;
  }

  streamTrailers(): void {}
  streamEnded(): void {}
  streamDrained(): void {}

  streamClosed(stream: Http2Stream): void {
    this.deadlines.forget(this);
    this.before.streamClosed(stream);
  }
}
