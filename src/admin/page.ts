// The status page: one file with its own style and script, and a policy that lets it load nothing else.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

export interface Page {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** It lies beside this file, and beside the bundle. */
export function readPage(): Page {
  const body = readFileSync(new URL('./status-page.html', import.meta.url));
  const text = body.toString('utf8');
  const policy = [
    "default-src 'none'",
    "connect-src 'self'",
    `script-src ${hashesOf(text, 'script')}`,
    `style-src ${hashesOf(text, 'style')}`,
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; ');
  return {
    headers: { 'Content-Type': 'text/html; charset=utf-8', 'Content-Security-Policy': policy },
    body,
  };
}

/** Of what stands in the page itself: nothing that somebody might smuggle into it runs (CSP 3 §2.3.1). */
function hashesOf(text: string, element: 'script' | 'style'): string {
  const found = [...text.matchAll(new RegExp(`<${element}>(.*?)</${element}>`, 'gs'))];
  return found
    .map(([, inner]) => `'sha256-${createHash('sha256').update(inner!).digest('base64')}'`)
    .join(' ');
}
