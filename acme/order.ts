// Orders, authorizations and challenges as the CA describes them (RFC 8555 §7.1.3 to §7.1.6), read with care.

import * as z from 'zod';
import { baseOf, type Domain, parseDomain } from '../src/lib/domain.ts';
import { absentIfNull, problemFrom, readObject } from './answer.ts';
import type { AcmeResponse } from './ca-http.ts';
import { type Challenge, type ChallengeType, IssuerError } from './issuer.ts';

/** `null` is POST-as-GET (RFC 8555 §6.3). */
export type Post = (url: string, payload: object | null, signal: AbortSignal) => Promise<AcmeResponse>;

/** What the CA said, and when it wants to be asked again. */
export interface Polled<T> {
  readonly value: T;
  readonly retryAfterMs: number | undefined;
}

const AUTHORIZATION_STATUS = ['pending', 'valid', 'invalid', 'deactivated', 'expired', 'revoked'] as const;
/**
 * Only the status is read at once. Each other member is read when the status calls for it: CAs leave out members that have
 * become useless, or send null.
 */
const OrderSchema = z.object({
  status: z.enum(['pending', 'ready', 'processing', 'valid', 'invalid']),
  expires: z.unknown().optional(),
  authorizations: z.unknown().optional(),
  finalize: z.unknown().optional(),
  certificate: z.unknown().optional(),
  error: z.unknown().optional(),
});
const AuthorizationSchema = z.object({
  status: z.enum(AUTHORIZATION_STATUS),
  identifier: z.unknown().optional(),
  wildcard: absentIfNull(z.boolean()),
  challenges: absentIfNull(z.array(z.unknown())),
});
const IdentifierSchema = z.object({ value: z.string().refine(isDomain) });
const ChallengeSchema = z.object({
  url: z.string(),
  /** RFC 8555 §8 requires it; where it is missing, the challenge counts as unanswered. */
  status: absentIfNull(z.string()),
  token: absentIfNull(z.string()),
});

export interface Order extends z.infer<typeof OrderSchema> {
  readonly url: string;
}
export interface Authorization extends z.infer<typeof AuthorizationSchema> {
  readonly url: string;
}

/** A challenge to be answered. */
export interface Task {
  readonly authorization: Authorization;
  readonly challenge: Challenge;
  readonly url: string;
  readonly status: string;
}

/** RFC 8555 §8.1 and §8.3: base64url, at least 128 bits. */
const TOKEN = /^[A-Za-z0-9_-]{22,}$/;

export async function fetchOrder(post: Post, url: string, signal: AbortSignal): Promise<Polled<Order>> {
  const { data, retryAfterMs } = await post(url, null, signal);
  return { value: readOrder(url, data), retryAfterMs };
}

export async function fetchAuthorization(
  post: Post,
  url: string,
  signal: AbortSignal,
): Promise<Polled<Authorization>> {
  const { data, retryAfterMs } = await post(url, null, signal);
  return { value: { ...readObject(AuthorizationSchema, data, `authorization ${url}`), url }, retryAfterMs };
}

export function readOrder(url: string, data: unknown): Order {
  return { ...readObject(OrderSchema, data, `order ${url}`), url };
}

/** RFC 8555 §7.1.3: one for each name. Very many more are refused, because each costs a request. */
export function authorizationsOf({ url, authorizations }: Order, names: readonly Domain[]): string[] {
  const most = 10 + 2 * names.length;
  return readObject(z.array(z.string()).max(most), authorizations, `the authorizations of order ${url}`);
}

/**
 * The challenge of this type in a pending authorization. Throws IssuerError if there is none or it has failed, and ignores
 * how challenges of other types look.
 */
export function taskOf(authorization: Authorization, type: ChallengeType, thumbprint: string): Task {
  const { url, status } = authorization;
  if (status !== 'pending') throw authorizationFailed(authorization);
  const { value } = readObject(
    IdentifierSchema,
    authorization.identifier,
    `the identifier of authorization ${url}`,
  );
  const challenges = challengesOf(authorization);
  const found = challenges.find((each) => each.type === type);
  if (found === undefined) {
    const offered = challenges.map((each) => String(each.type)).join(', ') || 'none';
    throw new IssuerError(
      'no-challenge',
      `the CA offers no ${type} for ${value}, but ${offered.slice(0, 200)}`,
    );
  }
  const sound = readObject(ChallengeSchema, found, `the ${type} challenge for ${value}`);
  if (sound.status === 'invalid') throw authorizationFailed(authorization, type);
  const challenge: Challenge = {
    domain: baseOf(parseDomain(value)),
    wildcard: authorization.wildcard === true,
    type,
    keyAuthorization: type === 'dns-persist-01' ? '' : keyAuthorizationOf(sound.token, thumbprint, value),
  };
  return { authorization, challenge, url: sound.url, status: sound.status ?? 'pending' };
}

function keyAuthorizationOf(token: string | undefined, thumbprint: string, name: string): string {
  const sound = readObject(z.string().regex(TOKEN), token, `the token for ${name}`);
  return `${sound}.${thumbprint}`;
}

/** Whether the challenge at this URL is invalid. RFC 8555 §7.1.6 makes its authorization invalid too; not every CA does. */
export function challengeFailed(authorization: Authorization, url: string): boolean {
  return challengesOf(authorization).some((each) => each.url === url && each.status === 'invalid');
}

/** Those that are objects; their members are not checked yet. */
function challengesOf({ challenges }: Authorization): Record<string, unknown>[] {
  return (challenges ?? []).filter(
    (each): each is Record<string, unknown> => typeof each === 'object' && each !== null,
  );
}

/** The cause is the reason that the challenge of this type gives, or else that of any other. */
export function authorizationFailed(authorization: Authorization, type?: ChallengeType): IssuerError {
  const { url, status } = authorization;
  const identifier = IdentifierSchema.safeParse(authorization.identifier);
  const name = identifier.success ? identifier.data.value : url;
  const reasons = challengesOf(authorization).filter(({ error }) => error !== undefined && error !== null);
  const { error } = reasons.find((each) => each.type === type) ?? reasons[0] ?? {};
  const cause = error === undefined ? undefined : problemFrom(`the challenge for ${name}`, error);
  return new IssuerError('authorization-failed', `the authorization for ${name} is ${status}`, { cause });
}

function isDomain(text: string): boolean {
  try {
    parseDomain(text);
    return true;
  } catch {
    return false;
  }
}

export function orderFailed({ url, error }: Order): IssuerError {
  const cause = error === undefined || error === null ? undefined : problemFrom(`order ${url}`, error);
  return new IssuerError('order-failed', `order ${url} became invalid`, { cause });
}
