// The rows of the table by name, and which of them a kind of proxy can take part in.

export type RowId =
  | 'h1'
  | 'h1-logged'
  | 'h1-h2c'
  | 'rules'
  | 'one-site'
  | 'many-sites'
  | 'static'
  | 'static-h2'
  | 'upload'
  | 'h2'
  | 'grpc'
  | 'grpc-stream'
  | 'handshake'
  | 'resumed'
  | 'websocket'
  | 'download'
  | 'tcp'
  | 'idle'
  | 'start';

/** For a proxy that speaks HTTP on both sides. */
export const HTTP_ROWS: readonly RowId[] = [
  'h1',
  'upload',
  'h2',
  'grpc',
  'grpc-stream',
  'handshake',
  'resumed',
  'websocket',
  'download',
  'idle',
  'start',
];

/** For whoever reads nginx's files. */
export const NGINX_FILE_ROWS: readonly RowId[] = ['rules', 'one-site', 'many-sites', 'static', 'static-h2'];

/** For a proxy that passes decrypted bytes on: HTTP/2 works only where the upstream speaks it too. */
export const TCP_ROWS: readonly RowId[] = [...HTTP_ROWS.filter((id) => id !== 'h2'), 'tcp'];
