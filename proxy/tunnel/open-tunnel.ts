// A tunnel as whoever drains sees it.

/** What a drain can ask of a tunnel. */
export interface OpenTunnel {
  /** Of a WebSocket: tells both ends that it is over, each where a frame ends. Nothing that is cheap does it for others. */
  goAway(): void;
  /** Ends both directions after what has been passed on. */
  end(): void;
}
