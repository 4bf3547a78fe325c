// The demo's own WebSocket and gRPC clients, for machines that have neither installed.

import { once } from 'node:events';
import { Client, type ClientDuplexStream, credentials } from '@grpc/grpc-js';
import { WebSocket } from 'ws';
import { chat, type EchoMessage, say } from './echo.ts';

export interface DemoServer {
  readonly port: number;
  /** PEM of the only root that is trusted. */
  readonly ca: string;
}

/** How long a call may take before it counts as failed. */
const TIMEOUT_MS = 10_000;

/** Sends each text over one WebSocket and returns what came back. Rejects if the socket fails, closes or is silent. */
export async function echoOverWebSocket(server: DemoServer, texts: readonly string[]): Promise<string[]> {
  const socket = new WebSocket(`wss://localhost:${server.port}/`, {
    ca: server.ca,
    handshakeTimeout: TIMEOUT_MS,
  });
  // Every failure is told by the promises below; one that comes after them is of no interest.
  socket.on('error', () => {});
  try {
    await once(socket, 'open');
    return await echoes(socket, texts);
  } finally {
    socket.terminate();
  }
}

function echoes(socket: WebSocket, texts: readonly string[]): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const replies: string[] = [];
    const silence = setTimeout(() => reject(new Error('the WebSocket is silent')), TIMEOUT_MS);
    socket.on('message', (data) => {
      replies.push(data.toString());
      if (replies.length < texts.length) return;
      clearTimeout(silence);
      resolve(replies);
    });
    socket.once('close', (code) => {
      clearTimeout(silence);
      reject(new Error(`the WebSocket was closed (${code}) before its echo`));
    });
    for (const text of texts) socket.send(text);
  });
}

/** One unary call. Rejects with grpc-js' ServiceError. */
export async function sayOverGrpc(server: DemoServer, text: string): Promise<string> {
  return withGrpcClient(server, (client) => {
    return new Promise<string>((resolve, reject) => {
      client.makeUnaryRequest<EchoMessage, EchoMessage>(
        say.path,
        say.requestSerialize,
        say.responseDeserialize,
        { text },
        { deadline: Date.now() + TIMEOUT_MS },
        (error, reply) => (error === null ? resolve(reply!.text) : reject(error)),
      );
    });
  });
}

/** A conversation on one bidirectional stream: each text is sent after the echo of the one before it has come. */
export async function chatOverGrpc(
  server: DemoServer,
  texts: readonly string[],
  heard: (text: string) => void,
): Promise<void> {
  return withGrpcClient(server, async (client) => {
    const call = client.makeBidiStreamRequest<EchoMessage, EchoMessage>(
      chat.path,
      chat.requestSerialize,
      chat.responseDeserialize,
      { deadline: Date.now() + TIMEOUT_MS },
    );
    await converse(call, texts, heard);
  });
}

async function converse(
  call: ClientDuplexStream<EchoMessage, EchoMessage>,
  texts: readonly string[],
  heard: (text: string) => void,
): Promise<void> {
  const waiting = [...texts];
  const next = () => {
    const text = waiting.shift();
    if (text === undefined) call.end();
    else call.write({ text });
  };
  next();
  // A failed call ends the iteration with its error.
  for await (const message of call) {
    heard((message as EchoMessage).text);
    next();
  }
}

async function withGrpcClient<T>(server: DemoServer, use: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client(`localhost:${server.port}`, credentials.createSsl(Buffer.from(server.ca)), {
    // A proxy of the environment has no way to this machine's loopback.
    'grpc.enable_http_proxy': 0,
  });
  try {
    return await use(client);
  } finally {
    client.close();
  }
}
