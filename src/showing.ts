// How a running ingress shows itself: the admin server, and what it is told of the parts.

import type { AccessLogFile } from './access-log-file.ts';
import type { Admin } from './admin/admin.ts';
import type { News } from './admin/news.ts';
import type { Tally } from './admin/tally.ts';
import type { Config } from './config/config.ts';
import type { Deployment } from './deployment.ts';
import type { Publisher } from './evidence-publisher.ts';
import type { Log } from './lib/log.ts';
import { describeRoutes } from './routes/plan.ts';
import type { StoreFigures } from './store-figures.ts';
import type { Traces } from './tracing/tracing.ts';
import { createProcessFigures } from './workers/process-figures.ts';
import type { Workers } from './workers/workers.ts';

export interface ShowsOptions {
  readonly version: string;
  readonly news: News;
  /** Where our own commands find it. */
  readonly privateSocket: string;
}

export interface ShowingParts extends ShowsOptions {
  readonly workers: Pick<Workers, 'state' | 'rows'>;
  readonly deployment: Pick<Deployment, 'plan' | 'certificates'>;
  readonly publisher: Pick<Publisher, 'shown'>;
  readonly tally: Tally;
  readonly traces: Pick<Traces, 'counts' | 'queued'> | undefined;
  waitsFor(): string | undefined;
  readonly logFile: Pick<AccessLogFile, 'counts'> | undefined;
  readonly storeFigures: StoreFigures | undefined;
  readonly stopping: AbortSignal;
  readonly log: Log;
}

/** Loads what it takes once the ingress serves: nobody waits for it. Resolves when it listens, or has said why not. */
export async function show(config: Config, parts: ShowingParts): Promise<Admin> {
  const { deployment, publisher, stopping, storeFigures, ...rest } = parts;
  const { createAdmin } = await import('./admin/admin.ts');
  const admin = createAdmin({
    ...rest,
    settings: config.admin,
    sources: {
      ...rest,
      domains: () => deployment.plan().domains,
      certificates: deployment.certificates,
      evidenceAt: () => publisher.shown()?.builtAt,
      store: storeFigures,
      figures: createProcessFigures(),
      stopping: () => stopping.aborted,
    },
    async readStatus() {
      const [{ readStatus }, { createDnsLook }] = await Promise.all([
        import('./commands/status.ts'),
        import('./commands/status-dns.ts'),
      ]);
      const now = { ...config, ...deployment.plan() };
      return readStatus(now, createDnsLook(now));
    },
    config: () => ({ settings: config.shown, routes: describeRoutes(deployment.plan()) }),
  });
  await admin.listen();
  return admin;
}
