// When the port is opened: at once for a single ingress; a replica waits until it can serve, or until a challenge must be answered.

import type { Log } from './lib/log.ts';

export interface GateAddress {
  readonly address: string;
  readonly port: number;
}

export interface GateOptions {
  /** Whether other replicas take the connections meanwhile. */
  readonly waits: boolean;
  /** Begins to listen; called once. */
  start(): Promise<GateAddress>;
  /** Whether the port can be had at all; called before anything waits. */
  claim(): Promise<void>;
  /** Why there is nothing to serve, where more is known than that there is no certificate. */
  trouble(): string | undefined;
  readonly log: Log;
}

/**
 * The gateway asks nobody whether he is well: of several replicas the one that accepts first has the connection. One that
 * cannot serve must not accept.
 */
export interface Gate {
  /** Opens where it need not wait. Rejects, as `start` and `claim` do, where the port cannot be had. */
  enter(): Promise<void>;
  /** The first call opens. Resolves once connections are taken. */
  open(why: string): Promise<void>;
  /** Resolves once connections are taken. */
  readonly opened: Promise<GateAddress>;
  /** Resolves with why it could not be opened, when it was to be after enter() had resolved. */
  readonly broken: Promise<unknown>;
  /** What it waits for; undefined: for nothing any more. */
  waitsFor(): string | undefined;
}

export function createGate({ waits, start, claim, trouble, log }: GateOptions): Gate {
  const opened = Promise.withResolvers<GateAddress>();
  const broken = Promise.withResolvers<unknown>();
  opened.promise.catch(() => {});
  let opening: Promise<GateAddress> | undefined;
  let isOpen = false;

  function begin(): Promise<GateAddress> {
    if (opening !== undefined) return opening;
    opening = start();
    opening.then(
      (address) => {
        isOpen = true;
        opened.resolve(address);
      },
      (error: unknown) => {
        opened.reject(error);
        broken.resolve(error);
      },
    );
    return opening;
  }

  return {
    opened: opened.promise,
    broken: broken.promise,
    async enter() {
      if (waits) await claim();
      else await begin();
    },
    async open(why) {
      if (opening === undefined) log.info({ why }, 'replica begins to take connections');
      await begin();
    },
    waitsFor() {
      if (isOpen) return undefined;
      if (opening !== undefined) return 'the port is being opened';
      return trouble() ?? 'there is no certificate in force, and no challenge to be answered';
    },
  };
}
