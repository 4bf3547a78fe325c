// What all workers together say of an upstream that fails: one line when it begins and one when it ends.

import { logChange, type UpstreamChange } from '../../proxy/listener/listener.ts';
import type { Log } from '../lib/log.ts';

export interface UpstreamNews {
  heard(worker: object, change: UpstreamChange): void;
  /** Forgets what this worker has told: its successor finds out for itself. */
  gone(worker: object): void;
}

interface Failing {
  readonly workers: Set<object>;
  failed: number;
}

/** Routes name fewer upstreams than this. A worker that strangers have taken over could name any number. */
const MOST_KNOWN = 10_000;

export function createUpstreamNews(log: Log): UpstreamNews {
  const known = new Map<string, Failing>();

  function begins(worker: object, change: UpstreamChange): void {
    const failing = known.get(change.upstream);
    if (failing !== undefined) failing.workers.add(worker);
    else if (known.size < MOST_KNOWN) {
      known.set(change.upstream, { workers: new Set([worker]), failed: 0 });
      logChange(log, change);
    }
  }

  function ends(worker: object, change: UpstreamChange): void {
    const failing = known.get(change.upstream);
    if (failing?.workers.delete(worker) !== true) return;
    failing.failed += change.failed;
    if (failing.workers.size > 0) return;
    known.delete(change.upstream);
    logChange(log, { ...change, failed: failing.failed });
  }

  return {
    heard(worker, change) {
      if (change.state === 'failing') begins(worker, change);
      else ends(worker, change);
    },
    gone(worker) {
      for (const [upstream, { workers }] of known) {
        if (workers.delete(worker) && workers.size === 0) known.delete(upstream);
      }
    },
  };
}
