// Checks passwords for requests: what was right is remembered, what is being checked is asked once, and few may wait.

import { createHmac, randomBytes } from 'node:crypto';
import { isPasswordOf, isQuickToCheck, LONGEST_PASSWORD_BYTES } from './password-hash.ts';

/**
 * A dear hash takes its time by intention, 0.1 s and more: it is computed elsewhere, see `compare`. A flood of wrong
 * passwords must neither fill the memory nor keep those waiting who come later: beyond a bound the answer is `busy` at
 * once. Whoever has given the right password before is remembered and does not notice. The memory holds keyed digests of
 * hash and password together: it gives no password away, and a hash that has left the file fits nothing any more.
 */

export interface Question {
  /** Undefined: there is no such user. */
  readonly hash: string | undefined;
  /** A hash that takes as long to check, for users that there are not: they must not be told by the time. */
  readonly like: string | undefined;
  readonly password: string;
}

/** `busy`: nobody could say, 503. */
export type Judgement = boolean | 'busy';

export interface PasswordChecks {
  /** At once where it is known or quick. */
  check(question: Question): Judgement | Promise<Judgement>;
}

export interface PasswordChecksOptions {
  /** isPasswordOf(), computed off the event loop. Undefined: nobody could compute it. Never rejects. */
  compare(hash: string, password: string): Promise<boolean | undefined>;
  /** In milliseconds, never going back. */
  readonly now?: () => number;
  /** How many comparisons are under way at once. */
  readonly mostWaiting?: number;
  readonly mostRemembered?: number;
  /** Since it was last given. */
  readonly rememberMs?: number;
}

const MOST_WAITING = 16;
const MOST_REMEMBERED = 10_000;
const REMEMBER_MS = 3_600_000;
const SECRET_BYTES = 32;

export function createPasswordChecks(options: PasswordChecksOptions): PasswordChecks {
  const { compare, now = () => performance.now(), rememberMs = REMEMBER_MS } = options;
  const { mostWaiting = MOST_WAITING, mostRemembered = MOST_REMEMBERED } = options;
  const secret = randomBytes(SECRET_BYTES);
  /** Until when, by digest; the end of the map is what was given last. */
  const right = new Map<string, number>();
  const underWay = new Map<string, Promise<Judgement>>();

  function remember(digest: string): void {
    right.delete(digest);
    right.set(digest, now() + rememberMs);
    if (right.size > mostRemembered) right.delete(right.keys().next().value!);
  }

  function isRemembered(digest: string): boolean {
    const until = right.get(digest);
    if (until === undefined) return false;
    if (until > now()) remember(digest);
    else right.delete(digest);
    return until > now();
  }

  async function ask(digest: string, hash: string, password: string): Promise<Judgement> {
    const answer = await compare(hash, password);
    underWay.delete(digest);
    if (answer === true) remember(digest);
    return answer ?? 'busy';
  }

  function checkDear(hash: string, password: string): Judgement | Promise<Judgement> {
    if (Buffer.byteLength(password) > LONGEST_PASSWORD_BYTES) return false;
    const digest = createHmac('sha256', secret).update(`${hash}\0${password}`).digest('base64');
    if (isRemembered(digest)) return true;
    // A page brings its pictures, all with the same password.
    const asked = underWay.get(digest);
    if (asked !== undefined) return asked;
    if (underWay.size >= mostWaiting) return 'busy';
    const answer = ask(digest, hash, password);
    underWay.set(digest, answer);
    return answer;
  }

  return {
    check({ hash, like, password }) {
      const measure = hash ?? like;
      if (measure === undefined) return false;
      const judgement = isQuickToCheck(measure)
        ? isPasswordOf(measure, password)
        : checkDear(measure, password);
      if (hash !== undefined) return judgement;
      // It may be another user's password.
      if (typeof judgement === 'object') return judgement.then(unlessBusy);
      return unlessBusy(judgement);
    },
  };
}

function unlessBusy(judgement: Judgement): Judgement {
  return judgement === 'busy' && judgement;
}
