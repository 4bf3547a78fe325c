// The process that asks at a given rate, with wrong passwords or with none, and counts the statuses of the answers.

import { once } from 'node:events';
import { setPriority } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type TLSSocket } from 'node:tls';

export interface Order {
  readonly port: number;
  readonly servername: string;
  /** PEM. */
  readonly ca: string;
  readonly connections: number;
  readonly perSecond: number;
  readonly seconds: number;
  readonly passwords: boolean;
}

export interface Report {
  readonly answered: number;
  readonly seconds: number;
  readonly statuses: Readonly<Record<string, number>>;
}

// An attacker has processors of its own.
setPriority(10);

const TURN_MS = 10;
/** One connection sends no more before the answers to these. */
const MOST_WAITING = 16;

interface Sender {
  readonly socket: TLSSocket;
  waiting: number;
  text: string;
}

process.once('message', (order: Order) => {
  void flood(order).then((report) => {
    process.send!(report);
    process.disconnect!();
  });
});

async function flood(order: Order): Promise<Report> {
  const statuses: Record<string, number> = {};
  const senders = await Promise.all(
    Array.from({ length: order.connections }, () => openSender(order, statuses)),
  );
  process.send!('ready');
  const began = performance.now();
  const elapsed = () => (performance.now() - began) / 1_000;
  let number = 0;
  while (elapsed() < order.seconds) {
    const due = Math.floor(elapsed() * order.perSecond);
    for (let sent = true; sent && number < due; ) {
      sent = false;
      for (const sender of senders) {
        if (number >= due || sender.waiting >= MOST_WAITING) continue;
        sender.waiting++;
        sender.socket.write(requestText(order, ++number));
        sent = true;
      }
    }
    await sleep(TURN_MS);
  }
  const seconds = elapsed();
  for (const { socket } of senders) socket.destroy();
  const answered = Object.values(statuses).reduce((sum, count) => sum + count, 0);
  return { answered, seconds, statuses };
}

async function openSender(order: Order, statuses: Record<string, number>): Promise<Sender> {
  const { port, servername, ca } = order;
  const socket = connect({ host: '127.0.0.1', port, servername, ca, ALPNProtocols: ['http/1.1'] });
  socket.setEncoding('latin1');
  await once(socket, 'secureConnect');
  const sender: Sender = { socket, waiting: 0, text: '' };
  socket.on('error', () => {});
  socket.on('data', (piece: string) => {
    sender.text += piece;
    for (;;) {
      const end = sender.text.indexOf('\r\n\r\n');
      const length = Number(/^content-length: (\d+)/im.exec(sender.text.slice(0, end))?.[1] ?? 0);
      if (end < 0 || sender.text.length < end + 4 + length) return;
      const status = sender.text.slice(9, 12);
      statuses[status] = (statuses[status] ?? 0) + 1;
      sender.text = sender.text.slice(end + 4 + length);
      sender.waiting--;
    }
  });
  return sender;
}

function requestText({ servername, passwords }: Order, number: number): string {
  const credentials = Buffer.from(`ann:wrong ${number}`).toString('base64');
  const authorization = passwords ? `Authorization: Basic ${credentials}\r\n` : '';
  return `GET /private/x HTTP/1.1\r\nHost: ${servername}\r\n${authorization}\r\n`;
}
