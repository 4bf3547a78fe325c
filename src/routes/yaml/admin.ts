// The key "admin": the ingress shows itself on a route, to those whom the route lets in.

import type { Node } from 'yaml';
import type { HeaderEdit, LocationMatch, Policy } from '../../../proxy/rules/model.ts';
import type { ContentDraft } from './content-draft.ts';
import { type Fields, isOn } from './fields.ts';
import type { AdminUpstream, Reading } from './reading.ts';
import { type Manner, upstreamOf } from './upstream.ts';

/** `policy`: what holds where it stands. */
export function readAdmin(
  node: Node,
  fields: Fields,
  match: LocationMatch,
  { policy, manner }: { readonly policy: Policy; readonly manner: Manner },
  reading: Reading,
): ContentDraft | undefined {
  const { mistakes, shared } = reading;
  const { admin } = shared.options;
  if (!isOn(node)) {
    mistakes.at(node, '"admin" is not true', 'wants true, or to be taken away');
    return undefined;
  }
  const headers = fields.find('headers');
  if (headers !== undefined)
    mistakes.at(
      headers,
      '"headers" beside "admin"',
      'wants to be taken away: what is asked and said is fixed',
    );
  if (!letsInSome(policy))
    mistakes.at(
      node,
      'everybody could see domains, routes and traffic',
      'wants "basic_auth", "forward_auth" or "allow" around it',
    );
  const strip = stripOf(match);
  if (strip === undefined)
    mistakes.at(node, 'the page has parts beside it', 'wants a "prefix" that ends with /, as in /status/');
  if (admin === undefined)
    mistakes.at(
      node,
      'there is nothing to show: ADMIN_ADDRESS is not set, or it is a socket, which workers cannot open',
      'wants ADMIN_ADDRESS=127.0.0.1:9180, or another port',
    );
  if (admin === undefined || strip === undefined) return undefined;
  return {
    content() {
      const { group, protocol, host } = upstreamOf(
        { ...manner.timeouts, protocol: 'http', addresses: [{ host: admin.host, port: admin.port }] },
        shared,
      );
      return {
        kind: 'proxy',
        upstream: group.name,
        protocol,
        host,
        origin: mistakes.originOf(node),
        ...(strip !== '/' && { stripPrefix: strip }),
      };
    },
    destination: undefined,
    isPlain: false,
    rewrite: [],
    policy: { requestHeaders: headersFor(admin) },
    node,
  };
}

/** Whether anything but the path decides who gets in. */
function letsInSome({ basicUsers = [], basicRealm, authRequest, addresses = [] }: Policy): boolean {
  const password = basicUsers.length > 0 && basicRealm !== undefined && basicRealm !== false;
  const asked = authRequest !== undefined && authRequest !== false;
  return password || asked || addresses.some(({ allow, range }) => !allow && range === 'all');
}

function stripOf(match: LocationMatch): string | undefined {
  return match.kind === 'prefix' && match.path.endsWith('/') ? match.path : undefined;
}

/** It refuses names that it does not know, and what the client has proven is not its token. */
function headersFor({ token }: AdminUpstream): HeaderEdit[] {
  return [
    { do: 'set', name: 'Host', value: ['localhost'] },
    token === undefined
      ? { do: 'remove', name: 'Authorization' }
      : { do: 'set', name: 'Authorization', value: [`Bearer ${token}`] },
  ];
}
