// Those who wait for a fresh quote: so many at most, asked for all together, and forgotten as soon as they have gone.

import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import type { LocalConnection } from '../src/lib/local-handler.ts';
import type { PathStep } from './attest-claims.ts';
import { ATTEST_PATIENCE_MS, type RoundAnswer } from './attest-rounds.ts';
import { attestTree } from './attest-tree.ts';

export interface AttestQueueOptions {
  /** A fresh quote over this hash, see AttestRounds. Asked again only once it has answered. */
  ask(hash: Uint8Array): Promise<RoundAnswer | undefined>;
  readonly patienceMs?: number;
  /** Requests that wait at once, in all and on one connection. */
  readonly mostWaiting?: number;
  readonly mostOfConnection?: number;
}

export interface AttestQueue {
  isFull(connection: LocalConnection): boolean;
  /** Undefined if there is no quote in time, or nobody waits for it any more. */
  proofOf(leaf: Buffer, connection: LocalConnection, gone: AbortSignal): Promise<Proof | undefined>;
}

export interface Proof {
  /** From the leaf to the hash that was asked with. */
  readonly path: readonly PathStep[];
  readonly quoted: Quoted;
}

/** What is the same for all that were asked for together. */
export interface Quoted {
  readonly path: readonly PathStep[];
  /** The members of a JSON object, and its end. */
  readonly json: string;
}

interface Waiter {
  readonly leaf: Buffer;
  /** Undefined: there is no quote. */
  end(proof: Proof | undefined): void;
}

const MOST_WAITING = 128;
const MOST_OF_CONNECTION = 8;
/** An answer takes a signature and some twenty kilobytes: others get the greater part of the time, between so many. */
const ANSWERS_OF_A_TURN = 4;
const TURN_MS = 5;

export function createAttestQueue(options: AttestQueueOptions): AttestQueue {
  const { mostWaiting = MOST_WAITING, mostOfConnection = MOST_OF_CONNECTION } = options;
  const { patienceMs = ATTEST_PATIENCE_MS } = options;
  /** How many wait on it. */
  const perConnection = new WeakMap<LocalConnection, number>();
  /** Those who wait for the next question. */
  const gathering = new Set<Waiter>();
  let waiting = 0;
  let asking = false;

  /** One question for all that have gathered. Meanwhile others gather for the next. */
  async function askForAll(): Promise<void> {
    asking = true;
    // Those who come together are asked for together.
    await nextTurn();
    while (gathering.size > 0) {
      const batch = [...gathering];
      gathering.clear();
      const { root, paths } = attestTree(batch.map(({ leaf }) => leaf));
      const answer = await options.ask(root);
      // Whoever has gathered meanwhile need not wait until the last of these has been answered.
      void endAll(batch, paths, answer && quotedOf(answer));
    }
    asking = false;
  }

  function count(connection: LocalConnection, change: 1 | -1): void {
    waiting += change;
    perConnection.set(connection, (perConnection.get(connection) ?? 0) + change);
  }

  return {
    isFull: (connection) =>
      waiting >= mostWaiting || (perConnection.get(connection) ?? 0) >= mostOfConnection,
    proofOf(leaf, connection, gone) {
      return new Promise((resolve) => {
        let over = false;
        const end = (proof: Proof | undefined) => {
          if (over) return;
          over = true;
          clearTimeout(patience);
          gone.removeEventListener('abort', leave);
          gathering.delete(waiter);
          count(connection, -1);
          resolve(proof);
        };
        const leave = () => end(undefined);
        const waiter = { leaf, end };
        const patience = setTimeout(leave, patienceMs);
        count(connection, 1);
        gone.addEventListener('abort', leave);
        gathering.add(waiter);
        if (!asking) void askForAll();
      });
    },
  };
}

/** Other requests get their turn in between. */
async function endAll(
  batch: readonly Waiter[],
  paths: readonly (readonly PathStep[])[],
  quoted: Quoted | undefined,
): Promise<void> {
  for (const [index, waiter] of batch.entries()) {
    waiter.end(quoted && { path: paths[index]!, quoted });
    if (index % ANSWERS_OF_A_TURN === ANSWERS_OF_A_TURN - 1) await sleep(TURN_MS);
  }
}

/** Written once: it is most of every answer. */
function quotedOf({ path, root, quote, eventLog, reportData, vmConfig }: RoundAnswer): Quoted {
  const members = { root, quote, event_log: eventLog, report_data: reportData, vm_config: vmConfig };
  return { path, json: JSON.stringify(members).slice(1) };
}
