// All peers, in the order of the table's columns.

import { caddy } from './caddy.ts';
import { haproxy2x, haproxyHttp } from './haproxy.ts';
import { nginx1x, nginxTuned } from './nginx.ts';
import { http2Proxy, httpProxy3 } from './node-proxies.ts';
import { createOurs } from './ours.ts';
import type { Peer } from './peer.ts';

export function allPeers(ourProgram: string): readonly Peer[] {
  return [createOurs(ourProgram), nginx1x, nginxTuned, haproxy2x, haproxyHttp, caddy, httpProxy3, http2Proxy];
}
