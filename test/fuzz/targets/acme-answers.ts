// What a CA answers (acme/transport.ts): problems, waiting times and objects of any shape end in a value or a coded error.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import * as z from 'zod';
import { AcmeProblem, AcmeTransportError, problemFrom, readObject } from '../../../acme/answer.ts';
import { parseRetryAfter } from '../../../src/lib/retry-after.ts';
import { fuzzTarget } from '../target.ts';

const now = new Date('2026-06-01T00:00:00Z');
const DAY_MS = 86_400_000;

interface Input {
  readonly data: unknown;
  readonly retryAfter: string;
  readonly status: number;
}

const problem = fc.record(
  {
    type: fc.oneof(fc.constantFrom('urn:ietf:params:acme:error:badNonce', 'about:blank'), fc.anything()),
    detail: fc.oneof(fc.string(), fc.anything()),
    status: fc.oneof(fc.nat({ max: 999 }), fc.anything()),
    subproblems: fc.oneof(
      fc.array(
        fc.record(
          {
            type: fc.string(),
            detail: fc.string(),
            identifier: fc.record({ type: fc.string(), value: fc.string() }),
          },
          { requiredKeys: [] },
        ),
      ),
      fc.anything(),
    ),
  },
  { requiredKeys: [] },
);

const shape = z.object({ status: z.string(), authorizations: z.array(z.string()) });

export const acmeAnswers = fuzzTarget<Input>({
  name: 'answers of a CA',
  input: fc.record({
    data: fc.oneof(problem, fc.anything(), fc.jsonValue()),
    retryAfter: fc.oneof(
      fc.string(),
      fc.integer().map(String),
      fc.date({ noInvalidDate: true }).map((date) => date.toUTCString()),
      fc.constantFrom(
        '3000000',
        '1e9',
        '-1',
        '99999999999999999999',
        ' 5 ',
        '5.5',
        'Thu, 01 Jan 1970 00:00:00 GMT',
      ),
    ),
    status: fc.nat({ max: 999 }),
  }),
  check({ data, retryAfter, status }) {
    const refusal = problemFrom('an order', data, status);
    assert.ok(refusal instanceof AcmeProblem);
    assert.ok(
      typeof refusal.type === 'string' && typeof refusal.detail === 'string' && refusal.message !== '',
    );
    const wait = parseRetryAfter(retryAfter, now);
    assert.ok(wait === undefined || (wait >= 0 && wait <= DAY_MS), `${wait} ms`);
    try {
      readObject(shape, data, 'an order');
    } catch (error) {
      assert.ok(error instanceof AcmeTransportError, String(error));
    }
  },
  growing: {
    'a long header': (size) => ({ data: null, retryAfter: '9'.repeat(size), status: 400 }),
    'many subproblems': (size) => ({
      data: {
        type: 'x',
        detail: 'y',
        subproblems: Array.from({ length: size / 20 }, () => ({ type: 'a', detail: 'b' })),
      },
      retryAfter: '',
      status: 400,
    }),
  },
});
