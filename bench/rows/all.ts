// All rows, in the order of the table.

import { handshake, idle, resumed, startRow, websocket } from './connections.ts';
import { grpc, grpcStream } from './grpc.ts';
import { downloadRow, h1, h1Logged, h1ToH2c, h2, tcp, upload } from './http.ts';
import type { Row } from './row.ts';

export const rows: readonly Row[] = [
  h1,
  h1Logged,
  h1ToH2c,
  upload,
  h2,
  grpc,
  grpcStream,
  handshake,
  resumed,
  websocket,
  downloadRow,
  tcp,
  idle,
  startRow,
];
