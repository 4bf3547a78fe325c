// Records sealed before they leave: what was seen is remembered, and anything older than that is hostile.

import type { Log } from '../../src/lib/log.ts';
import type { Opened, Sealing } from '../sealing.ts';
import {
  type Engine,
  type ReadOptions,
  type Storage,
  StorageError,
  type Stored,
  type WriteOptions,
} from '../storage.ts';
import type { LocalCopy } from './local-copy.ts';
import { type Bound, createManifest, digestOf, MANIFEST } from './manifest.ts';
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
  /** Seals a record anew with the key that seals now. Resolves to false if it was sealed with that already. */
  reseal(name: string): Promise<boolean>;
  /**
   * Takes these records as they are from now on, after a backup was restored on purpose. Whatever remembers a later state
   * has to forget it first: no other replica may run. Rejects where one was not sealed by us.
   */
  accept(names: readonly string[]): Promise<void>;
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
export function createSealed(options: SealedOptions): Sealed {
  const { engine, sealing, copy, log } = options;
  const { prove, asked, awayFor } = createGate(engine, log);
  const trust = createTrust(engine, sealing, copy, log);
  const { fetch, put, manifest } = createAccess({ ...options, trust, asked });

  async function read(
    name: string,
    { signal, current = false }: ReadOptions = {},
  ): Promise<Stored | undefined> {
    try {
      const found = await fetch(name, signal);
      return found?.bytes && { bytes: found.bytes, version: versionOf(found.counter, found.inner) };
    } catch (error) {
      const kept = isAway(error) && !current ? copy.read(name) : undefined;
      if (kept === undefined) throw error;
      return kept.bytes && { bytes: kept.bytes, version: versionOf(kept.counter, '') };
    }
  }

  const replace = (name: string, bytes: Buffer | undefined, version: string, options?: WriteOptions) =>
    put(name, { counter: counterOf(version) + 1, bytes }, innerOf(version), options);

  return {
    place: (name) => engine.place(name),
    read,
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
    ...maintenance(options, { asked, fetch, put, manifest }),
    async close() {
      await manifest.flush();
      await Promise.all([engine.close(), copy.flush()]);
    },
  };
}

interface AccessParts extends SealedOptions {
  readonly trust: ReturnType<typeof createTrust>;
  readonly asked: ReturnType<typeof createGate>['asked'];
}

/** Reads and writes single records, and keeps the manifest of them. */
function createAccess({ engine, sealing, copy, trust, asked }: AccessParts) {
  const manifest = createManifest({
    async read() {
      const found = await judged(MANIFEST, copyOf(MANIFEST));
      return found?.bytes && { bytes: found.bytes, version: versionOf(found.counter, found.inner) };
    },
    async write(bytes, version) {
      const content = { counter: version === undefined ? 1 : counterOf(version) + 1, bytes };
      return (await putSealed(MANIFEST, content, version && innerOf(version))) !== undefined;
    },
  });

  async function judged(name: string, seen: Bound | undefined, signal?: AbortSignal) {
    return trust.judge(name, await asked(() => engine.read(name, { signal })), seen);
  }

  function copyOf(name: string): Bound | undefined {
    const kept = copy.seen(name);
    return kept && { counter: kept.counter, digest: digestOf(kept.sealed) };
  }

  async function fetch(name: string, signal?: AbortSignal) {
    await manifest.known().catch((error: unknown) => {
      // Nothing is written then. But what this machine has seen itself it can compare, and serve.
      if (isAway(error) || copyOf(name) === undefined) throw error;
    });
    // Before it is asked: what is written here meanwhile may be newer than the answer.
    const found = await judged(name, latest(copyOf(name), manifest.bound(name)), signal);
    if (found !== undefined) await refuseWithoutManifest(name);
    return found;
  }

  async function refuseWithoutManifest(name: string): Promise<void> {
    if (manifest.exists()) return;
    // Another replica may have made both a moment ago.
    await manifest.recheck();
    if (manifest.exists()) return trust.clear(WITHOUT_MANIFEST);
    const why = `${MANIFEST} is gone from the store: ${name} is there, and no record is older than it`;
    throw trust.alarm(WITHOUT_MANIFEST, new StorageError('hostile', why));
  }

  /** `over`: the engine's version of what it takes the place of. Resolves to the new version. */
  async function put(name: string, content: Opened, over: string | undefined, options?: WriteOptions) {
    await manifest.begin();
    const version = await putSealed(name, content, over, options);
    const kept = version === undefined ? undefined : copyOf(name);
    if (kept?.counter === content.counter) manifest.note(name, kept);
    return version;
  }

  async function putSealed(name: string, content: Opened, over?: string, options: WriteOptions = {}) {
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

  return { fetch, put, manifest };
}

/** In the place of a record's name. */
const WITHOUT_MANIFEST = 'records without a manifest';

/** What an operator asks for. */
function maintenance(
  { engine, sealing }: SealedOptions,
  { asked, fetch, put, manifest }: ReturnType<typeof createAccess> & Pick<AccessParts, 'asked'>,
): Pick<Sealed, 'reseal' | 'accept'> {
  return {
    async reseal(name) {
      const there = await asked(() => engine.read(name));
      if (there === undefined || sealing.isCurrent(there.bytes)) return false;
      const found = await fetch(name);
      if (found === undefined) return false;
      const content = { counter: found.counter + 1, bytes: found.bytes };
      return (await put(name, content, found.inner)) !== undefined;
    },
    async accept(names) {
      const bounds = new Map<string, Bound>();
      for (const name of names) {
        const there = await asked(() => engine.read(name));
        if (there === undefined) continue;
        bounds.set(name, { counter: sealing.open(name, there.bytes).counter, digest: digestOf(there.bytes) });
      }
      await manifest.reset(bounds);
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

/** Of two states of one record the later one. */
function latest(one: Bound | undefined, other: Bound | undefined): Bound | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return other.counter > one.counter ? other : one;
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

  function open(name: string, stored: Stored | undefined, seen: Bound | undefined) {
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
    judge(name: string, stored: Stored | undefined, seen: Bound | undefined) {
      try {
        const opened = open(name, stored, seen);
        if (alarms.delete(name)) log.info({ record: engine.place(name) }, 'store can be trusted again');
        if (opened !== undefined) copy.keep(name, opened, stored!.bytes);
        return opened;
      } catch (error) {
        throw error instanceof StorageError ? alarm(name, error) : error;
      }
    },
    clear(name: string): void {
      if (alarms.delete(name)) log.info({ record: engine.place(name) }, 'store can be trusted again');
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

function refuseOlder(name: string, counter: number, seen: Bound, sealed: Buffer): void {
  if (counter > seen.counter || (counter === seen.counter && digestOf(sealed) === seen.digest)) return;
  throw new StorageError(
    'hostile',
    `${name} is at change ${counter} in the store, and another or a later one (${seen.counter}) was seen before`,
  );
}

function isAway(error: unknown): error is StorageError {
  return error instanceof StorageError && error.code === 'unavailable';
}
