// The ports that workers share: whether they are free, and sockets that are bound for workers that may not bind them.

import { createServer, type Server } from 'node:net';
import { descriptorOf } from '../../proxy/socket/insides/descriptors.ts';
import { INSIDES_VARIABLE } from '../../proxy/socket/insides/switch.ts';
import { firstUnprivilegedPort } from './fence.ts';
import { WorkersError } from './workers-error.ts';

/** As the listener's own. */
const BACKLOG = 4096;

/**
 * Runs `use` with descriptors of sockets that listen on these ports. Then our copies are closed, and the process that
 * `use` has started holds its own. The host is an address and needs no lookup, so all of it happens before this process
 * looks for connections: none is accepted here, they wait for the worker.
 */
export async function withBoundSockets<T>(
  host: string | undefined,
  ports: readonly number[],
  use: (descriptors: readonly number[]) => T,
): Promise<T> {
  const servers = ports.map((port) => {
    const server = createServer((socket) => void socket.destroy());
    return { server, listening: listening(server, host, port) };
  });
  try {
    await Promise.all(servers.map(({ listening }) => listening));
    return use(servers.map(({ server }) => neededDescriptorOf(server)));
  } finally {
    for (const { server } of servers) server.close();
  }
}

async function listening(server: Server, host: string | undefined, port: number): Promise<void> {
  const address = host !== undefined && { host };
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ ...address, port, exclusive: true, reusePort: true, backlog: BACKLOG }, resolve);
  });
}

function neededDescriptorOf(server: Server): number {
  const fd = descriptorOf(server);
  if (fd !== undefined) return fd;
  throw new Error(
    `a worker that runs as another user cannot be given a port below ${firstUnprivilegedPort()}: this Node does not tell the descriptor of a server, or ${INSIDES_VARIABLE} switches that off: choose a higher port`,
  );
}

/**
 * Rejects with WorkersError if another program has the port. Workers share it by SO_REUSEPORT, which would also share it,
 * silently, with a second ingress.
 */
export async function claimAddress(host: string | undefined, port: number): Promise<void> {
  if (port === 0) return;
  await new Promise<void>((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen({ ...(host !== undefined && { host }), port, exclusive: true }, () =>
      probe.close(() => resolve()),
    );
  }).catch((cause: NodeJS.ErrnoException) => {
    const why = whyNotBound[cause.code ?? ''] ?? cause.message;
    const address = `${host ?? 'any address'}, port ${port}`;
    throw new WorkersError('address-in-use', `cannot listen on ${address}: ${why}`, { cause });
  });
}

const whyNotBound: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program has it',
  EACCES: 'this user may not bind it',
};
