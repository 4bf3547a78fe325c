// The hosts that are attacked, each with another kind of upstream.

/**
 * By what stands behind them: Node over HTTP/1.1 and over h2c, and nginx over h2c. All serve `/` (a few bytes), `/slow`
 * (64 KiB within some seconds) `/large` (64 MiB) and `/honest` (16 MiB); those of Node take bodies, and never answer `/hang`.
 */
export const hosts = {
  http1: 'http1.example.com',
  h2c: 'h2c.example.com',
  nginx: 'nginx.example.com',
} as const;
