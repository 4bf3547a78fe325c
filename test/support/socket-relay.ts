// A unix socket in front of another one that can be closed, opened again, and made silent.

import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';

export async function startSocketRelay(path: string, to: string) {
  const open = new Set<Socket>();
  let silent = false;
  let server: Server | undefined;

  async function listen(): Promise<void> {
    server = createServer((client) => {
      open.add(client);
      client.on('close', () => open.delete(client));
      client.on('error', () => {});
      // It is read, and nothing comes back.
      if (silent) return void client.resume();
      const upstream = connect(to);
      upstream.on('error', () => client.destroy());
      client.on('close', () => upstream.destroy());
      client.pipe(upstream).pipe(client);
    });
    await rm(path, { force: true });
    server.listen(path);
    await once(server, 'listening');
  }

  async function close(): Promise<void> {
    const closing = server;
    server = undefined;
    if (closing === undefined) return;
    const closed = once(closing, 'close');
    closing.close();
    for (const client of open) client.destroy();
    await closed;
  }

  await listen();
  return {
    endpoint: path,
    open: listen,
    close,
    silence: () => {
      silent = true;
    },
    [Symbol.asyncDispose]: close,
  };
}
