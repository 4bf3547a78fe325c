// How a child program of this folder talks with the benchmark: it reports its port and count, and ends when asked.

export interface Tally {
  /** Units of work done without fault since the start. */
  readonly units: number;
  /** How many went wrong. */
  readonly failed: number;
  /** What went wrong first. */
  readonly firstFailure?: string;
}

export type FromChild = { readonly port: number } | { readonly tally: Tally } | { readonly ended: Tally };
export type FromParent = 'tally' | 'end';

export interface Work {
  done(): void;
  failed(why: unknown): void;
  /** True once the benchmark asks to end: work under way is finished, and nothing new begins. */
  readonly ending: boolean;
}

/** Counts work and answers the benchmark's questions; `finish` resolves when nothing is under way any more. */
export function startWork(finish: () => Promise<unknown> = async () => {}): Work {
  let units = 0;
  let failed = 0;
  let firstFailure: string | undefined;
  let ending = false;
  const tally = (): Tally => ({ units, failed, ...(firstFailure === undefined ? {} : { firstFailure }) });

  process.on('message', (message: FromParent) => {
    if (message === 'tally') return tell({ tally: tally() });
    ending = true;
    void finish().then(() => {
      tell({ ended: tally() });
      process.disconnect!();
    });
  });
  // The parent is gone.
  process.on('disconnect', () => process.exit());
  return {
    done: () => {
      units += 1;
    },
    failed: (why) => {
      failed += 1;
      firstFailure ??= why instanceof Error ? why.message : String(why);
    },
    get ending() {
      return ending;
    },
  };
}

/** For upstreams: where they listen. */
export function tellPort(port: number): void {
  tell({ port });
}

function tell(message: FromChild): void {
  process.send?.(message);
}
