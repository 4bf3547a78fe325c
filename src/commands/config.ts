// The config command: every setting in force, and where its value came from; of secrets only that they are there.

import { providerKinds } from '../../dns/providers/choice.ts';
import { DEFAULT_DOH_RESOLVERS } from '../../dns/resolver.ts';
import { type Config, ConfigError, readConfig } from '../config/config.ts';
import type { Given } from '../config/environment.ts';
import { type Setting, settings } from '../config/settings.ts';
import { fileVariableOf, isSecret } from '../config/variables.ts';
import type { ExitCodes } from '../exit-codes.ts';

interface Streams {
  readonly out: NodeJS.WritableStream;
  readonly err: NodeJS.WritableStream;
}

/** One setting, as the JSON has it. */
export interface SettingInForce {
  readonly name: string;
  /** Null: it has none, or it is secret. */
  readonly value: string | null;
  readonly source: 'default' | 'environment' | 'file';
  /** The variable that was set. */
  readonly variable: string | null;
  readonly file: string | null;
  readonly secret: boolean;
  /** What happens in place of a value that there is not, or why this one does nothing. */
  readonly note: string | null;
}

/** Returns the exit code. Contacts nothing. */
export function showConfig(
  { json }: { readonly json: boolean },
  env: NodeJS.ProcessEnv,
  { out, err }: Streams,
  exits: ExitCodes,
): number {
  let config: Config;
  try {
    config = readConfig(env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    err.write(`config: ${error.message}\n`);
    return exits.configuration;
  }
  const { warnings } = config;
  const inForce = settingsInForce(config);
  if (json) out.write(`${JSON.stringify({ settings: inForce, warnings }, null, 2)}\n`);
  else out.write(asTable(inForce));
  for (const { variable, warning } of json ? [] : warnings) err.write(`${variable}: ${warning}\n`);
  return exits.ok;
}

/** Those of the table of settings, and the credentials that are set. */
export function settingsInForce(config: Config): SettingInForce[] {
  const { given, dns } = config;
  const own = settings.map((setting) => inForce(setting, config));
  const credentials = providerKinds.flatMap((kind) => {
    const note = kind.name === dns.provider?.kind.name ? null : 'is not used';
    return kind.variables.flatMap(({ name }) => {
      const one = given.get(name);
      return one === undefined ? [] : [fromOperator(name, one, note)];
    });
  });
  return [...own, ...credentials];
}

function inForce({ name, byDefault }: Setting, config: Config): SettingInForce {
  const given = config.given.get(name);
  if (given !== undefined) return fromOperator(name, given, null);
  const value = derived[name]?.(config) ?? (isLiteral(byDefault) ? byDefault : null);
  const note = value === null && byDefault !== '' ? byDefault : null;
  return { name, value, source: 'default', variable: null, file: null, secret: isSecret(name), note };
}

function fromOperator(name: string, { variable, text, file }: Given, note: string | null): SettingInForce {
  const secret = isSecret(name);
  return {
    name,
    value: text ?? null,
    source: file === undefined ? 'environment' : 'file',
    variable: file === undefined ? variable : fileVariableOf(variable),
    file: file ?? null,
    secret,
    note,
  };
}

/** A default that is a value; others are said in words. */
function isLiteral(byDefault: string): boolean {
  return /^[a-z0-9_./:,-]+$/.test(byDefault);
}

/** Defaults that follow from other settings or from the machine. */
const derived: Readonly<Record<string, (config: Config) => string | undefined>> = {
  PUBLIC_PORT: ({ dns }) => String(dns.publicPort),
  DNS_PROVIDER: ({ dns }) => dns.provider?.kind.name,
  DNS_SETUP_MODE: ({ dns }) => dns.recordsMode,
  DOH_RESOLVERS: ({ dns }) => (dns.resolvers.length > 0 ? undefined : DEFAULT_DOH_RESOLVERS.join(',')),
  SET_CAA: ({ dns }) => String(dns.setCaa),
  ACME_DIRECTORY_URL: ({ acme }) => acme.directoryUrl,
  REQUEST_ID: ({ requestIds }) => String(requestIds),
  WORKERS: ({ workers }) => String(workers),
  PROXY_READ_TIMEOUT: ({ routesFileOptions }) => `${routesFileOptions.timeouts.readTimeoutMs}ms`,
  PROXY_SEND_TIMEOUT: ({ routesFileOptions }) => `${routesFileOptions.timeouts.sendTimeoutMs}ms`,
};

function asTable(list: readonly SettingInForce[]): string {
  const shown = list.map((one) => [one.name, valueText(one), sourceText(one)] as const);
  const width = (column: 0 | 1) => Math.min(48, Math.max(...shown.map((cells) => cells[column].length)));
  const lines = shown.map(([name, value, source]) =>
    `${name.padEnd(width(0))}  ${value.padEnd(width(1))}  ${source}`.trimEnd(),
  );
  return `${lines.join('\n')}\n`;
}

function valueText({ value, secret, source }: SettingInForce): string {
  if (secret && source !== 'default') return '***';
  if (value === null) return '-';
  return /[\x00-\x1f\x7f]/.test(value) ? JSON.stringify(value) : value;
}

function sourceText({ name, source, variable, file, note }: SettingInForce): string {
  const from =
    source === 'file'
      ? `file ${file} (${variable})`
      : variable === null || variable === name
        ? source
        : `${source}, as ${variable}`;
  return note === null ? from : `${from}: ${note}`;
}
