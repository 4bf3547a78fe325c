// What the doctor finds of the upstreams: whether each can be reached from here, and speaks what is said of it.

import { lookAtUpstreams, upstreamAddresses } from '../../proxy/upstream/watch.ts';
import type { Config } from '../config/config.ts';
import { type Finding, findingsOf } from './doctor-report.ts';

const { ok, fail } = findingsOf('upstreams');

export async function upstreamFindings({ routes, upstreamCa, listen }: Config): Promise<Finding[]> {
  const addresses = upstreamAddresses(routes);
  const loops = addresses.filter(({ address }) => isOwn(address, listen.port)).map(({ name }) => name);
  const troubles = await lookAtUpstreams(routes, upstreamCa, true);
  return addresses.map(({ name, settings }) => {
    if (loops.includes(name)) {
      return fail(
        name,
        'leads back to the ingress',
        'a request would go round until a limit ends it',
        `name the container of the app instead: its name in the compose file`,
      );
    }
    const why = troubles.get(name);
    if (why === undefined)
      return ok(
        name,
        settings.protocol === 'tcp' ? 'can be reached' : 'can be reached, and speaks what it should',
      );
    return fail(name, why, 'visitors of its routes get 502', cureOf(why));
  });
}

/** Where a fault says itself what to write, that is the cure. */
function cureOf(why: string): string {
  const [, advice] = /: (write \S+.*)$/.exec(why) ?? [];
  if (advice !== undefined) return `${advice} in the route`;
  if (/certificate|untrusted|trust/i.test(why))
    return 'name its root with UPSTREAM_CA_FILE, or give it a certificate for that name';
  if (/name|resolve/i.test(why))
    return 'write the name of the service in the compose file, and let both share a network';
  return 'see whether the app runs, and listens on that port and on all addresses, not on 127.0.0.1 of its own container';
}

function isOwn({ host, port }: { host: string; port: number }, own: number): boolean {
  return port === own && /^(localhost|127\.\d+\.\d+\.\d+|::1|0\.0\.0\.0|::)$/.test(host);
}
