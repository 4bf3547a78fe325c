// One call to an engine: within its deadline, and failing in words that hold no secret.

import { StorageError } from '../storage.ts';

export interface Bounds {
  readonly timeoutMs: number;
  /** Names the engine without its password. */
  readonly where: string;
  /** What must not stand in a message, whoever wrote it. */
  readonly secrets: readonly string[];
}

/** Rejects with StorageError `unavailable` when the call fails or does not end in time, and with the signal's reason. */
export async function bounded<T>(
  { timeoutMs, where, secrets }: Bounds,
  signal: AbortSignal | undefined,
  call: (within: AbortSignal) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const deadline = AbortSignal.timeout(timeoutMs);
  const within = signal === undefined ? deadline : AbortSignal.any([deadline, signal]);
  const ended = Promise.withResolvers<never>();
  const end = () => ended.reject(within.reason);
  within.addEventListener('abort', end, { once: true });
  ended.promise.catch(() => {});
  try {
    return await Promise.race([call(within), ended.promise]);
  } catch (error) {
    if (error instanceof StorageError) throw error;
    if (signal?.aborted) throw signal.reason;
    const why = deadline.aborted
      ? `no answer within ${timeoutMs} ms`
      : withoutSecrets(wordsOf(error), secrets);
    // The library's error is left out: it may carry the command, and so a password.
    throw new StorageError('unavailable', `${where}: ${why}`);
  } finally {
    within.removeEventListener('abort', end);
  }
}

function wordsOf(error: unknown): string {
  const { message, code } = error as { message?: unknown; code?: unknown };
  // A connection that was tried at several addresses fails with all their errors, and no words of its own.
  if (error instanceof AggregateError && error.errors.length > 0) return wordsOf(error.errors[0]);
  if (typeof message === 'string' && message !== '') return message;
  return typeof code === 'string' ? code : 'it failed without a reason';
}

export function withoutSecrets(text: string, secrets: readonly string[]): string {
  return secrets.filter((one) => one !== '').reduce((rest, one) => rest.replaceAll(one, '***'), text);
}
