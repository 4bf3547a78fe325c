// Every fuzz target, one for each parser that reads what others write.

import type { FuzzTarget } from '../target.ts';
import { acmeAnswers } from './acme-answers.ts';
import { dnsAnswers } from './dns-answers.ts';
import { eventLog } from './event-log.ts';
import { hpack } from './hpack.ts';
import { http1Body } from './http1-body.ts';
import { http1Reply, http1Request } from './http1-head.ts';
import { http2Client, http2Upstream } from './http2-frames.ts';
import { nginxFiles } from './nginx-files.ts';
import { opening } from './opening.ts';
import { proxyHeader } from './proxy-header.ts';
import { quote } from './quote.ts';
import { quoteVerdicts } from './quote-verdicts.ts';
import { unnamedClient } from './unnamed-client.ts';
import { statementHistory, verifyDocuments, verifyPolicy } from './verify-documents.ts';
import { websocketFrames } from './websocket-frames.ts';
import { workerMessages } from './worker-messages.ts';

export const targets: readonly FuzzTarget[] = [
  http1Request,
  http1Reply,
  http1Body,
  http2Client,
  http2Upstream,
  hpack,
  proxyHeader,
  opening,
  unnamedClient,
  workerMessages,
  websocketFrames,
  dnsAnswers,
  acmeAnswers,
  nginxFiles,
  eventLog,
  quote,
  verifyDocuments,
  statementHistory,
  verifyPolicy,
  quoteVerdicts,
];
