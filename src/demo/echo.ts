// The demo's gRPC methods, demo.Echo/Say and demo.Echo/Chat, as both ends define them; messages are JSON texts.

import type { ServiceDefinition } from '@grpc/grpc-js';

export interface EchoMessage {
  readonly text: string;
}

// JSON instead of protobuf, so that no .proto has to be read at run time: gRPC leaves the encoding to its users.
const encode = (message: EchoMessage) => Buffer.from(JSON.stringify(message));
const decode = (bytes: Buffer) => JSON.parse(bytes.toString('utf8')) as EchoMessage;

const encoding = {
  requestSerialize: encode,
  requestDeserialize: decode,
  responseSerialize: encode,
  responseDeserialize: decode,
};

/** One message in, one out. */
export const say = {
  path: '/demo.Echo/Say',
  requestStream: false,
  responseStream: false,
  ...encoding,
} as const;

/** Any number of messages in, each answered as it comes. */
export const chat = {
  path: '/demo.Echo/Chat',
  requestStream: true,
  responseStream: true,
  ...encoding,
} as const;

export const echoService = { say, chat } satisfies ServiceDefinition;
