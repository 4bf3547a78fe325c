// What everything that is kept stands on: named records with versions, and a lease that lets one process at a time work.

import { CodedError } from '../src/lib/coded-error.ts';

export interface Stored {
  readonly bytes: Buffer;
  /** Another after every change. It says nothing of before and after. */
  readonly version: string;
}

export interface Lease {
  readonly name: string;
  /** Nobody else's: a lease that was lost and taken again has another. */
  readonly token: string;
  /** Whether it was confirmed so lately that nobody else can have it. Asked just before a write. */
  isHeld(): boolean;
  /** Aborts when the lease is lost, or can no longer be known to be held. */
  readonly signal: AbortSignal;
}

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
  /** Rejects where all there is to answer with is what was seen before. */
  readonly current?: boolean | undefined;
}

export interface WriteOptions extends Pick<ReadOptions, 'signal'> {
  /** The write is refused, with StorageError `lease-lost`, unless this is held. */
  readonly lease?: Lease | undefined;
}

/**
 * A name is a path of plain parts: `folder/file.json`. Every call has a deadline. One that has failed may have happened all
 * the same: whoever needs to know reads.
 */
export interface Storage {
  /** Where a record lies, for messages. */
  place(name: string): string;
  /** Undefined if there is none. What is there and cannot be read is an error, never absent. */
  read(name: string, options?: ReadOptions): Promise<Stored | undefined>;
  /** Resolves to its version, or to undefined if there is one of this name. */
  create(name: string, bytes: Uint8Array, options?: WriteOptions): Promise<string | undefined>;
  /** Resolves to the new version, or to undefined if it is not of this version any more. */
  replace(
    name: string,
    bytes: Uint8Array,
    version: string,
    options?: WriteOptions,
  ): Promise<string | undefined>;
  /** Resolves to false if it is not of this version any more. */
  remove(name: string, version: string, options?: WriteOptions): Promise<boolean>;
  /** Names of the records in this folder. */
  list(folder: string, options?: ReadOptions): Promise<string[]>;
  /**
   * Waits for the lease as long as `signal` allows, and runs `work` while holding it. It only saves work: whoever was
   * suspended learns late that it is lost, so what matters is decided by versions.
   */
  lease<T>(name: string, signal: AbortSignal, work: (lease: Lease) => Promise<T>): Promise<T>;
  /** Told, sometimes, when something has changed in this folder: a hint that saves waiting. Returns what ends it. */
  watch(folder: string, changed: () => void): () => void;
  /** Called with what was read and makes no sense. If it resolves, the record counts as absent. */
  setAside(name: string, why: Error): Promise<void>;
  /** Only where there is one process at a time that writes: without looking at what is there. */
  readonly alone?: {
    overwrite(name: string, bytes: Uint8Array): Promise<void>;
    erase(name: string): Promise<void>;
    /** Removes what a killed process left half written. */
    sweep(folders: readonly string[]): Promise<void>;
  };
}

/** A storage that several machines share. */
export interface Engine extends Storage {
  /**
   * Makes ready what is needed, and resolves to what an operator should know. Rejects with StorageError `unfit` where replicas
   * could not rely on it.
   */
  prove(signal?: AbortSignal): Promise<readonly string[]>;
  close(): Promise<void>;
}

export type StorageErrorCode =
  /** Another process has changed the record meanwhile. */
  | 'overtaken'
  /** No answer, or none that can be used. What was asked for may have happened. */
  | 'unavailable'
  /** It does not keep what it is needed for, whatever it answers. */
  | 'unfit'
  /** What is there was not sealed with any of our keys, or was not written by us at all. */
  | 'unreadable'
  /** What is there has been tampered with: it is older than what was seen before, or from another place. */
  | 'hostile'
  | 'lease-lost';

export class StorageError extends CodedError<StorageErrorCode> {
  override readonly name = 'StorageError';
}

/** Whether the storage as a whole cannot be used now: nothing that is kept there can be changed. */
export function isStoreAway(error: unknown): boolean {
  const codes: readonly string[] = [
    'unavailable',
    'unfit',
    'hostile',
    'unreadable',
  ] satisfies StorageErrorCode[];
  return error instanceof StorageError && codes.includes(error.code);
}
