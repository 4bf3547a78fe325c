// What a request would meet, as lines for people: from the rules, or from the plain routes where no rule takes its host.

import { existsSync, statSync } from 'node:fs';
import { compile } from '../../proxy/rules/compile.ts';
import type { Facts } from '../../proxy/rules/compiled.ts';
import { type Disk, explain } from '../../proxy/rules/explain.ts';
import type { RuleSet } from '../../proxy/rules/model.ts';
import { authorityOf, createRouteTable, type Route } from '../../proxy/rules/routes.ts';
import { hostName } from '../../proxy/rules/site.ts';
import { quote } from '../config/values.ts';

export interface RequestLine {
  readonly method: string;
  readonly scheme: 'http' | 'https';
  readonly host: string;
  readonly port: number;
  readonly target: string;
}

/** `GET https://host/path`, or the URL alone. */
export function readRequestLine(text: string): RequestLine | { readonly fault: string } {
  const [, method = 'GET', scheme, authority = '', target = ''] =
    /^(?:([A-Za-z]+) +)?(https?):\/\/([^/?#\s]+)([/?][^#\s]*)?$/.exec(text.trim()) ?? [];
  if (scheme !== 'http' && scheme !== 'https') return { fault: `${quote(text)} is not a request` };
  const port = /:(\d{1,5})$/.exec(authority)?.[1];
  return {
    method: method.toUpperCase(),
    scheme,
    host: authority,
    port: port === undefined ? (scheme === 'https' ? 443 : 80) : Number(port),
    target: target.startsWith('/') ? target : `/${target}`,
  };
}

export interface Explanation {
  readonly lines: readonly string[];
  /** Whether anything takes it. */
  readonly taken: boolean;
}

export function explainRequest(
  request: RequestLine,
  routes: readonly Route[],
  rules: RuleSet,
  disk: Disk = onDisk,
): Explanation {
  const compiled = compile(rules);
  const host = hostName(request.host);
  if (compiled.find(host) === undefined) return explainPlain(request, host, routes);
  const lines = explain(compiled, factsOf(request), disk).map(({ text, origin, depth }) => {
    const place = origin === undefined ? '' : `  (${origin})`;
    return `${'  '.repeat(depth)}${text}${place}`;
  });
  return { lines, taken: true };
}

function explainPlain({ method, target }: RequestLine, host: string, routes: readonly Route[]): Explanation {
  const match = createRouteTable(routes).forward(host, target.split('?', 1)[0]!);
  if (match === undefined) return { lines: [`no route takes ${host}${target}: 404`], taken: false };
  const { route, upstream } = match;
  const { protocol, addresses } = upstream;
  const scheme = protocol === 'auto' ? '' : `${protocol}://`;
  const servers = addresses.map((address) => `${scheme}${authorityOf(address)}`).join(', ');
  return {
    lines: [`route ${route} takes it, without rules`, `forwards ${method} ${target} to ${servers}`],
    taken: true,
  };
}

/** What a first visitor's request would bring along: nothing. */
function factsOf({ method, scheme, host, port, target }: RequestLine): Facts {
  return {
    method,
    target,
    host,
    protocol: 'HTTP/1.1',
    scheme,
    headers: { all: (name) => (name === 'host' ? [host] : []) },
    headerBytes: 0,
    contentLength: -1,
    clientAddress: '192.0.2.1',
    clientPort: 0,
    serverAddress: '',
    serverPort: port,
    tls: undefined,
    connection: 1,
    connectionRequests: 1,
    startedAt: 0,
    requestId: () => '0'.repeat(32),
  };
}

const onDisk: Disk = (kind, path) => {
  if (!existsSync(path)) return false;
  if (kind === 'exists') return true;
  const stats = statSync(path);
  if (kind === 'directory') return stats.isDirectory();
  return kind === 'executable' ? (stats.mode & 0o111) !== 0 : stats.isFile();
};
