// Server-sent events: one text a second for all who listen; who does not read it, or comes when there are too many, is let go.

import type { ServerResponse } from 'node:http';

export interface Live {
  /** False: there are too many. */
  add(response: ServerResponse): boolean;
  readonly listeners: number;
  /** Sends what `make` gives, if anybody listens. */
  tell(make: () => string): void;
  close(): void;
}

const MOST_LISTENERS = 64;
/** What may wait for one that reads slowly. */
const MOST_WAITING_BYTES = 1024 * 1024;

export function createLive(most = MOST_LISTENERS): Live {
  const listeners = new Set<ServerResponse>();
  return {
    get listeners() {
      return listeners.size;
    },
    add(response) {
      if (listeners.size >= most) return false;
      listeners.add(response);
      response.once('close', () => listeners.delete(response));
      return true;
    },
    tell(make) {
      if (listeners.size === 0) return;
      const event = Buffer.from(`data: ${make()}\n\n`);
      for (const response of listeners) {
        if (response.writableLength > MOST_WAITING_BYTES) response.destroy();
        else response.write(event);
      }
    },
    close() {
      for (const response of listeners) response.end();
    },
  };
}
