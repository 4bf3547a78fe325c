// A connection of the listener: where it comes from, who carries it, and how it ends when its place is needed.

import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { type ClientConnection, FIRST_WORDS_MS, type Holder } from '../exchange/context.ts';
import type { ClientAuth } from '../rules/model.ts';
import { rawSocketUnder } from '../socket/insides/raw-sockets.ts';
import type { Announcement } from '../upstream/announcement.ts';
import type { Occupant } from './capacity.ts';

const acceptedOf = Symbol('accepted');
type AcceptedSocket = Socket & { [acceptedOf]?: Accepted };

/** A connection, from accept to close. */
export class Accepted implements Occupant {
  place = -1;
  readonly socket: Socket;
  readonly acceptedAt: number;
  /** From its PROXY header, or set when it is first asked for: a connection that only shakes hands never needs it. */
  origin: Origin | undefined = undefined;
  peer: string | undefined = undefined;
  leaving = false;
  /** After its handshake. */
  secured: Secured | undefined = undefined;

  constructor(socket: Socket, acceptedAt: number) {
    this.socket = socket;
    this.acceptedAt = acceptedAt;
    (socket as AcceptedSocket)[acceptedOf] = this;
  }

  idleSince(): number {
    if (this.secured === undefined) return this.acceptedAt + FIRST_WORDS_MS;
    return this.secured.holder?.idleSince() ?? Number.POSITIVE_INFINITY;
  }

  leave(): void {
    const holder = this.secured?.holder;
    if (holder === undefined) this.destroy();
    else holder.leave();
  }

  destroy(): void {
    (this.secured?.socket ?? this.socket).destroy();
  }
}

/** What is known of a connection before its handshake. */
export interface Origin {
  readonly address: string;
  /** 0: not known. */
  readonly port: number;
  readonly serverPort: number;
  /** Whether what its requests say of other clients is believed. */
  readonly forwarder: boolean;
}

/** A connection after its handshake. Its origin is looked up with its first request, because a handshake needs none. */
export class Secured implements ClientConnection {
  readonly socket: TLSSocket;
  readonly certificateNames: readonly string[];
  readonly serverName: string;
  readonly clientAuth: ClientAuth | undefined;
  holder: Holder | undefined = undefined;
  announcement: Announcement | undefined = undefined;
  asked: ClientConnection['asked'] = undefined;
  private readonly origin: () => Origin;

  constructor(
    socket: TLSSocket,
    certificateNames: readonly string[],
    serverName: string,
    clientAuth: ClientAuth | undefined,
    origin: () => Origin,
  ) {
    this.socket = socket;
    this.certificateNames = certificateNames;
    this.serverName = serverName;
    this.clientAuth = clientAuth;
    this.origin = origin;
  }

  get clientAddress(): string {
    return this.origin().address;
  }

  get clientPort(): number {
    return this.origin().port;
  }

  get serverPort(): number {
    return this.origin().serverPort;
  }

  get trustedClient(): boolean {
    return this.origin().forwarder;
  }
}

/** The connection that a handshake took place on. */
export function acceptedUnder(socket: TLSSocket): Accepted | undefined {
  return (rawSocketUnder(socket) as AcceptedSocket | undefined)?.[acceptedOf];
}
