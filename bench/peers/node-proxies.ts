// The two Node packages that proxy HTTP/1.1 and HTTP/2, each as the smallest program that uses it well.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { nodeCommand } from '../processes.ts';
import { HTTP_ROWS, type RowId } from '../rows/ids.ts';
import type { Peer } from './peer.ts';

/** Neither package speaks HTTP/2 to an upstream. */
const rows: readonly RowId[] = HTTP_ROWS.filter((id) => id !== 'grpc' && id !== 'grpc-stream');

export const httpProxy3: Peer = nodeProxy('http-proxy-3', 'http-proxy-3.ts');
export const http2Proxy: Peer = nodeProxy('http2-proxy', 'http2-proxy.ts');

function nodeProxy(id: string, file: string): Peer {
  return {
    id,
    title: id,
    version: versionOf(id),
    rows,
    async prepare({ port, certificate, target }) {
      const settings = JSON.stringify({ port, certificate, target: target.port });
      return nodeCommand(fileURLToPath(new URL(file, import.meta.url)), [settings]);
    },
  };
}

function versionOf(name: string): string {
  const manifest = new URL(`../../node_modules/${name}/package.json`, import.meta.url);
  return (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version;
}
