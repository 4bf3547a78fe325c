// One request to a proxy, to see that it does what is about to be timed.

import { readFileSync } from 'node:fs';
import type { IncomingHttpHeaders } from 'node:http';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { request as requestHttps } from 'node:https';
import type { Stage } from './stage.ts';

export interface Answer {
  readonly status: number;
  /** Of HTTP/1.1. */
  readonly headers?: IncomingHttpHeaders;
  readonly body: Buffer;
  /** The trailer, where there is one. */
  readonly grpcStatus?: string;
}

export interface Question {
  readonly path: string;
  /** Makes it a POST. */
  readonly body?: Buffer;
  readonly headers?: Readonly<Record<string, string>>;
}

const DEADLINE_MS = 10_000;

/** Over HTTP/1.1, on a connection of its own. */
export function askHttp1(stage: Stage, port: number, question: Question): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = requestHttps(
      {
        host: '127.0.0.1',
        port,
        servername: 'localhost',
        ca: certificateOf(stage),
        path: question.path,
        method: question.body ? 'POST' : 'GET',
        headers: { host: `localhost:${port}`, connection: 'close', ...question.headers },
        agent: false,
        timeout: DEADLINE_MS,
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks),
          }),
        );
      },
    );
    request.on('timeout', () => request.destroy(new Error(`no answer within ${DEADLINE_MS} ms`)));
    request.on('error', reject);
    request.end(question.body);
  });
}

/** Over HTTP/2, on a connection of its own. */
export async function askHttp2(stage: Stage, port: number, question: Question): Promise<Answer> {
  const session = connectHttp2(`https://localhost:${port}`, { ca: certificateOf(stage) });
  try {
    return await askSession(session, question);
  } finally {
    session.destroy();
  }
}

/** Throws unless the answer is 200 with a body of this length. */
export function expectAnswer(answer: Answer, bytes: number): void {
  if (answer.status !== 200) throw new Error(`status ${answer.status} instead of 200`);
  if (answer.body.length !== bytes) {
    throw new Error(`a body of ${answer.body.length} bytes instead of ${bytes}`);
  }
}

export function certificateOf(stage: Stage): Buffer {
  return readFileSync(stage.certificate.chain);
}

function askSession(session: ClientHttp2Session, question: Question): Promise<Answer> {
  return new Promise((resolve, reject) => {
    session.on('error', reject);
    const stream = session.request({
      ':path': question.path,
      ':method': question.body ? 'POST' : 'GET',
      ...question.headers,
    });
    const chunks: Buffer[] = [];
    let status = 0;
    let grpcStatus: string | undefined;
    stream.setTimeout(DEADLINE_MS, () => stream.destroy(new Error(`no answer within ${DEADLINE_MS} ms`)));
    stream.on('response', (headers) => {
      status = Number(headers[':status']);
      grpcStatus = textOf(headers['grpc-status']);
    });
    stream.on('trailers', (headers) => {
      grpcStatus = textOf(headers['grpc-status']);
    });
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', reject);
    stream.on('end', () => {
      const answer = { status, body: Buffer.concat(chunks) };
      resolve(grpcStatus === undefined ? answer : { ...answer, grpcStatus });
    });
    stream.end(question.body);
  });
}

function textOf(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header;
}
