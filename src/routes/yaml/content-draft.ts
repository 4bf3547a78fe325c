// What stands at a place of a routes file, before it is known whether rules are needed.

import type { Node } from 'yaml';
import type { Content, Instruction, Policy } from '../../../proxy/rules/model.ts';
import type { Destination } from './upstream.ts';

/** What stands at a route without paths, or at a path. */
export interface ContentDraft {
  /** What the rules answer with; of an upstream only once it is known that rules are needed. */
  content(): Content;
  /** An upstream, with nothing else said of it. */
  readonly destination: Destination | undefined;
  readonly isPlain: boolean;
  readonly rewrite: readonly Instruction[];
  /** Of files. */
  readonly policy: Policy;
  readonly node: Node;
}
