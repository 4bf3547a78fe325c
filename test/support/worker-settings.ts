// Settings of workers for tests that start them without the rest of the program.

import { defaultLimits } from '../../proxy/limits.ts';
import type { WorkerSettings } from '../../src/workers/messages.ts';

export const workerSettings: WorkerSettings = {
  host: '127.0.0.1',
  port: 0,
  plainHttp: undefined,
  alpn: ['h2', 'http/1.1'],
  proxyProtocol: false,
  trustedProxies: [],
  trustedForwarders: [],
  limits: defaultLimits,
  upstreamCa: undefined,
  evidence: true,
  sharedChallenges: false,
  accessLog: undefined,
  requestIds: false,
  logLevel: 'silent',
  readableLog: false,
};
