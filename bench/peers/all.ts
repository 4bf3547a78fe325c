// All peers, in the order of the table's columns.

import { caddy } from './caddy.ts';
import { haproxy2x, haproxyHttp } from './haproxy.ts';
import { nginx1x, nginxTuned } from './nginx.ts';
import { http2Proxy, httpProxy3 } from './node-proxies.ts';
import { createOurs, createTraced } from './ours.ts';
import type { Peer } from './peer.ts';

/** `before`: the program of an earlier commit, if one is to be measured. `traced`: ours is, with requests traced, too. */
export function allPeers(ourProgram: string, before?: string, traced = false): readonly Peer[] {
  const earlier =
    before === undefined ? [] : [createOurs(before, { id: 'before', title: 'dstack-ingress, before' })];
  return [
    createOurs(ourProgram),
    ...earlier,
    ...(traced ? [createTraced(ourProgram)] : []),
    nginx1x,
    nginxTuned,
    haproxy2x,
    haproxyHttp,
    caddy,
    httpProxy3,
    http2Proxy,
  ];
}
