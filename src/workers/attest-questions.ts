// What a worker has asked of fresh quotes: questions to its supervisor, and their answers.

import type { RoundAnswer } from '../../evidence/attest-rounds.ts';
import type { AttestQuestion } from './messages.ts';

export interface AttestQuestions {
  /** Undefined: there is no quote for now. Never rejects. */
  readonly ask: (hash: Uint8Array) => Promise<RoundAnswer | undefined>;
  answered(question: number, answer: RoundAnswer | undefined): void;
}

export function createAttestQuestions(send: (question: AttestQuestion) => void): AttestQuestions {
  const open = new Map<number, (answer: RoundAnswer | undefined) => void>();
  let last = 0;
  return {
    ask: (hash) =>
      new Promise((resolve) => {
        const question = ++last;
        open.set(question, resolve);
        send({ question, hash: Buffer.from(hash).toString('hex') });
      }),
    answered(question, answer) {
      open.get(question)?.(answer);
      open.delete(question);
    },
  };
}
