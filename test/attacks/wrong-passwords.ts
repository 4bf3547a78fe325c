// Wrong passwords as fast as they are refused, on kept connections: each costs whoever looks at it, and must cost nobody else.

import { once } from 'node:events';
import { connect } from 'node:tls';
import { hashSync } from 'bcryptjs';

export interface Flood {
  readonly port: number;
  readonly servername: string;
  /** PEM. */
  readonly ca: string;
  readonly connections: number;
  /** All together. */
  readonly requests: number;
}

/** A routes file: `/private` wants ann's password, which is "right"; `cost` is bcrypt's. */
export function guardedRoutes(upstream: string, cost: number): string {
  return `routes:
  - host: app.example.com
    paths:
      - { under: /private, upstream: "${upstream}", basic_auth: { users: { ann: "${hashSync('right', cost)}" } } }
      - { prefix: /, upstream: "${upstream}" }
`;
}

/** Resolves when all have been answered: how often there was each status. */
export async function startWrongPasswords(flood: Flood): Promise<{ statuses: Map<number, number> }> {
  const statuses = new Map<number, number>();
  let left = flood.requests;
  const loop = async () => {
    const socket = connect({
      host: '127.0.0.1',
      port: flood.port,
      servername: flood.servername,
      ca: flood.ca,
      ALPNProtocols: ['http/1.1'],
    });
    await once(socket, 'secureConnect');
    socket.setEncoding('latin1');
    while (left > 0) {
      const number = left--;
      const credentials = Buffer.from(`ann:wrong ${number}`).toString('base64');
      socket.write(
        `GET /private/x HTTP/1.1\r\nHost: ${flood.servername}\r\nAuthorization: Basic ${credentials}\r\n\r\n`,
      );
      const status = await readStatus(socket);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
    socket.destroy();
  };
  await Promise.all(Array.from({ length: flood.connections }, loop));
  return { statuses };
}

/** Of one reply, which is read whole. */
async function readStatus(socket: NodeJS.ReadableStream): Promise<number> {
  let text = '';
  for (;;) {
    const [piece] = (await once(socket, 'data')) as [string];
    text += piece;
    const end = text.indexOf('\r\n\r\n');
    const length = Number(/^content-length: (\d+)/im.exec(text)?.[1] ?? 0);
    if (end >= 0 && text.length >= end + 4 + length) return Number(text.slice(9, 12));
  }
}
