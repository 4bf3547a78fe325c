// The library: verify a host as data, judge what was seen of it again, and speak only to what was verified.

export type { LogSource } from './ask-logs.ts';
export {
  adviceOn,
  type Check,
  type CheckId,
  checkIds,
  checkTable,
  type Group,
  groups,
  type Report,
  reportOf,
  type Verdicts,
} from './checks.ts';
export type { Expected, KeyProvider, TrustedSystem } from './expected.ts';
export { judge } from './judge.ts';
export {
  type AlpnProtocol,
  createVerifiedAgent,
  createVerifiedConnector,
  createVerifiedDispatcher,
  lackingProof,
  NotVerifiedError,
  type VerifiedConnector,
  type VerifiedHost,
} from './pinned.ts';
export { loadSeen, prepareFolder, SavedError, saveSeen } from './saved.ts';
export type { Seen } from './seen.ts';
export { parseTarget, TargetError, type Verification, type VerifyOptions, verify } from './verify.ts';
