// Rows of gRPC: single calls, and streams of a thousand messages.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Answer, askHttp2 } from '../ask.ts';
import { startGenerator } from '../load/children.ts';
import { grpcMessage } from '../load/grpc-message.ts';
import { startH2load } from '../load/h2load.ts';
import type { LoadRow, Measurement } from './row.ts';

const UNARY = { connections: 16, streams: 8, bytes: 64 };
const STREAM = { connections: 4, streams: 4, messages: 1_000, bytes: 64, ahead: 16 };

const HEADERS = { 'content-type': 'application/grpc', te: 'trailers' };

export const grpc: LoadRow = {
  id: 'grpc',
  title: 'gRPC unary call, 64 B, 16 connections of 8 streams',
  unit: 'µs/call',
  tools: [{ program: 'h2load', package: 'nghttp2-client' }],
  target: (stage) => ({ protocol: 'grpc', port: stage.grpc.port }),
  verify: (measurement) => verifyCall(measurement, '/bench.Echo/Unary'),
  async load({ stage, subject, durationMs }) {
    const message = grpcMessage(UNARY.bytes);
    const file = join(stage.folder, 'message.grpc');
    await writeFile(file, message);
    return startH2load({
      port: subject.port,
      path: '/bench.Echo/Unary',
      connections: UNARY.connections,
      streams: UNARY.streams,
      durationMs,
      replyBytes: message.length,
      upload: file,
      headers: Object.entries(HEADERS).map(([name, value]) => `${name}: ${value}`),
      units: stage.grpc.served,
    });
  },
};

export const grpcStream: LoadRow = {
  id: 'grpc-stream',
  title: 'gRPC streams of 1,000 messages each way, 64 B, 4 connections of 4 streams',
  unit: 'µs/message',
  tools: [],
  target: (stage) => ({ protocol: 'grpc', port: stage.grpc.port }),
  verify: (measurement) => verifyCall(measurement, '/bench.Echo/Stream'),
  async load({ stage, subject }) {
    const settings = { ...STREAM, port: subject.port, chain: stage.certificate.chain };
    return startGenerator('grpc-stream.ts', settings, stage.log);
  },
};

async function verifyCall({ stage, subject }: Measurement, path: string): Promise<void> {
  const body = grpcMessage(UNARY.bytes);
  const answer: Answer = await askHttp2(stage, subject.port, { path, body, headers: HEADERS });
  if (answer.status !== 200) throw new Error(`status ${answer.status} instead of 200`);
  if (answer.grpcStatus !== '0') throw new Error(`grpc-status ${answer.grpcStatus} instead of 0`);
  if (!answer.body.equals(body)) throw new Error(`a message of ${answer.body.length} bytes came back`);
}
