// Who else serves: each replica puts its latest statement into the store, and publishes those of all as fleet.json.

import { type Storage, StorageError } from '../acme/storage.ts';
import type { BundleFile } from '../evidence/bundle.ts';
import { fleetFile } from '../evidence/fleet.ts';
import { type Attestation, attestationSchema } from '../evidence/statement.ts';
import { type Clock, systemClock } from './lib/clock.ts';
import type { Log } from './lib/log.ts';

export interface RosterOptions {
  readonly storage: Storage;
  /** Publishes this in the place of what was published before. */
  show(file: BundleFile): Promise<void>;
  readonly clock?: Clock;
  readonly log: Log;
}

export interface Roster {
  /** Ours is this from now on. Never rejects: what the store does not take now it is given with the next look. */
  announce(attestation: Attestation): void;
  /** Shows the file whenever it has changed, until aborted; from the first announcement on. */
  run(signal: AbortSignal): Promise<void>;
  /** We serve no more. */
  leave(): Promise<void>;
}

const FOLDER = 'replicas';
/** A statement is made anew every day: whoever has not for so long is gone. */
const GONE_AFTER_MS = 26 * 3_600_000;
/** Each look reads one record of every replica: so many times more seldom, the more there are. */
const LOOK_MS = 30_000;
const PER_REPLICA_MS = 3_000;
const REST_MS = 1_000;
const AGAIN_MS = 5_000;

export function createRoster({ storage, show, clock = systemClock, log }: RosterOptions): Roster {
  let own: Attestation | undefined;
  let kept: Attestation | undefined;
  let shown = '';
  let wake = new AbortController();

  async function keep(attestation: Attestation): Promise<void> {
    const name = nameOf(attestation);
    const bytes = Buffer.from(JSON.stringify(attestation));
    const there = await storage.read(name);
    const written =
      there === undefined
        ? await storage.create(name, bytes)
        : await storage.replace(name, bytes, there.version);
    if (written === undefined) throw new StorageError('overtaken', `${name} was written by somebody else`);
    kept = attestation;
  }

  async function everyone(): Promise<Attestation[]> {
    const names = (await storage.list(FOLDER)).filter((name) => name.endsWith('.json'));
    const found = await Promise.all(names.map((name) => readOne(`${FOLDER}/${name}`, storage)));
    const since = clock.now().getTime() - GONE_AFTER_MS;
    const mine = own === undefined ? '' : nameOf(own);
    const others = found.filter(
      (one) => one !== undefined && nameOf(one) !== mine && Date.parse(one.statement.time) > since,
    ) as Attestation[];
    return own === undefined ? others : [own, ...others];
  }

  /** Resolves to how many there are. */
  async function look(): Promise<number> {
    if (own === undefined) return 0;
    if (kept !== own) await keep(own);
    const all = await everyone();
    const file = fleetFile(all);
    if (file.sha256 === shown) return all.length;
    await show(file);
    shown = file.sha256;
    return all.length;
  }

  return {
    announce(attestation) {
      own = attestation;
      wake.abort();
    },
    async run(signal) {
      let pauseMs = LOOK_MS;
      while (!signal.aborted) {
        const restMs = pauseMs * (0.8 + 0.4 * Math.random());
        await clock.sleep(restMs, AbortSignal.any([signal, wake.signal])).catch(() => {});
        if (wake.signal.aborted) {
          wake = new AbortController();
          await clock.sleep(REST_MS, signal).catch(() => {});
        }
        if (signal.aborted) return;
        try {
          pauseMs = Math.max(LOOK_MS, (await look()) * PER_REPLICA_MS);
        } catch (err) {
          pauseMs = AGAIN_MS;
          log.debug({ err }, 'statements of the other replicas cannot be read');
        }
      }
    },
    async leave() {
      if (kept === undefined) return;
      try {
        const there = await storage.read(nameOf(kept));
        if (there !== undefined) await storage.remove(nameOf(kept), there.version);
      } catch (err) {
        log.debug({ err }, 'statement could not be taken from the store, it ends by itself');
      }
    },
  };
}

function nameOf({ statement: { instanceId, bootId } }: Attestation): string {
  return `${FOLDER}/${(instanceId || bootId).replaceAll(/[^\w-]/g, '_')}.json`;
}

async function readOne(name: string, storage: Storage): Promise<Attestation | undefined> {
  const stored = await storage.read(name);
  const read = attestationSchema.safeParse(parsed(stored?.bytes));
  return read.success ? read.data : undefined;
}

function parsed(bytes: Buffer | undefined): unknown {
  try {
    return JSON.parse(bytes?.toString('utf8') ?? 'null');
  } catch {
    return undefined;
  }
}
