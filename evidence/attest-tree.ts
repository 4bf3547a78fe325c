// The tree over all that asked at once: one root to be quoted, and for each leaf its path to it.

import { attestNode, type PathStep } from './attest-claims.ts';

export interface AttestTree {
  readonly root: Buffer;
  /** In the order of the leaves. */
  readonly paths: readonly (readonly PathStep[])[];
}

interface Subtree {
  readonly hash: Buffer;
  /** Its leaves, by their places. */
  readonly under: readonly number[];
}

/** Neighbours are joined level by level; one without a neighbour goes up as it is. There must be a leaf. */
export function attestTree(leaves: readonly Uint8Array[]): AttestTree {
  const paths: PathStep[][] = leaves.map(() => []);
  let level = leaves.map((leaf, index): Subtree => ({ hash: Buffer.from(leaf), under: [index] }));
  while (level.length > 1) {
    const above: Subtree[] = [];
    for (let at = 0; at < level.length; at += 2) {
      const [left, right] = [level[at]!, level[at + 1]];
      if (right === undefined) {
        above.push(left);
        continue;
      }
      for (const leaf of left.under) paths[leaf]!.push({ side: 'right', hash: right.hash.toString('hex') });
      for (const leaf of right.under) paths[leaf]!.push({ side: 'left', hash: left.hash.toString('hex') });
      above.push({ hash: attestNode(left.hash, right.hash), under: [...left.under, ...right.under] });
    }
    level = above;
  }
  return { root: level[0]!.hash, paths };
}
