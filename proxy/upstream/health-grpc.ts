// One question of the gRPC health checking protocol (grpc.health.v1), asked with grpc-js.

import { isIPv6 } from 'node:net';
import { type ChannelCredentials, type ChannelOptions, Client, credentials } from '@grpc/grpc-js';
import type { Endpoint } from './balance.ts';
import type { TrustOptions } from './trust.ts';

export interface GrpcQuestion {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  /** Undefined: without TLS. */
  readonly trust: TrustOptions | undefined;
}

const CHECK = '/grpc.health.v1.Health/Check';
const STATUSES = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'];

/**
 * Resolves if `service` is SERVING; an empty name asks for the server as a whole. Each question has a connection of its
 * own: after an earlier failure the back-off of a shared channel would delay the next answer.
 */
export async function askGrpc(
  { ip, address, protocol }: Endpoint,
  service: string,
  { signal, timeoutMs, trust }: GrpcQuestion,
): Promise<void> {
  const target = isIPv6(ip) ? `ipv6:[${ip}]:${address.port}` : `ipv4:${ip}:${address.port}`;
  const authority = `${isIPv6(address.host) ? `[${address.host}]` : address.host}:${address.port}`;
  const options: ChannelOptions = {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_http_proxy': 0,
    'grpc.service_config_disable_resolution': 1,
    'grpc.default_authority': authority,
    ...(trust === undefined || trust.servername === ''
      ? {}
      : { 'grpc.ssl_target_name_override': trust.servername }),
  };
  const client = new Client(target, credentialsOf(trust), options);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const call = client.makeUnaryRequest(
    CHECK,
    encodeRequest,
    decodeStatus,
    service,
    { deadline: Date.now() + timeoutMs },
    (error, status) => {
      if (error !== null) reject(error);
      else if (status === 1) resolve();
      else reject(new Error(`it answered ${STATUSES[status ?? 0] ?? status} over ${protocol}`));
    },
  );
  const abort = () => call.cancel();
  signal.addEventListener('abort', abort);
  try {
    await promise;
  } finally {
    signal.removeEventListener('abort', abort);
    client.close();
  }
}

function credentialsOf(trust: TrustOptions | undefined): ChannelCredentials {
  if (trust === undefined) return credentials.createInsecure();
  const { secureContext, rejectUnauthorized, checkServerIdentity } = trust;
  return credentials.createFromSecureContext(secureContext, {
    ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }),
    ...(checkServerIdentity === undefined ? {} : { checkServerIdentity }),
  });
}

/** HealthCheckRequest: field 1 is the service's name. */
function encodeRequest(service: string): Buffer {
  const name = Buffer.from(service);
  return name.length === 0 ? name : Buffer.concat([Buffer.from([0x0a, ...varint(name.length)]), name]);
}

/** HealthCheckResponse: field 1 is the status, and 0 if it is absent. */
function decodeStatus(message: Buffer): number {
  return message[0] === 0x08 ? (message[1] ?? 0) : 0;
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >>> 7)];
}
