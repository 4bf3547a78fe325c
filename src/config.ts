// The environment and the routes file, read once into a Config; every mistake in them is reported together.

import type { Route, UpstreamSettings } from '../proxy/routes.ts';
import type { Domain } from './lib/domain.ts';
import type { LogLevel } from './lib/log.ts';

export type Alpn = 'h2' | 'http/1.1';

export interface Limits {
  /** Of clients, over all workers. */
  readonly maxConnections: number;
  readonly handshakeTimeoutMs: number;
  /** From the first byte of a request's head to its last. */
  readonly headerTimeoutMs: number;
  /** Longest silence of a client in the middle of an exchange or a tunnel. */
  readonly clientIdleTimeoutMs: number;
  /** Longest pause between two requests. */
  readonly keepAliveTimeoutMs: number;
  readonly maxHeaderBytes: number;
  readonly maxHeaderCount: number;
  /** Undefined: no limit. */
  readonly maxBodyBytes: number | undefined;
  /** HTTP/2 requests at once on one connection. */
  readonly maxConcurrentStreams: number;
}

export interface ListenSettings {
  /** Undefined: every address of the machine. */
  readonly host: string | undefined;
  readonly port: number;
  readonly alpn: readonly Alpn[];
  readonly proxyProtocol: boolean;
  /** CIDR blocks whose PROXY header is believed; empty unless proxyProtocol. */
  readonly trustedProxies: readonly string[];
  readonly limits: Limits;
}

/** auto: we write the records. wait: the operator does, we wait for them. print: the operator does, we do not look. */
export type DnsSetup = 'auto' | 'wait' | 'print';

export interface DnsSettings {
  readonly setup: DnsSetup;
  readonly provider:
    | { readonly kind: string; readonly credentials: Readonly<Record<string, string>> }
    | undefined;
  /** The target of the CNAMEs; always there unless setup is "print". */
  readonly gatewayDomain: string | undefined;
  /** The port in the TXT record: where the gateway reaches us. */
  readonly publicPort: number;
  /** The app id in the TXT record, where the guest agent's is not wanted. */
  readonly appId: string | undefined;
  readonly txtPrefix: string;
  readonly setCaa: boolean;
  /** `host` or `host:port` of plain DNS servers; empty: DNS over HTTPS is asked. */
  readonly resolvers: readonly string[];
  /** URLs; empty: the resolver's own choice. */
  readonly dohResolvers: readonly string[];
  readonly propagationTimeoutMs: number;
  readonly propagationIntervalMs: number;
  /** After the records show, until the gateway's own cache has lapsed too. */
  readonly settleMs: number;
}

export interface AcmeSettings {
  readonly directoryUrl: string;
  /** Extra trust for the ACME server: the file and its PEM text. */
  readonly ca: { readonly file: string; readonly pem: string } | undefined;
  readonly email: string | undefined;
  readonly staging: boolean;
  readonly profile: string | undefined;
  /** hmacKey as the CA gave it, base64url. Secret. */
  readonly eab: { readonly kid: string; readonly hmacKey: string } | undefined;
  readonly challenge: 'dns-01' | 'tls-alpn-01';
  readonly accountKey: 'file';
  readonly renewIntervalMs: number;
  readonly renewDaysBefore: number | undefined;
}

/** Routes that do not come from the file, so that a reloaded file can be joined with them. */
export interface FixedRouting {
  readonly routes: readonly Route[];
  /** For every domain that has no route of its own. */
  readonly fallback: UpstreamSettings | undefined;
  readonly timeouts: UpstreamTimeouts;
}

export type UpstreamTimeouts = Pick<UpstreamSettings, 'connectTimeoutMs' | 'readTimeoutMs' | 'sendTimeoutMs'>;

export interface ConfigWarning {
  readonly variable: string;
  readonly warning: string;
}

/** Plain data, well-formed as a whole. */
export interface Config {
  readonly listen: ListenSettings;
  readonly workers: number;
  readonly accessLog: boolean;
  /** Every name that needs records and a certificate, as first named, each once. */
  readonly domains: readonly Domain[];
  /** The names of each certificate: a wildcard and its base share one. */
  readonly certificates: readonly (readonly Domain[])[];
  readonly routes: readonly Route[];
  readonly routesFile: string | undefined;
  readonly fixedRouting: FixedRouting;
  readonly dns: DnsSettings;
  readonly acme: AcmeSettings;
  readonly stateDir: string;
  readonly evidence: {
    /** Whether /evidences/ is answered; the files are written to `dir` either way. */
    readonly serve: boolean;
    readonly dir: string;
    readonly agentEndpoint: string | undefined;
  };
  readonly logLevel: LogLevel;
  readonly warnings: readonly ConfigWarning[];
}

/** One mistake: whose, what is wrong and what is wanted. `value` is never that of a secret. */
export interface ConfigProblem {
  readonly variable: string;
  readonly problem: string;
  readonly value?: string;
}

/** Every mistake found, at once. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly code = 'invalid-configuration';
  readonly problems: readonly ConfigProblem[];
  constructor(problems: readonly ConfigProblem[]) {
    super(
      [
        problems.length === 1 ? 'a setting is wrong:' : `${problems.length} settings are wrong:`,
        ...problems.map(({ variable, problem }) => `  ${variable}: ${problem}`),
      ].join('\n'),
    );
    this.problems = problems;
  }
}
