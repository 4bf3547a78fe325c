// What a worker has compared of passwords: questions to its supervisor, and their answers.

import { MOST_COMPARISONS } from './channel.ts';
import type { Comparison } from './messages.ts';

export interface Comparisons {
  /** Undefined: nobody could compare it. Never rejects. */
  readonly compare: (hash: string, password: string) => Promise<boolean | undefined>;
  answered(question: number, right: boolean | undefined): void;
}

export function createComparisons(ask: (comparison: Comparison) => void): Comparisons {
  const open = new Map<number, (right: boolean | undefined) => void>();
  let last = 0;
  return {
    compare: (hash, password) =>
      new Promise((resolve) => {
        if (open.size >= MOST_COMPARISONS) return resolve(undefined);
        const question = ++last;
        open.set(question, resolve);
        ask({ question, hash, password });
      }),
    answered(question, right) {
      open.get(question)?.(right);
      open.delete(question);
    },
  };
}
