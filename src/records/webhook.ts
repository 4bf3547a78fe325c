// Asks a service of the operator's to make the records: a signed letter that says which, from whom, and proves it with a quote.

import { createHash, createHmac } from 'node:crypto';
import type { DnsRecord } from '../../dns/provider.ts';
import { type Clock, systemClock } from '../lib/clock.ts';
import { HttpError, httpRequest } from '../lib/fetch.ts';
import type { Log } from '../lib/log.ts';

export interface WebhookOptions {
  readonly url: string;
  /** Shared with the receiver, who can tell by it that the letter is ours. */
  readonly token?: string;
  readonly challenge: string;
  readonly identity: () => Promise<{ readonly appId: string; readonly instanceId: string }>;
  /** A quote over these 32 bytes, as the agent gives it. Without it the receiver has only the token to go by. */
  readonly attest?: (payloadSha256: Buffer) => Promise<Readonly<Record<string, unknown>>>;
  readonly log: Log;
  /** For one try. Default 15 s. */
  readonly timeoutMs?: number;
  /** Default 3. */
  readonly attempts?: number;
  readonly clock?: Clock;
}

export interface Webhook {
  /** One letter for each domain. Rejects with WebhookError when the receiver does not take one. */
  notify(records: readonly DnsRecord[], signal: AbortSignal): Promise<void>;
}

export class WebhookError extends Error {
  override readonly name = 'WebhookError';
  readonly code = 'webhook-refused';
}

/**
 * The letter is that of the 2.x images: `payload` is a string, so that the receiver checks `hmac_sha256` (hex, keyed with
 * the token) and the quote's report data (SHA-256 of the payload) over the very bytes it was sent.
 */
export function createWebhook(options: WebhookOptions): Webhook {
  if (options.token === undefined) {
    options.log.warn({}, 'the DNS webhook has no token: its receiver cannot tell who asks');
  }
  return {
    async notify(records, signal) {
      for (const [domain, own] of byDomain(records)) {
        await post(JSON.stringify(await letter(domain, own, options)), signal, options);
        options.log.info({ domain, records: own.length }, 'asked the webhook for DNS records');
      }
    },
  };
}

/** A record belongs to the domain whose name it ends with, the longest that does; an alias is its own domain. */
function byDomain(records: readonly DnsRecord[]): Map<string, DnsRecord[]> {
  // An alias of a name with an underscore is delegated, and belongs to the domain below.
  const isDomain = ({ type, name }: DnsRecord) => type === 'CNAME' && !name.startsWith('_');
  const domains = records.filter(isDomain).map(({ name }) => name);
  const base = (domain: string) => domain.replace(/^\*\./, '');
  const longestFirst = domains.toSorted((a, b) => base(b).length - base(a).length);
  const groups = new Map<string, DnsRecord[]>();
  for (const record of records) {
    const owner = longestFirst.find(
      (domain) => record.name === domain || `.${record.name}`.endsWith(`.${base(domain)}`),
    );
    const domain = isDomain(record) ? record.name : (owner ?? record.name);
    groups.set(domain, [...(groups.get(domain) ?? []), record]);
  }
  return groups;
}

async function letter(domain: string, records: readonly DnsRecord[], options: WebhookOptions) {
  const { appId, instanceId } = await options.identity();
  const timestamp = Math.floor((options.clock ?? systemClock).now().getTime() / 1000);
  // Keys in alphabetical order, as the receivers of 2.x may have come to expect.
  const payload = JSON.stringify({
    app_id: appId,
    challenge: options.challenge,
    domain,
    instance_id: instanceId,
    records: records.map(({ name, type, value }) => ({ exact: false, name, note: '', type, value })),
    timestamp,
    version: 1,
  });
  const signature = options.token === undefined ? {} : { hmac_sha256: hmac(payload, options.token) };
  return { payload, ...signature, ...(await attestation(payload, options)) };
}

function hmac(payload: string, token: string): string {
  return createHmac('sha256', token).update(payload).digest('hex');
}

async function attestation(payload: string, { attest, log }: WebhookOptions) {
  if (attest === undefined) return {};
  const digest = createHash('sha256').update(payload).digest();
  try {
    return { attestation: { ...(await attest(digest)), report_data: digest.toString('hex') } };
  } catch (err) {
    log.warn({ err }, 'the letter to the DNS webhook goes without a quote');
    return {};
  }
}

async function post(body: string, signal: AbortSignal, options: WebhookOptions): Promise<void> {
  const { url, timeoutMs = 15_000, attempts = 3, clock = systemClock, log } = options;
  const headers = { 'content-type': 'application/json', 'user-agent': 'dstack-ingress' };
  for (let attempt = 1; ; attempt++) {
    const failure = await httpRequest({
      method: 'POST',
      url,
      headers,
      body,
      timeoutMs,
      maxBytes: 65_536,
      signal,
    }).then(
      ({ status }) => (status >= 200 && status <= 299 ? undefined : new Error(`HTTP status ${status}`)),
      (error: unknown) => error as Error,
    );
    if (failure === undefined) return;
    signal.throwIfAborted();
    if (attempt >= attempts) {
      const cure = failure instanceof HttpError && failure.cure !== undefined ? `; ${failure.cure}` : '';
      throw new WebhookError(`the DNS webhook did not take the records: ${failure.message}${cure}`, {
        cause: failure,
      });
    }
    log.warn({ attempt, err: failure }, 'the DNS webhook did not take the records');
    await clock.sleep(1_000 * 2 ** attempt, signal);
  }
}
