// All rows, in the order of the table.

import { handshake, idle, resumed, startRow, websocket } from './connections.ts';
import { grpc, grpcStream } from './grpc.ts';
import { downloadRow, h1, h1Logged, h1ToH2c, h2, tcp, upload } from './http.ts';
import type { Row } from './row.ts';
import { manySites, oneSite, rulesRow, staticFile, staticFileH2 } from './sites.ts';

export const rows: readonly Row[] = [
  h1,
  h1Logged,
  h1ToH2c,
  rulesRow,
  oneSite,
  manySites,
  upload,
  h2,
  grpc,
  grpcStream,
  handshake,
  resumed,
  websocket,
  downloadRow,
  staticFile,
  staticFileH2,
  tcp,
  idle,
  startRow,
];
