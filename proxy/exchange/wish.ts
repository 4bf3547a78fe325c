// What a request whose rules balance asks of the choice among servers, and the cookie that keeps its sender at one.

import { createHmac } from 'node:crypto';
import { isIPv4 } from 'node:net';
import type { CompiledBalancing, Field, Fields, Pool } from '../rules/compiled.ts';
import { authorityOf } from '../rules/routes.ts';
import type { Forward } from '../rules/step.ts';
import { cookie } from '../rules/variables.ts';
import type { Endpoint, Wish } from '../upstream/balance.ts';
import type { RuledTries } from './retry.ts';

/** `client`: its address. Undefined: nothing but how busy they are, or whose turn it is. */
export function wishOf(
  { pool, hashKey }: Forward,
  client: string,
  headers: Fields,
  tries: RuledTries | undefined,
): Wish | undefined {
  const key = pool.balance?.by === 'address' ? neighbourhood(client) : hashKey === '' ? undefined : hashKey;
  const prefers = preferenceOf(pool, headers);
  const tried = tries?.tried;
  if (key === undefined && prefers === undefined && tried === undefined) return undefined;
  return { key, prefers, tried };
}

/** As nginx's ip_hash: neighbours of one network go to the same server. */
function neighbourhood(client: string): string {
  return isIPv4(client) ? client.slice(0, client.lastIndexOf('.')) : client;
}

type Sticky = CompiledBalancing & { readonly by: 'cookie' };

function stickyOf({ balance }: Pool): Sticky | undefined {
  return balance?.by === 'cookie' ? balance : undefined;
}

function preferenceOf(pool: Pool, headers: Fields): Wish['prefers'] {
  const sticky = stickyOf(pool);
  const sent = sticky === undefined ? '' : cookie(headers, sticky.name);
  if (sticky === undefined || sent === '') return undefined;
  return (endpoint) => tagOf(endpoint, pool, sticky) === sent;
}

/** Set-Cookie for a client that has come to another server than its cookie names, or has none. */
export function stickyCookie(pool: Pool, endpoint: Endpoint | undefined, headers: Fields): Field | undefined {
  const sticky = stickyOf(pool);
  if (sticky === undefined || endpoint === undefined) return undefined;
  const tag = tagOf(endpoint, pool, sticky);
  if (cookie(headers, sticky.name) === tag) return undefined;
  const age = sticky.maxAgeSeconds === undefined ? '' : `; Max-Age=${sticky.maxAgeSeconds}`;
  return {
    name: 'Set-Cookie',
    value: `${sticky.name}=${tag}; Path=/${age}; Secure; HttpOnly; SameSite=Lax`,
  };
}

const tags = new WeakMap<Endpoint, Map<string, string>>();

/**
 * The server's address under the secret: nobody can make one up, or read an address out of it. The same in all workers
 * and, with a secret of the file, in all replicas.
 */
function tagOf(endpoint: Endpoint, { name }: Pool, { secret }: Sticky): string {
  const known = tags.get(endpoint) ?? new Map<string, string>();
  tags.set(endpoint, known);
  const by = `${name} ${secret}`;
  let tag = known.get(by);
  if (tag === undefined) {
    const where = `${name} ${authorityOf(endpoint.address)} ${endpoint.ip}`;
    tag = createHmac('sha256', secret).update(where).digest('base64url').slice(0, 22);
    known.set(by, tag);
  }
  return tag;
}
