// The rollover command: gives the ACME account a new key (RFC 8555 §7.3.5), while the ingress may be running beside it.

import { openAccount, rollOver } from '../../acme/account.ts';
import { createTransport } from '../../acme/transport.ts';
import { createAgent } from '../../evidence/agent.ts';
import { type Config, ConfigError, readConfig } from '../config/config.ts';
import type { ExitCodes } from '../exit-codes.ts';
import { silentLog } from '../lib/log.ts';
import { openStore } from '../open-store.ts';

interface Streams {
  readonly out: NodeJS.WritableStream;
  readonly err: NodeJS.WritableStream;
}

/** For the state's lock, which a running ingress holds while it orders, and for the CA. */
const DEADLINE_MS = 5 * 60_000;

/** Resolves with the exit code. The account's URL stays, and with it every CAA record. The old key becomes worthless. */
export async function rollover(
  env: NodeJS.ProcessEnv,
  { out, err }: Streams,
  exits: ExitCodes,
): Promise<number> {
  let config: Config;
  try {
    config = readConfig(env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    err.write(`rollover: ${error.message}\n`);
    return exits.configuration;
  }
  try {
    const url = await changeKey(config);
    out.write(`account ${url} has a new key\n`);
    return exits.ok;
  } catch (error) {
    err.write(`rollover: ${(error as Error).message}\n`);
    return exits.failed;
  }
}

async function changeKey(config: Config): Promise<string> {
  const { acme } = config;
  if (acme.accountKey === 'kms') {
    throw new Error('the key is derived from the app (ACME_ACCOUNT_KEY=kms), there is none to replace');
  }
  const { agentEndpoint } = config.evidence;
  const agent = createAgent({ ...(agentEndpoint !== undefined && { endpoint: agentEndpoint }) });
  const { store, close } = await openStore(config, { agent, log: silentLog });
  if ((await store.readAccount())?.url === undefined) {
    throw new Error(`there is no account at ${acme.directoryUrl} yet: the first order makes one`);
  }
  const transport = createTransport({ directoryUrl: acme.directoryUrl, caPem: acme.ca });
  try {
    return await store.hold(AbortSignal.timeout(DEADLINE_MS), async (signal) => {
      const options = { transport, store };
      const account = await openAccount(options, signal);
      return (await rollOver(options, account, signal)).url;
    });
  } finally {
    await close();
    await transport.close();
  }
}
