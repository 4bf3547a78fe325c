// A proxy that is measured: how it is configured, and what it does not do.

import type { Command } from '../processes.ts';
import type { RowId } from '../rows/ids.ts';
import type { CertificateFiles } from '../stage.ts';

/** What the proxy is to pass everything on to. */
export interface Target {
  /** `http` is HTTP/1.1 with WebSocket, `h2c` and `grpc` HTTP/2 without TLS, `tcp` bytes. */
  readonly protocol: 'http' | 'h2c' | 'grpc' | 'tcp';
  /** On 127.0.0.1. */
  readonly port: number;
}

/** A file of nginx's conf.d, the same for all but for where each has to listen. */
export type NginxFile = (told: {
  /** The arguments of `listen`. */
  readonly listen: string;
  readonly target: Target;
  /** The folder of `/1k` and `/100m`. */
  readonly filesRoot: string;
}) => string;

/** One proxy to be started, in a folder of its own. */
export interface Site {
  readonly folder: string;
  /** Where it must listen, with TLS, for `localhost`. */
  readonly port: number;
  readonly certificate: CertificateFiles;
  readonly target: Target;
  readonly accessLog: boolean;
  readonly filesRoot: string;
  /** Says where everything goes, instead of the target. */
  readonly nginxFile: NginxFile | undefined;
}

export interface Peer {
  /** As --peers names it. */
  readonly id: string;
  /** As the table names it. */
  readonly title: string;
  /** The program that must be there, and the Debian package that has it; undefined for what this repository brings. */
  readonly needs?: { readonly program: string; readonly package: string };
  /** The rows that it has a part in. */
  readonly rows: readonly RowId[];
  /** Writes its configuration; nothing runs yet. */
  prepare(site: Site): Promise<Command>;
  /** What its version is, or the command that tells. */
  readonly version: string | Command;
}

/** Whether HTTP/2 without TLS is spoken to it. */
export function speaksHttp2({ protocol }: Target): boolean {
  return protocol === 'h2c' || protocol === 'grpc';
}
