// The serve command: configuration in, signals handled, the ingress run until it is told to stop.

import type { ChildProcess } from 'node:child_process';
import { describeMistake } from './config/mistake.ts';
import { ConfigError, readConfig } from './config.ts';
import { type Ingress, startIngress } from './ingress.ts';
import { createLog, type Log } from './lib/log.ts';

interface ExitCodes {
  readonly ok: number;
  readonly failed: number;
  readonly configuration: number;
}

/** Resolves with the exit code. SIGTERM and SIGINT drain, SIGHUP reloads the routes, SIGUSR2 renews now. */
export async function serve(
  env: NodeJS.ProcessEnv,
  exits: ExitCodes,
  forkedAhead: ChildProcess,
): Promise<number> {
  const config = configure(env);
  if (config === undefined) {
    // It serves nothing yet, and heeds no gentler signal.
    forkedAhead.kill('SIGKILL');
    return exits.configuration;
  }
  const log = createLog({ level: config.logLevel });
  for (const { variable, warning } of config.warnings)
    log.warn({ variable, warning }, 'setting needs attention');
  const stop = new AbortController();
  const stopped = new Promise<void>((resolve) => {
    stop.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      log.info({ signal }, 'stopping');
      stop.abort();
    });
  }
  let ingress: Ingress;
  try {
    ingress = await startIngress(config, { log, forkedAhead });
  } catch (err) {
    log.error({ err }, 'cannot start');
    forkedAhead.kill('SIGKILL');
    return exits.failed;
  }
  const detach = onSignals(ingress, log);
  await stopped;
  await ingress.stop();
  detach();
  log.info('stopped');
  return exits.ok;
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
    'hint: the README has a table of every setting\n',
  ].join('');
}

function onSignals(ingress: Ingress, log: Log): () => void {
  const reload = () => void ingress.reloadRoutes();
  const renew = () => {
    log.info('renewal of all certificates asked for by signal');
    ingress.renewNow();
  };
  process.on('SIGHUP', reload);
  process.on('SIGUSR2', renew);
  return () => {
    process.off('SIGHUP', reload);
    process.off('SIGUSR2', renew);
  };
}
