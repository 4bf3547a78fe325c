// Why workers do not serve as they were told to.

import { CodedError } from '../lib/coded-error.ts';

export type WorkersErrorCode = 'address-in-use' | 'worker-failed' | 'certificate-refused';

export class WorkersError extends CodedError<WorkersErrorCode> {
  override readonly name = 'WorkersError';
}
