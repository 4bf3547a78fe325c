// A file for conf.d, and what is asked of the server in it.

import type { Ask } from './clients.ts';

export interface Case {
  /** Also the name of the server and, with `.conf`, of the file. */
  readonly name: string;
  readonly conf: string;
  readonly asks: readonly (string | Ask)[];
}

/** Names of what files share have the case's in front: maps, zones and upstreams are for all files. */
export function oneServer(name: string, inside: string, asks: Case['asks'], http = ''): Case {
  return { name, conf: `${http}\nserver {\n  listen TLS; server_name ${name}.test;\n${inside}\n}\n`, asks };
}

/** `Basic` credentials. */
export function basic(user: string, password: string): readonly [string, string] {
  return ['Authorization', `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`];
}

/** What the upstream shall say. */
export function say(reply: {
  status?: number;
  fields?: readonly (readonly [string, string])[];
  body?: string;
}): readonly [string, string] {
  return ['X-Say', JSON.stringify(reply)];
}

/** The same for each of several targets. */
export function each(targets: readonly string[], more: Omit<Ask, 'target'>): Ask[] {
  return targets.map((target) => ({ target, ...more }));
}

/** Paths that are spelled in many ways. */
export const spellings: readonly string[] = [
  '/',
  '/a',
  '/a/',
  '/ab',
  '/a/b',
  '/A/B',
  '/a%2Fb',
  '/a%20b/c',
  '/a//b',
  '//a/b',
  '/a/./b/../c',
  '/a/b/..',
  '/a/b/.',
  '/%61/b',
  '/a/%3F%23%25',
  '/a/b?x=1&y=2',
  '/a/b?x=%2F+a',
  '/a+b/c%2Bd',
  '/..',
  '/a/../..',
  '/a/%2e%2e/b',
  '/a/%2e%2e%2f%2e%2e/b',
  '/a/..;/b',
  '/a/...',
  '/a%00b',
  '/a%',
  '/a%zz',
  '/a%2',
  '/a/%E4%BD%A0',
  '/a/[b]~;:@&=c',
  '/a/b%5C%5E%7C',
  '/a?',
  '/a??',
  '/a?b?c',
  '/a/b;c=d',
  '/a/%7Eb',
  '/a/%0Ab',
  "/a/'b(c)!*",
];
