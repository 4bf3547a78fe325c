// Proves control over an order's names (RFC 8555 §7.5): challenges presented, seen, answered and cleaned up.

import type { Log } from '../src/lib/log.ts';
import type { Attempt } from './attempt.ts';
import type { Challenge, Solver } from './issuer.ts';
import {
  authorizationFailed,
  authorizationsOf,
  challengeFailed,
  fetchAuthorization,
  type Order,
  type Post,
  type Task,
  taskOf,
} from './order.ts';

export interface AuthorizeOptions {
  post: Post;
  /** Of the account's key (RFC 7638). */
  thumbprint: string;
  solver: Solver;
  log: Log;
}

/** Resolves when every authorization of the order is valid. Whatever was presented is cleaned up, also after a failure. */
export async function authorize(options: AuthorizeOptions, order: Order, attempt: Attempt): Promise<void> {
  const { solver, log } = options;
  const tasks = await openTasks(options, order, attempt);
  const begun: Challenge[] = [];
  // The first failure ends the waiting for the others.
  const scope = new AbortController();
  const scoped = attempt.under(AbortSignal.any([attempt.signal, scope.signal]));
  try {
    for (const { challenge } of tasks) {
      begun.push(challenge);
      await solver.present(challenge);
    }
    // All are presented before any is answered: an apex and its wildcard share one name.
    await Promise.all(tasks.map(({ challenge }) => solver.wait(challenge, scoped.signal)));
    await Promise.all(tasks.map((task) => prove(options, task, scoped)));
  } finally {
    scope.abort();
    for (const challenge of begun) {
      await solver.cleanUp(challenge).catch((err: unknown) => {
        log.warn({ domain: challenge.domain, err }, 'challenge not cleaned up');
      });
    }
  }
}

async function openTasks(options: AuthorizeOptions, order: Order, attempt: Attempt): Promise<Task[]> {
  const tasks: Task[] = [];
  for (const url of authorizationsOf(order, attempt.names)) {
    const { value } = await fetchAuthorization(options.post, url, attempt.signal);
    // RFC 8555 §7.5.1: one proven earlier needs no challenge.
    if (value.status === 'valid') continue;
    tasks.push(taskOf(value, options.solver.type, options.thumbprint));
  }
  return tasks;
}

async function prove({ post, solver }: AuthorizeOptions, task: Task, attempt: Attempt): Promise<void> {
  const { authorization, url, status } = task;
  const { signal } = attempt;
  // After a crash the CA may be validating already (`processing`): then nothing is left but to ask how it went.
  const answer = status === 'pending' ? await post(url, {}, signal) : undefined;
  const done = await attempt.poll(
    () => fetchAuthorization(post, authorization.url, signal),
    (each) => each.status !== 'pending' || challengeFailed(each, url),
    answer?.retryAfterMs,
  );
  if (done.status !== 'valid') throw authorizationFailed(done, solver.type);
}
