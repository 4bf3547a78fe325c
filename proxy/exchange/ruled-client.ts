// What carrying out rules needs of the side of the client; each protocol has its own.

import type { FaultCode } from '../faults.ts';
import type { Field } from '../rules/compiled.ts';
import type { ForwardMatch } from '../rules/routes.ts';
import type { Forward } from '../rules/step.ts';
import type { AskedFacts } from './asked-facts.ts';
import { editedRequest } from './edited-request.ts';
import type { Exchange } from './exchange.ts';
import { type ForwardedBefore, forwardedFields } from './headers.ts';

export type OwnFields = readonly (readonly [name: string, value: string])[];

/** A reply of ours. `body` undefined: the usual one of this status, or of the fault. */
export interface OwnReply {
  readonly status: number;
  readonly fields: OwnFields;
  readonly body: Buffer | undefined;
  readonly fault: FaultCode | undefined;
}

export interface RuledClient {
  readonly exchange: Exchange;
  readonly facts: AskedFacts;
  readonly nominated: readonly string[];
  /** What the client said of those before it. */
  readonly forwardedBefore: ForwardedBefore;
  /** `:protocol` of an extended CONNECT. */
  readonly askedProtocol: string | undefined;
  /** Whether names with an underscore that have come so far pass on, whatever the rules say. */
  readonly passUnderscores: boolean | undefined;
  /** Whether the body, or what is left of it, can still be sent to another upstream of this kind. */
  hasWholeBody(match: ForwardMatch): boolean;
  /** Nobody wants the body any more. */
  ignoreBody(): void;
  /** `clientAddress`: as the rules know it, who may know the client behind a proxy. */
  forward(step: Forward, match: ForwardMatch, clientAddress: string): void;
  reply(reply: OwnReply): void;
  /** A reply whose body is a stream. */
  stream(
    status: number,
    fields: OwnFields,
    body: AsyncIterable<Uint8Array>,
    length: number | undefined,
  ): void;
  /** Ends without a word. */
  close(): void;
}

/** What the fields that leave for an upstream depend on, beside the step. */
export interface ForwardedWith {
  readonly clientAddress: string;
  /** What is said of this request alone. */
  readonly own: OwnFields;
  readonly withBody: boolean;
}

/** The fields that leave for the upstream, without Host and without what frames the body. */
export function fieldsFor(
  client: RuledClient,
  step: Forward,
  { clientAddress, own, withBody }: ForwardedWith,
): readonly Field[] {
  const { facts, nominated, exchange, passUnderscores, forwardedBefore } = client;
  const { serverPort, trustedClient } = exchange.connection;
  const known = { clientAddress, serverPort, trustedClient };
  return editedRequest(step, {
    sent: facts.headers.list(),
    nominated,
    forwarded: step.forwardedFields ? forwardedFields(known, facts.host, forwardedBefore) : [],
    own,
    withBody,
    ...(passUnderscores === undefined ? {} : { passUnderscores }),
  });
}
