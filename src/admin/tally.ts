// What happens seldom and is counted by the supervisor: changes of routes, and attempts at certificates.

export interface Tally {
  readonly reloads: Readonly<Record<'applied' | 'refused', number>>;
  readonly renewals: Readonly<Record<'obtained' | 'failed', number>>;
  /** Changed routes are served. */
  followed(): void;
  /** Changed files were refused. */
  refused(): void;
  renewalEnded(outcome: 'obtained' | 'failed'): void;
}

export function createTally(): Tally {
  const reloads = { applied: 0, refused: 0 };
  const renewals = { obtained: 0, failed: 0 };
  return {
    reloads,
    renewals,
    followed: () => void reloads.applied++,
    refused: () => void reloads.refused++,
    renewalEnded: (outcome) => void renewals[outcome]++,
  };
}
