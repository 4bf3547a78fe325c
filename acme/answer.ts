// What the CA answers: read against a schema, or turned into an error that says what the CA said (RFC 8555 §6.7).

import * as z from 'zod';
import { CodedError } from '../src/lib/coded-error.ts';

export interface Subproblem {
  readonly type: string;
  readonly detail: string;
  readonly identifier?: string;
}

/** The CA's refusal, in its own words (RFC 8555 §6.7, RFC 9457). */
export class AcmeProblem extends Error {
  override readonly name = 'AcmeProblem';
  readonly code = 'acme-problem';
  /** Without "urn:ietf:params:acme:error:"; "about:blank" if the CA gave none. */
  readonly type: string;
  readonly status: number;
  readonly detail: string;
  readonly subproblems: readonly Subproblem[];
  /** As the CA asked, between 0 and one day. */
  readonly retryAfterMs: number | undefined;
  readonly #subject: string;
  constructor(subject: string, problem: ProblemFields) {
    const parts = problem.subproblems.map((sub) => `${sub.identifier ?? sub.type}: ${sub.detail}`);
    const why = [problem.detail, ...parts].join('; ');
    super(`${subject} was refused by the CA: ${why} (${problem.type}, status ${problem.status})`);
    this.type = problem.type;
    this.status = problem.status;
    this.detail = problem.detail;
    this.subproblems = problem.subproblems;
    this.retryAfterMs = problem.retryAfterMs;
    this.#subject = subject;
  }
  /** The same refusal with the rest of its delay, for callers that ask too early. */
  later(retryAfterMs: number): AcmeProblem {
    const { type, status, detail, subproblems } = this;
    return new AcmeProblem(this.#subject, { type, status, detail, subproblems, retryAfterMs });
  }
}

/** RFC 8555 §6.6, RFC 9110 §15.6.4: the same request may succeed later. */
export function isBusy({ type, status }: Pick<AcmeProblem, 'type' | 'status'>): boolean {
  return type === 'rateLimited' || status === 429 || status === 503;
}

export interface ProblemFields {
  type: string;
  status: number;
  detail: string;
  subproblems: readonly Subproblem[];
  retryAfterMs: number | undefined;
}

export type AcmeTransportErrorCode = 'ca-unreachable' | 'ca-timeout' | 'ca-unintelligible';

/** The CA gave no answer, or one that could not be understood. */
export class AcmeTransportError extends CodedError<AcmeTransportErrorCode> {
  override readonly name = 'AcmeTransportError';
}

/** An optional member may also be null: several CAs send every member that they know. */
export function absentIfNull<T extends z.ZodType>(schema: T) {
  return schema
    .nullish()
    .transform((value) => value ?? undefined)
    .optional();
}

/** Parses what the CA sent. Throws AcmeTransportError naming the subject and the first field that is wrong. */
export function readObject<T>(schema: z.ZodType<T>, data: unknown, subject: string): T {
  const parsed = schema.safeParse(data);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue === undefined || issue.path.length === 0 ? '' : `${issue.path.join('.')}: `;
  throw new AcmeTransportError(
    'ca-unintelligible',
    `${subject} is not understood: ${where}${issue?.message}`,
  );
}

/** Reads a problem document that stands inside another object, such as a challenge's `error`. */
export function problemFrom(subject: string, data: unknown, status = 0): AcmeProblem {
  return new AcmeProblem(subject, readProblem(data, status, undefined));
}

export function problemOf(
  subject: string,
  answer: { data: unknown; status: number; retryAfterMs: number | undefined },
): AcmeProblem {
  return new AcmeProblem(subject, readProblem(answer.data, answer.status, answer.retryAfterMs));
}

export function unintelligible(url: string, why: string, cause?: unknown): AcmeTransportError {
  return new AcmeTransportError('ca-unintelligible', `the CA's answer at ${url} is not understood: ${why}`, {
    cause,
  });
}

export function isBadNonce({ data, status }: { data: unknown; status: number }): boolean {
  return status === 400 && (data as { type?: unknown } | undefined)?.type === `${PROBLEM_PREFIX}badNonce`;
}

const PROBLEM_PREFIX = 'urn:ietf:params:acme:error:';

const ProblemSchema = z.object({
  type: z.string().catch('about:blank'),
  detail: z.string().optional().catch(undefined),
  title: z.string().optional().catch(undefined),
  status: z.number().optional().catch(undefined),
  subproblems: z
    .array(
      z.object({
        type: z.string().catch('about:blank'),
        detail: z.string().catch(''),
        identifier: z.object({ value: z.string() }).optional().catch(undefined),
      }),
    )
    .catch([]),
});

function readProblem(data: unknown, status: number, retryAfterMs: number | undefined): ProblemFields {
  const problem = ProblemSchema.safeParse(data ?? {});
  const found = problem.success ? problem.data : undefined;
  return {
    type: shortType(found?.type ?? 'about:blank'),
    status: status || (found?.status ?? 0),
    detail: printable(found?.detail ?? found?.title ?? 'it gave no reason'),
    retryAfterMs,
    subproblems: (found?.subproblems ?? []).map(({ type, detail, identifier }) => ({
      type: shortType(type),
      detail: printable(detail),
      ...(identifier === undefined ? {} : { identifier: printable(identifier.value) }),
    })),
  };
}

function shortType(type: string): string {
  return printable(type.startsWith(PROBLEM_PREFIX) ? type.slice(PROBLEM_PREFIX.length) : type);
}

/** The CA's words end up in logs and on terminals. */
export function printable(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f]+/g, ' ').slice(0, 1000);
}
