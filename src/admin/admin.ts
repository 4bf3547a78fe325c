// The ingress shows itself: a look at its figures each second, a private socket for our commands, and ADMIN_ADDRESS if it is set.

import type { AdminSettings } from '../config/admin.ts';
import type { Log } from '../lib/log.ts';
import { expose, type Format } from './exposition.ts';
import { familiesOf } from './figures.ts';
import { createLive } from './live.ts';
import { readPage } from './page.ts';
import { preparePrivateSocket } from './private-socket.ts';
import { readinessOf } from './readiness.ts';
import { type ConfigReport, createReport, type ReportOptions } from './report.ts';
import { type AdminServer, createAdminServer, type Shown } from './server.ts';

export interface AdminOptions extends ReportOptions {
  readonly settings: AdminSettings;
  readonly privateSocket: string;
  config(): ConfigReport;
  readonly log: Log;
}

export interface Admin {
  /** Never rejects: what cannot be listened on is logged, and the ingress serves. */
  listen(): Promise<void>;
  close(): Promise<void>;
}

const EVERY_MS = 1_000;

export function createAdmin(options: AdminOptions): Admin {
  const { sources, settings, privateSocket, log } = options;
  const report = createReport(options);
  const live = createLive();
  let lastNews = 0;
  const timer = setInterval(() => {
    sources.figures.sample();
    report.look();
    live.tell(() => {
      const text = report.live(lastNews);
      lastNews = text.news.at(-1)?.number ?? lastNews;
      return JSON.stringify(text);
    });
  }, EVERY_MS).unref();
  const shown: Shown = {
    readiness: () => readinessOf(sources),
    metrics: onceASecond((format: Format) => Buffer.from(expose(familiesOf(sources), format))),
    status: sharedAMoment(async () => Buffer.from(JSON.stringify(await report.whole()))),
    config: () => Buffer.from(JSON.stringify(options.config())),
    page: readPage(),
    live,
    now: () => JSON.stringify(report.live(Math.max(0, lastNews))),
  };
  const servers: AdminServer[] = [];

  async function listenOn(server: AdminServer, where: string): Promise<void> {
    try {
      await server.listen();
      servers.push(server);
    } catch (err) {
      log.error({ err, where }, 'the admin server cannot listen');
    }
  }

  return {
    async listen() {
      try {
        preparePrivateSocket(privateSocket);
        await listenOn(createAdminServer({ path: privateSocket }, 'private', shown, log), privateSocket);
      } catch (err) {
        log.warn({ err, where: privateSocket }, 'no socket for healthcheck and top');
      }
      const { address, token } = settings;
      if (address === undefined) return;
      const where = 'path' in address ? `unix:${address.path}` : `${address.host}:${address.port}`;
      await listenOn(createAdminServer(address, { token }, shown, log), where);
      log.info({ where, token: token !== undefined }, 'admin server');
    },
    async close() {
      clearInterval(timer);
      sources.figures.close();
      live.close();
      await Promise.all(servers.map((server) => server.close()));
    },
  };
}

/** The numbers change once a second: whoever asks more often gets the same bytes. */
function onceASecond(make: (format: Format) => Buffer): (format: Format) => Buffer {
  const made = new Map<Format, { readonly at: number; readonly bytes: Buffer }>();
  return (format) => {
    const now = performance.now();
    const known = made.get(format);
    if (known !== undefined && now - known.at < EVERY_MS) return known.bytes;
    const bytes = make(format);
    made.set(format, { at: now, bytes });
    return bytes;
  };
}

function sharedAMoment(make: () => Promise<Buffer>): () => Promise<Buffer> {
  let at = Number.NEGATIVE_INFINITY;
  let made: Promise<Buffer> | undefined;
  return () => {
    const now = performance.now();
    if (made === undefined || now - at >= EVERY_MS) {
      at = now;
      made = make();
      made.catch(() => {
        made = undefined;
      });
    }
    return made;
  };
}
