// The serve command: configuration in, signals handled, the ingress run until it is told to stop.

import type { ChildProcess } from 'node:child_process';
import { defaultSocketPaths } from '../evidence/agent.ts';
import { createNews } from './admin/news.ts';
import { privateSocketPath } from './admin/private-socket.ts';
import { type Config, ConfigError, readConfig } from './config/config.ts';
import { describeMistake } from './config/mistake.ts';
import { type Ingress, startIngress } from './ingress.ts';
import { systemClock } from './lib/clock.ts';
import { createLog, type Log } from './lib/log.ts';
import { version } from './version.ts';
import { hideSockets } from './workers/fence.ts';
import { fenceOfWorkers } from './workers/process.ts';

interface ExitCodes {
  readonly ok: number;
  readonly failed: number;
  readonly configuration: number;
}

/** A container that is asked to stop is killed after ten seconds; the drain takes nine of them at most. */
const STOP_LIMIT_MS = 9_500;
/** A start that is nearly complete is stopped in order: it may be serving already. */
const START_GRACE_MS = 500;
/** Ctrl-C reaches this process from the terminal and once more from npm: both are one request to stop. */
const SAME_REQUEST_MS = 1_000;

/**
 * Resolves with the exit code. The caller must then exit: something may still hang or run. SIGTERM and SIGINT drain, and
 * end the program at once when they come again; SIGHUP reloads the routes, SIGUSR1
 * reopens the access log's file, SIGUSR2 renews now.
 */
export async function serve(
  env: NodeJS.ProcessEnv,
  exits: ExitCodes,
  forkedAhead: ChildProcess,
): Promise<number> {
  const config = configure(env);
  if (config === undefined) return exits.configuration;
  const news = createNews();
  const log = createLog({ level: config.logLevel, tap: news.take });
  for (const { variable, warning } of config.warnings)
    log.warn({ variable, warning }, 'setting needs attention');
  tellFence(config, log);
  const requests = stopRequests(log);
  let ingress: Ingress | undefined;
  try {
    const started = startIngress(config, {
      log,
      forkedAhead,
      shows: { news, version: version(), privateSocket: privateSocketPath(env) },
    });
    // A start that hangs, on a disk for example, holds up a request to stop for a moment only.
    const waited = requests.stop.then(() => systemClock.sleep(START_GRACE_MS));
    ingress = (await Promise.race([started, waited])) ?? undefined;
  } catch (err) {
    log.error({ err }, 'cannot start');
    return exits.failed;
  }
  if (ingress !== undefined) {
    const detach = onSignals(ingress, log);
    void import('./commands/doctor-start.ts').then(({ tellFindings }) => tellFindings(config, log));
    const broken = await Promise.race([requests.stop, ingress.broken.then((err) => ({ err }))]);
    if (broken !== undefined) {
      log.error(broken, 'cannot listen any more, ending');
      return exits.failed;
    }
    const overdue = systemClock.sleep(STOP_LIMIT_MS).then(() => 'overdue' as const);
    const outcome = await Promise.race([ingress.stop(), requests.stopAtOnce, overdue]);
    detach();
    if (outcome === 'overdue') {
      log.error({ limitMs: STOP_LIMIT_MS }, 'something hangs, ending all the same');
      return exits.failed;
    }
  }
  log.info('stopped');
  return exits.ok;
}

/** Logs where workers can reach what is secret, see SECURITY.md. */
function tellFence({ evidence: { agentEndpoint } }: Config, log: Log): void {
  const fence = fenceOfWorkers();
  if (fence === undefined) return;
  if (!fence.raised) {
    log.warn({ why: fence.why }, 'workers run as the user of the supervisor: no fence between them');
    return;
  }
  const open = hideSockets(agentEndpoint === undefined ? defaultSocketPaths : [agentEndpoint]);
  if (open.length > 0) log.warn({ sockets: open }, 'workers can reach the guest agent');
}

interface StopRequests {
  readonly stop: Promise<void>;
  readonly stopAtOnce: Promise<void>;
}

function stopRequests(log: Log): StopRequests {
  const stop = Promise.withResolvers<void>();
  const stopAtOnce = Promise.withResolvers<void>();
  let first: number | undefined;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      const now = performance.now();
      if (first === undefined) {
        first = now;
        log.info({ signal }, 'stopping');
        stop.resolve();
      } else if (now - first > SAME_REQUEST_MS) {
        log.warn({ signal }, 'asked again, stopping at once');
        stopAtOnce.resolve();
      }
    });
  }
  return { stop: stop.promise, stopAtOnce: stopAtOnce.promise };
}

function configure(env: NodeJS.ProcessEnv) {
  try {
    return readConfig(env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(describeConfigError(error));
    return undefined;
  }
}

function describeConfigError({ mistakes, warnings }: ConfigError): string {
  const odd = warnings.map(({ variable, warning }) => `  ${variable}: ${warning}\n`);
  return [
    `configuration: ${mistakes.length} ${mistakes.length === 1 ? 'mistake' : 'mistakes'}, nothing was started:\n`,
    ...mistakes.map((mistake) => `  ${describeMistake(mistake)}\n`),
    ...(odd.length > 0 ? ['look at this too:\n', ...odd] : []),
    'hint: docs/settings.md has a table of every setting\n',
  ].join('');
}

function onSignals(ingress: Ingress, log: Log): () => void {
  const reload = () => {
    ingress.reopenLog();
    void ingress.reloadRoutes();
  };
  const reopen = () => ingress.reopenLog();
  const renew = () => {
    log.info('renewal of all certificates asked for by signal');
    ingress.renewNow();
  };
  process.on('SIGHUP', reload);
  // Taken, so that Node does not begin to listen for a debugger.
  process.on('SIGUSR1', reopen);
  process.on('SIGUSR2', renew);
  return () => {
    process.off('SIGHUP', reload);
    process.off('SIGUSR1', reopen);
    process.off('SIGUSR2', renew);
  };
}
