// How upstreams are asked whether they are well: the `health` of a route, a path or a named upstream.

import { isScalar, type Node } from 'yaml';
import type { HealthProbe, HealthSettings, UpstreamProtocol } from '../../../proxy/rules/routes.ts';
import { quote } from '../../config/values.ts';
import { type Fields, readDuration, readFields, readString } from './fields.ts';
import { keys } from './keys.ts';
import type { Mistakes } from './mistakes.ts';

/** The keys of the file, and what can be asked that way. */
const KEY_OF = { http: '"path"', tcp: '"tcp"', grpc: '"grpc"' } as const;
const CHECKED_BY: Readonly<Record<HealthProbe['type'], readonly UpstreamProtocol[]>> = {
  http: ['http', 'https', 'h2c', 'auto'],
  tcp: ['http', 'https', 'h2c', 'grpc', 'grpcs', 'tcp', 'auto'],
  grpc: ['grpc', 'grpcs', 'h2c'],
};

/** How upstreams are checked. `false`: not at all, for a path whose route says otherwise. */
export function readHealth(node: Node, mistakes: Mistakes): HealthSettings | undefined {
  if (isScalar(node) && node.value === false) return undefined;
  const fields = readFields(node, keys.health, '"health"', mistakes);
  const probe = fields && readProbe(node, fields, mistakes);
  if (fields === undefined || probe === undefined) return undefined;
  return {
    probe,
    intervalMs: readDuration(fields, 'interval', 10_000, mistakes),
    timeoutMs: readDuration(fields, 'timeout', 2_000, mistakes),
    unhealthyAfter: readChecks(fields, 'unhealthy', 3, mistakes),
    healthyAfter: readChecks(fields, 'healthy', 2, mistakes),
  };
}

function readProbe(node: Node, fields: Fields, mistakes: Mistakes): HealthProbe | undefined {
  const [path, tcp, grpc, host] = ['path', 'tcp', 'grpc', 'host'].map((key) => fields.find(key));
  if ([path, tcp, grpc].filter((one) => one !== undefined).length !== 1) {
    mistakes.at(
      node,
      '"health" does not say how to ask, or says it twice',
      'wants one of "path", "tcp: true" and "grpc"',
    );
    return undefined;
  }
  if (host !== undefined && path === undefined) {
    mistakes.at(host, '"host" goes with "path" alone', 'take it away');
    return undefined;
  }
  if (path !== undefined) return readHttpProbe(path, host, mistakes);
  if (grpc !== undefined) {
    const service = readString(grpc, '"grpc"', 'my.Service', mistakes);
    if (service !== undefined && /^[A-Za-z0-9_.]{0,255}$/.test(service)) return { type: 'grpc', service };
    if (service !== undefined)
      mistakes.at(
        grpc,
        `${quote(service)} is not a service`,
        'wants its full name, or "" for the whole server',
      );
    return undefined;
  }
  if (isScalar(tcp) && tcp.value === true) return { type: 'tcp' };
  mistakes.at(tcp, '"tcp" is not true', 'wants true, or another way to ask');
  return undefined;
}

function readHttpProbe(
  pathNode: Node,
  hostNode: Node | undefined,
  mistakes: Mistakes,
): HealthProbe | undefined {
  const path = readString(pathNode, '"path"', '/healthz', mistakes);
  const host = hostNode && readString(hostNode, '"host"', 'app.internal', mistakes);
  if (path === undefined || (hostNode !== undefined && host === undefined)) return undefined;
  if (!/^\/[!-"$-~]{0,1023}$/.test(path)) {
    mistakes.at(pathNode, `${quote(path)} is not a path`, 'wants what is to be asked, as in "/healthz"');
    return undefined;
  }
  if (host !== undefined && !/^[A-Za-z0-9_.\-:[\]]{1,255}$/.test(host)) {
    mistakes.at(hostNode, `${quote(host)} is not a host`, 'wants one as in app.internal or app:8080');
    return undefined;
  }
  return { type: 'http', path, ...(host !== undefined && { host }) };
}

const MOST_CHECKS = 100;

function readChecks(fields: Fields, key: string, otherwise: number, mistakes: Mistakes): number {
  const node = fields.find(key);
  if (node === undefined) return otherwise;
  const value = isScalar(node) ? node.value : undefined;
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= MOST_CHECKS)
    return value;
  mistakes.at(
    node,
    `"${key}" is not a number of checks`,
    `wants a whole number from 1 to ${MOST_CHECKS}, without quotes`,
  );
  return otherwise;
}

/** Whether what speaks `protocol` can be asked that way; says so if not. */
export function suits(
  health: HealthSettings | undefined,
  protocol: UpstreamProtocol,
  node: Node,
  mistakes: Mistakes,
): boolean {
  if (health === undefined || CHECKED_BY[health.probe.type].includes(protocol)) return true;
  mistakes.at(
    node,
    `speaks ${protocol}, and its "health" asks by ${KEY_OF[health.probe.type]}`,
    `that wants ${CHECKED_BY[health.probe.type].join(', ')}`,
  );
  return false;
}
