// Workers and the admin server around them, without the rest of the program.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { plainAccessLog } from '../../proxy/exchange/access-entry.ts';
import type { Route } from '../../proxy/rules/routes.ts';
import { createAccessLogFile } from '../../src/access-log-file.ts';
import { createAdmin } from '../../src/admin/admin.ts';
import { createNews } from '../../src/admin/news.ts';
import { createTally } from '../../src/admin/tally.ts';
import type { AdminSettings } from '../../src/config/admin.ts';
import { parseDomain } from '../../src/lib/domain.ts';
import { silentLog } from '../../src/lib/log.ts';
import { createProcessFigures } from '../../src/workers/process-figures.ts';
import { createWorkers } from '../../src/workers/workers.ts';
import { appCertificate, HOST } from './proxy.ts';
import { workerSettings } from './worker-settings.ts';

export interface ShownIngressOptions {
  readonly routes: readonly Route[];
  readonly count?: number;
  readonly settings?: AdminSettings;
  /** Where lines of the access log go; default: nowhere. */
  readonly accessLogFile?: string;
}

export async function startShownIngress(options: ShownIngressOptions) {
  const { routes, count = 2, settings, accessLogFile: path } = options;
  const folder = await mkdtemp(join(tmpdir(), 'shown-ingress-'));
  const logFile = path === undefined ? undefined : createAccessLogFile({ path, log: silentLog });
  const accessLog = logFile && { ...plainAccessLog, toStdout: false, toFile: true };
  const workers = createWorkers({
    count,
    settings: { ...workerSettings, accessLog },
    lines: logFile,
    log: silentLog,
  });
  await workers.setRoutes(routes);
  await workers.setCertificates([appCertificate]);
  const { port } = await workers.start();
  const socketPath = join(folder, 'private', 'admin.sock');
  const state = { stopping: false, covered: true };
  const notAfter = new Date(Date.now() + 86_400_000);
  const served = {
    ...appCertificate,
    names: [parseDomain(HOST)],
    serial: '01',
    issuer: 'itself',
    notBefore: new Date(0),
    notAfter,
    sha256: '',
  };
  const admin = createAdmin({
    settings: settings ?? { address: undefined, token: undefined },
    privateSocket: socketPath,
    news: createNews(),
    sources: {
      version: 'under test',
      workers,
      domains: () => [parseDomain(HOST)],
      certificates: () => (state.covered ? [served as never] : []),
      evidenceAt: () => undefined,
      tally: createTally(),
      logFile,
      figures: createProcessFigures(),
      stopping: () => state.stopping,
    },
    readStatus: () => Promise.reject(new Error('there is no disk')),
    config: () => ({ settings: [], routes: {} }),
    log: silentLog,
  });
  await admin.listen();
  return {
    workers,
    port,
    socketPath,
    admin,
    state,
    async stop() {
      await admin.close();
      await workers.drain(1_000);
      await logFile?.close(10_000);
      await rm(folder, { recursive: true, force: true });
    },
  };
}
