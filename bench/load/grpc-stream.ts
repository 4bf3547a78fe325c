// gRPC streams of 1,000 messages each way: a unit is one message sent and echoed, each call ends with grpc-status 0.

import { readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect } from 'node:http2';
import { grpcMessage } from './grpc-message.ts';
import { startWork } from './parent.ts';

export interface GrpcStreamSettings {
  readonly port: number;
  /** Path of the certificate that the proxy must show, PEM. */
  readonly chain: string;
  readonly connections: number;
  readonly streams: number;
  readonly messages: number;
  /** Of payload, without the five-byte prefix. */
  readonly bytes: number;
  /** Messages of one stream that are on their way at any time. */
  readonly ahead: number;
}

const settings = JSON.parse(process.argv[2] ?? '') as GrpcStreamSettings;
const message = grpcMessage(settings.bytes);
const lanes: Promise<void>[] = [];
const work = startWork(async () => {
  await Promise.all(lanes);
  for (const session of sessions) session.close();
});
const sessions = Array.from({ length: settings.connections }, openSession);

function openSession(): ClientHttp2Session {
  const session = connect(`https://localhost:${settings.port}`, { ca: readFileSync(settings.chain) });
  session.on('error', (error) => work.failed(error));
  for (let index = 0; index < settings.streams; index += 1) lanes.push(lane(session));
  return session;
}

async function lane(session: ClientHttp2Session): Promise<void> {
  while (!work.ending && !session.destroyed) {
    try {
      await call(session);
    } catch (error) {
      work.failed(error);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

function call(session: ClientHttp2Session): Promise<void> {
  return new Promise((resolve, reject) => {
    let sent = 0;
    let received = 0;
    let told = 0;
    let status: unknown;
    const stream = session.request({
      ':method': 'POST',
      ':path': '/bench.Echo/Stream',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const fill = () => {
      while (sent < settings.messages && sent - told < settings.ahead) {
        sent += 1;
        stream.write(message);
      }
      if (sent === settings.messages && !stream.writableEnded) stream.end();
    };
    stream.on('data', (chunk: Buffer) => {
      received += chunk.length;
      while ((told + 1) * message.length <= received) {
        told += 1;
        work.done();
      }
      fill();
    });
    stream.on('response', (headers) => {
      if (headers[':status'] !== 200) reject(new Error(`status ${headers[':status']}`));
    });
    stream.on('trailers', (headers) => {
      status = headers['grpc-status'];
    });
    stream.on('error', reject);
    stream.on('close', () => {
      if (status !== '0') return reject(new Error(`grpc-status ${status}`));
      if (told !== settings.messages)
        return reject(new Error(`${told} messages instead of ${settings.messages}`));
      resolve();
    });
    fill();
  });
}
