// What rules need beyond their workers: the folders that files are served from.

import type { Policy, RuleSet, Template } from '../../proxy/rules/model.ts';

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

function visit(node: unknown, seen: (node: object) => void): void {
  if (node === null || typeof node !== 'object') return;
  seen(node);
  for (const value of Object.values(node)) visit(value, seen);
}
