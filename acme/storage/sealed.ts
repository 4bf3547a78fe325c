// Records sealed before they leave: what was seen is remembered, and anything older than that is hostile.

import type { Log } from '../../src/lib/log.ts';
import type { Opened, Sealing } from '../sealing.ts';
import { type Engine, type Storage, StorageError, type Stored, type WriteOptions } from '../storage.ts';
import type { LocalCopy } from './local-copy.ts';
import { proveConflicts } from './proof.ts';

export interface SealedOptions {
  readonly engine: Engine;
  readonly sealing: Sealing;
  readonly copy: LocalCopy;
  readonly log: Log;
}

export interface Sealed extends Storage {
  /** Whether the engine can be relied upon; done before its first use in any case. Resolves to warnings. */
  prove(signal?: AbortSignal): Promise<readonly string[]>;
  /** Why nothing can be read or written now, if so. */
  trouble(): string | undefined;
  close(): Promise<void>;
}

/** A version is the counter under the seal and what the engine calls it. */
const versionOf = (counter: number, inner: string) => `${counter}:${inner}`;
const counterOf = (version: string) => Number(version.slice(0, version.indexOf(':')));
const innerOf = (version: string) => version.slice(version.indexOf(':') + 1);

/**
 * While the engine does not answer, reads are of the local copy and writes are refused. While anything in it is hostile or
 * unreadable nothing is written at all: whoever did that may wait for us to write over it.
 */
export function createSealed({ engine, sealing, copy, log }: SealedOptions): Sealed {
  const { prove, asked, awayFor } = createGate(engine, log);
  const trust = createTrust(engine, sealing, copy, log);

  async function fetch(name: string, signal?: AbortSignal) {
    // Before it is asked: what is written here meanwhile may be newer than the answer.
    const seen = copy.seen(name);
    return trust.judge(name, await asked(() => engine.read(name, { signal })), seen);
  }

  /** `over`: the engine's version of what it takes the place of. Resolves to the new version. */
  async function put(name: string, content: Opened, over: string | undefined, options: WriteOptions = {}) {
    trust.refuseIfAlarmed();
    const sealed = sealing.seal(name, content);
    const inner = await asked(() =>
      over === undefined ? engine.create(name, sealed, options) : engine.replace(name, sealed, over, options),
    ).catch((error: unknown) => ifWritten(name, sealed, error));
    if (inner === undefined) return undefined;
    copy.keep(name, content, sealed);
    return versionOf(content.counter, inner);
  }

  /** A write that was not answered may have happened: no other writer can have sealed the same bytes. */
  async function ifWritten(name: string, sealed: Buffer, error: unknown): Promise<string | undefined> {
    if (!isAway(error)) throw error;
    const there = await engine.read(name).catch(() => undefined);
    if (there?.bytes.equals(sealed)) return there.version;
    throw error;
  }

  async function read(name: string, signal?: AbortSignal): Promise<Stored | undefined> {
    try {
      const found = await fetch(name, signal);
      return found?.bytes && { bytes: found.bytes, version: versionOf(found.counter, found.inner) };
    } catch (error) {
      const kept = isAway(error) ? copy.read(name) : undefined;
      if (kept === undefined) throw error;
      return kept.bytes && { bytes: kept.bytes, version: versionOf(kept.counter, '') };
    }
  }

  const replace = (name: string, bytes: Buffer | undefined, version: string, options?: WriteOptions) =>
    put(name, { counter: counterOf(version) + 1, bytes }, innerOf(version), options);

  return {
    place: (name) => engine.place(name),
    read: (name, { signal } = {}) => read(name, signal),
    async create(name, bytes, options) {
      const there = await fetch(name, options?.signal);
      if (there?.bytes !== undefined) return undefined;
      const content = { counter: (there?.counter ?? 0) + 1, bytes: Buffer.from(bytes) };
      return put(name, content, there?.inner, options);
    },
    replace: (name, bytes, version, options) => replace(name, Buffer.from(bytes), version, options),
    // What was removed leaves its counter behind, or an older version could come back unnoticed.
    remove: async (name, version, options) =>
      (await replace(name, undefined, version, options)) !== undefined,
    list: (folder, options) =>
      asked(() => engine.list(folder, options)).catch((error: unknown) => {
        if (!isAway(error)) throw error;
        return copy.list(folder);
      }),
    lease: (name, signal, work) => asked(() => engine.lease(name, signal, work)),
    watch: (folder, changed) => engine.watch(folder, changed),
    setAside: async (name, why) => {
      throw trust.alarm(name, new StorageError('unreadable', `${engine.place(name)}: ${why.message}`));
    },
    prove,
    trouble: () => awayFor() ?? trust.alarmed(),
    async close() {
      await Promise.all([engine.close(), copy.flush()]);
    },
  };
}

