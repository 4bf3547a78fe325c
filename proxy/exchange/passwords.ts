// Passwords are looked at off the event loop; those that were right are remembered for a while, by a keyed digest.

import { createHmac, randomBytes } from 'node:crypto';
import { Worker } from 'node:worker_threads';

export type PasswordOutcome = 'right' | 'wrong' | 'busy';

export interface Passwords {
  /** `hash` undefined: nobody has this name, which takes as long to find out as for `like`, another's hash. Never rejects. */
  check(hash: string | undefined, password: string, like?: string): Promise<PasswordOutcome>;
  close(): void;
}

/** As many as a browser's visitors could wait for at 50 ms each; beyond it the asker is told to come again. */
const MOST_WAITING = 64;
const MOST_REMEMBERED = 10_000;
const REMEMBERED_MS = 10 * 60_000;
/** Of nobody's password: what an unknown name is compared with, as long as no hash has been seen. */
const NOBODYS = '$2b$10$abcdefghijklmnopqrstuuWHbWz0Qf1KQGJmH1cLqI0cHrYkY6bCa';

interface Waiting {
  readonly promise: Promise<PasswordOutcome>;
  readonly resolve: (outcome: PasswordOutcome) => void;
}

/** belongs(), computed elsewhere. Undefined: nobody could compute it. Never rejects. */
export type Compare = (hash: string, password: string) => Promise<boolean | undefined>;

/** Without `compare` a thread does it: a worker process behind the fence may start none. */
export function createPasswords(now: () => number = () => performance.now(), compare?: Compare): Passwords {
  const key = randomBytes(32);
  const remembered = new Map<string, number>();
  const waiting = new Map<number, Waiting>();
  /** The same question asked twice is looked at once: a browser asks for many things of one page. */
  const shared = new Map<string, Promise<PasswordOutcome>>();
  let thread: Worker | undefined;
  let lastId = 0;
  let lastHash = NOBODYS;

  const start = (): Worker => {
    const made = new Worker(new URL(PROGRAM, import.meta.url));
    made.unref();
    made.on('message', ({ id, right }: { id: number; right: boolean }) => {
      waiting.get(id)?.resolve(right ? 'right' : 'wrong');
      waiting.delete(id);
    });
    const gone = () => {
      if (thread !== made) return;
      thread = undefined;
      for (const { resolve } of waiting.values()) resolve('busy');
      waiting.clear();
    };
    made.on('error', gone);
    made.on('exit', gone);
    return made;
  };

  const ask = (hash: string, password: string): Promise<PasswordOutcome> => {
    if (shared.size >= MOST_WAITING) return Promise.resolve('busy');
    if (compare !== undefined) return compare(hash, password).then(outcomeOf);
    thread ??= start();
    const id = ++lastId;
    const { promise, resolve } = Promise.withResolvers<PasswordOutcome>();
    waiting.set(id, { promise, resolve });
    thread.postMessage({ id, hash, password });
    return promise;
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
      const digest = createHmac('sha256', key).update(`${hash}\0${password}`).digest('base64');
      const until = known === undefined ? undefined : remembered.get(digest);
      if (until !== undefined && until > now()) return 'right';
      const before = shared.get(digest);
      const asked = before ?? ask(hash, password);
      if (before === undefined) {
        shared.set(digest, asked);
        void asked.finally(() => shared.delete(digest));
      }
      const outcome = await asked;
      if (known === undefined) return outcome === 'busy' ? 'busy' : 'wrong';
      if (outcome === 'right') remember(digest);
      return outcome;
    },
    close() {
      const last = thread;
      thread = undefined;
      for (const { resolve } of waiting.values()) resolve('busy');
      waiting.clear();
      void last?.terminate();
    },
  };
}

function outcomeOf(right: boolean | undefined): PasswordOutcome {
  if (right === undefined) return 'busy';
  return right ? 'right' : 'wrong';
}

/** From source, and as it lies beside the bundle. */
const PROGRAM = import.meta.url.endsWith('.ts') ? './password-thread.ts' : './password-thread.mjs';
