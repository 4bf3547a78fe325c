// What a reader expects of a host and trusts in: the part of a judgement that is the reader's own.

import type { TcbStatus } from './tcb-info.ts';

/** An operating system by what it is measured as; hex of 48 bytes each. Several can be trusted, one has to fit as a whole. */
export interface TrustedSystem {
  readonly mrtd: string | undefined;
  /** By its number. */
  readonly rtmrs: Readonly<Partial<Record<0 | 1 | 2, string>>>;
  /** What the machine calls its image, hex: worth something only beside measurements. */
  readonly image: string | undefined;
}

export interface KeyProvider {
  readonly name: string;
  /** Hex; undefined: whichever of that name. */
  readonly id: string | undefined;
}

export interface Expected {
  /** DER of the root that quotes lead to; undefined: Intel's. */
  readonly quoteRoot?: Uint8Array | undefined;
  /** PEM: trusted in the place of the public roots. */
  readonly ca?: string | undefined;
  /** Hex, 20 bytes. */
  readonly appId?: string | undefined;
  /** Hex, 32 bytes. */
  readonly composeHash?: string | undefined;
  readonly systems?: readonly TrustedSystem[] | undefined;
  readonly keyProviders?: readonly KeyProvider[] | undefined;
  readonly tcb?: readonly TcbStatus[] | undefined;
  readonly advisories?: readonly string[] | undefined;
  readonly caa?:
    | {
        /** The account that CAA has to name, whatever the bundle says. */
        readonly account?: string | undefined;
        /** The most that may be allowed, whatever the statement says. */
        readonly methods?: readonly string[] | undefined;
      }
    | undefined;
  readonly ct?:
    | {
        /** How many sources have to answer. Default 2. */
        readonly sources?: number | undefined;
        /** Certificates that are known and need not be in the history; SHA-256 of the key (SPKI) or a serial, hex. */
        readonly known?: readonly string[] | undefined;
      }
    | undefined;
}