/** Nothing is asked of the engine before it is proven; that it is away, and that it is back, is said once. */
function createGate(engine: Engine, log: Log) {
  let proven: Promise<readonly string[]> | undefined;
  /** Why, if it is. */
  let away: string | undefined;

  async function proof(signal?: AbortSignal): Promise<readonly string[]> {
    const warnings = await engine.prove(signal);
    await proveConflicts(engine, signal);
    for (const warning of warnings) log.warn({ warning }, 'store needs attention');
    return warnings;
  }

  function prove(signal?: AbortSignal): Promise<readonly string[]> {
    proven ??= proof(signal);
    // What could not be found out is asked again; what is unfit stays so.
    proven.catch((error: unknown) => {
      if (!(error instanceof StorageError && error.code === 'unfit')) proven = undefined;
    });
    return proven;
  }

  async function asked<T>(call: () => Promise<T>): Promise<T> {
    try {
      await prove();
      const answer = await call();
      if (away !== undefined) log.info({ store: engine.place('') }, 'store answers again');
      away = undefined;
      return answer;
    } catch (error) {
      if (isAway(error)) {
        if (away === undefined) log.warn({ err: error }, 'store does not answer, serving on');
        away = `the store does not answer: ${error.message}`;
      }
      throw error;
    }
  }

  return { prove, asked, awayFor: () => away };
}

/** Compares what comes with what was seen, and remembers what cannot be trusted until it can be again. */
function createTrust(engine: Engine, sealing: Sealing, copy: LocalCopy, log: Log) {
  const alarms = new Set<string>();

  function alarm(name: string, error: StorageError): StorageError {
    const record = engine.place(name);
    if (!alarms.has(name))
      log.error({ record, err: error }, 'store holds what cannot be trusted, nothing is written');
    alarms.add(name);
    return error;
  }

  function open(name: string, stored: Stored | undefined, seen: ReturnType<LocalCopy['seen']>) {
    if (stored === undefined) {
      if (seen === undefined) return undefined;
      throw new StorageError('hostile', `${name} is gone from the store: it was never removed by a replica`);
    }
    const opened = sealing.open(name, stored.bytes);
    if (seen !== undefined) refuseOlder(name, opened.counter, seen, stored.bytes);
    return { ...opened, inner: stored.version };
  }

  return {
    alarm,
    judge(name: string, stored: Stored | undefined, seen: ReturnType<LocalCopy['seen']>) {
      try {
        const opened = open(name, stored, seen);
        if (alarms.delete(name)) log.info({ record: engine.place(name) }, 'store can be trusted again');
        if (opened !== undefined) copy.keep(name, opened, stored!.bytes);
        return opened;
      } catch (error) {
        throw error instanceof StorageError ? alarm(name, error) : error;
      }
    },
    alarmed(): string | undefined {
      const [first] = alarms;
      return first && `${engine.place(first)} cannot be trusted`;
    },
    refuseIfAlarmed(): void {
      const [first] = alarms;
      if (first === undefined) return;
      throw new StorageError('hostile', `nothing is written while ${engine.place(first)} cannot be trusted`);
    },
  };
}

function refuseOlder(
  name: string,
  counter: number,
  seen: { counter: number; sealed: Buffer },
  sealed: Buffer,
): void {
  if (counter > seen.counter || (counter === seen.counter && sealed.equals(seen.sealed))) return;
  throw new StorageError(
    'hostile',
    `${name} is at change ${counter} in the store, and another or a later one (${seen.counter}) was seen before`,
  );
}

function isAway(error: unknown): error is StorageError {
  return error instanceof StorageError && error.code === 'unavailable';
}
