// What rules need beyond their workers: folders that files are served from, and what is understood but not done yet.

import type { Policy, RuleSet, Template } from '../../proxy/rules/model.ts';
import { type Mistake, placeOfOrigin } from '../config/mistake.ts';

/** The folders, each with all below it. Of a path with variables, what stands before the first. */
export function foldersOf(rules: RuleSet | undefined): string[] {
  const folders = new Set<string>();
  visit(rules, (node) => {
    const { root } = node as Policy;
    if (root?.path !== undefined) folders.add(folderOf(root.path));
  });
  return [...folders];
}

function folderOf([first]: Template): string {
  const text = typeof first === 'string' ? first : '/';
  return text.endsWith('/') ? text : `${text}/`;
}

export interface Unserved {
  /** To go on without it would let in whoever it is to keep out. */
  readonly mistakes: readonly Mistake[];
  /** Visitors are served, in another way than was asked for. */
  readonly warnings: readonly string[];
}

/** What the model can say and the data path does not do. */
export function unservedOf(rules: RuleSet | undefined): Unserved {
  const mistakes = (rules?.sites ?? [])
    .filter(({ clientAuth }) => clientAuth !== undefined)
    .map(({ label, origin }) => ({
      place: placeOfOrigin(origin),
      subject: `${label} asks for client certificates, which no handshake asks for yet`,
      cure: 'check the client in the app, or with basic_auth or forward_auth',
    }));
  return { mistakes, warnings: [] };
}

function visit(node: unknown, seen: (node: object) => void): void {
  if (node === null || typeof node !== 'object') return;
  seen(node);
  for (const value of Object.values(node)) visit(value, seen);
}
