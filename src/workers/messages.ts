// What crosses from the supervisor to a worker and back: plain data, and nothing that a worker does not need.

import { z } from 'zod';
import type { Bundle } from '../../evidence/bundle.ts';
import type { FaultCode } from '../../proxy/faults.ts';
import type { ListenerLimits } from '../../proxy/limits.ts';
import type { ServedCertificate } from '../../proxy/listener/listener.ts';
import type { Route } from '../../proxy/rules/routes.ts';
import type { LogLevel } from '../lib/log.ts';

/** All that a worker serves, sent whole when it starts and part by part when something changes. */
export interface Serving {
  readonly certificates: readonly ServedCertificate[];
  readonly routes: readonly Route[];
  readonly challenges: ReadonlyMap<string, ChallengeCertificate>;
  /** Key authorizations of http-01 challenges, by token. */
  readonly httpChallenges: ReadonlyMap<string, string>;
  readonly evidence: Bundle | undefined;
  /** 48 random bytes, the same in every worker, so that a session resumes in any of them. */
  readonly ticketKeys: Uint8Array;
}

/** PEM of a tls-alpn-01 certificate (RFC 8737); its key answers one challenge and is worth nothing else. */
export interface ChallengeCertificate {
  readonly cert: string;
  readonly key: string;
}

export interface WorkerSettings {
  /** Undefined: every address of the machine. */
  readonly host: string | undefined;
  readonly port: number;
  /** Undefined: plain HTTP is not listened for. */
  readonly plainHttp: { readonly port: number; readonly httpsPort: number } | undefined;
  readonly alpn: readonly ('h2' | 'http/1.1')[];
  readonly proxyProtocol: boolean;
  readonly trustedProxies: readonly string[];
  readonly trustedForwarders: readonly string[];
  readonly limits: ListenerLimits;
  /** PEM of CAs trusted for upstreams beside the system's. */
  readonly upstreamCa: string | undefined;
  /** Whether /evidences/ is answered. */
  readonly evidence: boolean;
  /** Whether a challenge that this instance does not know may be another's: the worker then asks. */
  readonly sharedChallenges: boolean;
  /** One line for each request. */
  readonly accessLog: boolean;
  readonly logLevel: LogLevel;
  readonly readableLog: boolean;
}

export type Order =
  | {
      readonly type: 'start';
      readonly settings: WorkerSettings;
      readonly serving: Serving;
      /** Whether sockets that listen were handed over, from FIRST_SOCKET_FD on, where the worker may not bind the ports. */
      readonly bound?: boolean;
    }
  | { readonly type: 'certificates'; readonly certificates: readonly ServedCertificate[] }
  | { readonly type: 'routes'; readonly routes: readonly Route[] }
  | {
      readonly type: 'challenge';
      readonly domain: string;
      readonly certificate: ChallengeCertificate | undefined;
    }
  | {
      readonly type: 'http-challenge';
      readonly token: string;
      readonly keyAuthorization: string | undefined;
    }
  | {
      readonly type: 'found-challenge';
      readonly domain: string;
      readonly certificate: ChallengeCertificate | undefined;
    }
  | { readonly type: 'evidence'; readonly bundle: Bundle | undefined }
  | { readonly type: 'ticket-keys'; readonly keys: Uint8Array }
  | { readonly type: 'drain'; readonly timeoutMs: number };

/** Every order is answered once by its number. */
export type ToWorker = Order & { readonly id: number };

/** A name as a visitor's handshake has it (RFC 6066 §3), or one that is too long for any. */
const NameSchema = z.string().min(1).max(255);
/** What an error of a worker says ends up in our log. */
const TextSchema = z.string().max(2_000);

/** A change of an upstream as a worker tells it; the code is one of proxy/faults.ts. */
const UpstreamSchema = z.strictObject({
  upstream: TextSchema,
  state: z.enum(['failing', 'well', 'gone']),
  code: z
    .string()
    .max(100)
    .transform((code) => code as FaultCode)
    .optional(),
  reason: TextSchema.optional(),
  failed: z.int().min(0),
});

/**
 * What a worker may say. Strangers' bytes may have taken it over: everything is checked, and a worker that says anything
 * else is ended, see workers.ts.
 */
export const FromWorkerSchema = z.union([
  /** Asks whether another instance is proving this domain; answered by `found-challenge`. */
  z.strictObject({ findChallenge: NameSchema }),
  /** An upstream has begun or ceased to fail, as far as this worker can tell. */
  z.strictObject({ upstream: UpstreamSchema }),
  z.strictObject({
    id: z.int().positive(),
    done: z.literal(true),
    address: z.strictObject({ address: z.string().max(64), port: z.int().min(1).max(65_535) }).optional(),
  }),
  z.strictObject({
    id: z.int().positive(),
    done: z.literal(false),
    message: TextSchema,
    code: z.string().max(100).optional(),
  }),
]);

export type FromWorker = z.infer<typeof FromWorkerSchema>;
export type Reply = Extract<FromWorker, { id: number }>;
