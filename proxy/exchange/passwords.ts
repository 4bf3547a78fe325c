// Whether a password is right: a few are compared at once, and right ones are remembered for a while by a keyed digest.

import { hash as digestOf, randomBytes } from 'node:crypto';
import { belongs } from './password-hashes.ts';

export type PasswordOutcome = 'right' | 'wrong' | 'busy';

export interface Passwords {
  /** `hash` undefined: nobody has this name, which takes as long to find out as for `like`, another's hash. Never rejects. */
  check(hash: string | undefined, password: string, like?: string): Promise<PasswordOutcome>;
}

/** As many as a browser's visitors could wait for at 50 ms each; beyond it the asker is told to come again. */
const MOST_WAITING = 64;
const MOST_REMEMBERED = 10_000;
const REMEMBERED_MS = 10 * 60_000;
/** Of nobody's password: what an unknown name is compared with, as long as no hash has been seen. */
const NOBODYS = '$2b$10$abcdefghijklmnopqrstuuWHbWz0Qf1KQGJmH1cLqI0cHrYkY6bCa';

/** belongs(), computed elsewhere. Undefined: nobody could compute it. Never rejects. */
export type Compare = (hash: string, password: string) => Promise<boolean | undefined>;

/** Between two words about refusals: whoever floods us with passwords must not flood the log. */
const TOLD_MS = 60_000;

/** `refusing` is told that some are not looked at, and how many were not since it was told last. */
export function createPasswords(
  now: () => number = () => performance.now(),
  compare: Compare = compareHere,
  refusing: (refused: number) => void = () => {},
): Passwords {
  /** Nobody learns a digest: what begins with a secret is as good here as a MAC, and costs a third of one. */
  const key = randomBytes(32).toString('hex');
  const remembered = new Map<string, number>();
  /** The same question asked twice is looked at once: a browser asks for many things of one page. */
  const shared = new Map<string, Promise<PasswordOutcome>>();
  let lastHash = NOBODYS;

  const ask = (hash: string, password: string): Promise<PasswordOutcome> => {
    if (shared.size >= MOST_WAITING) return Promise.resolve('busy');
    return compare(hash, password).then(outcomeOf);
  };

  let refused = 0;
  let toldAt = Number.NEGATIVE_INFINITY;
  const noteRefusal = (): void => {
    refused++;
    if (now() - toldAt < TOLD_MS) return;
    toldAt = now();
    refusing(refused);
    refused = 0;
  };

  const remember = (digest: string): void => {
    remembered.delete(digest);
    remembered.set(digest, now() + REMEMBERED_MS);
    if (remembered.size > MOST_REMEMBERED) remembered.delete(remembered.keys().next().value!);
  };

  return {
    async check(known, password, like) {
      const hash = known ?? like ?? lastHash;
      if (known !== undefined) lastHash = known;
      const digest = digestOf('sha256', `${key}${hash}\0${password}`, 'base64');
      const until = known === undefined ? undefined : remembered.get(digest);
      if (until !== undefined && until > now()) return 'right';
      const before = shared.get(digest);
      const asked = before ?? ask(hash, password);
      if (before === undefined) {
        shared.set(digest, asked);
        void asked.finally(() => shared.delete(digest));
      }
      const outcome = await asked;
      if (outcome === 'busy') noteRefusal();
      if (known === undefined) return outcome === 'busy' ? 'busy' : 'wrong';
      if (outcome === 'right') remember(digest);
      return outcome;
    },
  };
}

function outcomeOf(right: boolean | undefined): PasswordOutcome {
  if (right === undefined) return 'busy';
  return right ? 'right' : 'wrong';
}

/** For a process that has nobody to ask, as in tests: its event loop stands still for as long as the hash wants. */
async function compareHere(hash: string, password: string): Promise<boolean> {
  await new Promise((resolve) => setImmediate(resolve));
  return belongs(password, hash);
}
