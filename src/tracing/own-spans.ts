// Spans of what the supervisor does itself: certificates and quotes, each a trace of its own, however few requests are recorded.

import { randomBytes } from 'node:crypto';
import { describeError } from '../lib/log.ts';
import { type Attributes, nanoseconds, type Span, spanKind } from './span.ts';

export interface Tracer {
  /** Resolves and rejects as `work` does. */
  inSpan<T>(name: string, attributes: Attributes, work: () => Promise<T>): Promise<T>;
}

/** Records nothing. */
export const noTracer: Tracer = { inSpan: (_name, _attributes, work) => work() };

const LONGEST_ERROR = 500;

/** `wallNow`: milliseconds since 1970; `now`: that only rise. */
export function createTracer(
  take: (spans: readonly Span[]) => void,
  now: () => number = () => performance.now(),
  wallNow: () => number = Date.now,
): Tracer {
  return {
    async inSpan(name, attributes, work) {
      const startedAt = now();
      const at = wallNow();
      const end = (failure: unknown, failed: boolean) =>
        take([
          {
            trace: randomBytes(16).toString('hex'),
            span: randomBytes(8).toString('hex'),
            parent: '',
            parentIsRemote: false,
            name,
            kind: spanKind.internal,
            start: nanoseconds(at),
            end: nanoseconds(at + now() - startedAt),
            attributes: failed ? [...attributes, ['error.type', typeOf(failure)]] : attributes,
            error: failed ? describeError(failure).message.slice(0, LONGEST_ERROR) : undefined,
          },
        ]);
      try {
        const result = await work();
        end(undefined, false);
        return result;
      } catch (error) {
        end(error, true);
        throw error;
      }
    },
  };
}

/** The code of an error that was foreseen; of others the name. */
function typeOf(error: unknown): string {
  const { code, name } = error as { readonly code?: unknown; readonly name?: unknown };
  return typeof code === 'string' ? code : typeof name === 'string' ? name : '_OTHER';
}
