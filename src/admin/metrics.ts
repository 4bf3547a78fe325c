// The table of metrics: every name, what it means and its labels. The exposition follows it, and so does docs/metrics.md.

export type MetricType = 'counter' | 'gauge' | 'histogram';

export interface Metric {
  /** As samples have it, but for the endings of histograms. */
  readonly name: string;
  readonly type: MetricType;
  readonly help: string;
  readonly labels: readonly string[];
}

const REQUEST_LABELS = ['host', 'route', 'method', 'code'] as const;

export const metrics = {
  buildInfo: metric('build_info', 'gauge', 'Always 1; the labels say what runs.', ['version', 'node']),
  ready: metric(
    'ready',
    'gauge',
    'Whether a condition of readiness holds: certificates for every domain, a worker that serves, no stop under way.',
    ['condition'],
  ),
  requests: metric(
    'http_requests_total',
    'counter',
    'Requests that have ended, refused ones included.',
    REQUEST_LABELS,
  ),
  duration: metric(
    'http_request_duration_seconds',
    'histogram',
    'From the head of a request to the end of its reply. WebSockets are left out: they last as long as they like.',
    REQUEST_LABELS,
  ),
  firstByte: metric(
    'http_response_duration_seconds',
    'histogram',
    'From the head of a request to the beginning of its reply.',
    REQUEST_LABELS,
  ),
  inFlight: metric('http_requests_in_flight', 'gauge', 'Requests under way.', ['host']),
  requestBytes: metric(
    'http_request_bytes_total',
    'counter',
    'Bytes of the bodies of requests that have ended.',
    ['host', 'route'],
  ),
  responseBytes: metric('http_response_bytes_total', 'counter', 'Bytes of the bodies of their replies.', [
    'host',
    'route',
  ]),
  faults: metric(
    'http_faults_total',
    'counter',
    'Requests that ended by a fault, by what it was: of the client, of the upstream or of the ingress.',
    ['host', 'fault'],
  ),
  connections: metric('connections', 'gauge', 'Connections that are open.', []),
  connectionsAccepted: metric(
    'connections_total',
    'counter',
    'Connections that were accepted, and that were closed at once for want of room.',
    ['result'],
  ),
  connectionBytes: metric(
    'connection_bytes_total',
    'counter',
    'Bytes on the wire, TLS included, of connections that have ended.',
    ['direction'],
  ),
  handshakes: metric(
    'tls_handshakes_total',
    'counter',
    'TLS handshakes; those that did not end well have no version.',
    ['version', 'resumed', 'result'],
  ),
  upstreamHealthy: metric(
    'upstream_healthy',
    'gauge',
    '0 if a worker has found the upstream failing, by its requests or by health checks.',
    ['upstream'],
  ),
  upstreamDuration: metric(
    'upstream_request_duration_seconds',
    'histogram',
    'From a connection to the upstream to the beginning of its reply, or until it was given up: each attempt once.',
    ['upstream'],
  ),
  upstreamRetries: metric(
    'upstream_retries_total',
    'counter',
    'Requests that were lost by this upstream before it said anything, and were sent again.',
    ['upstream'],
  ),
  configReloads: metric(
    'config_reloads_total',
    'counter',
    'Changes of the files that say where requests go.',
    ['result'],
  ),
  certificateNotAfter: metric(
    'certificate_not_after_timestamp_seconds',
    'gauge',
    'When the certificate that is served for a domain expires; 0: none is served.',
    ['domain'],
  ),
  certificateRenewals: metric(
    'certificate_renewals_total',
    'counter',
    'Attempts at a certificate that have ended.',
    ['result'],
  ),
  evidenceQuoted: metric(
    'evidence_quoted_timestamp_seconds',
    'gauge',
    'When the quote over what is served was made; 0: there is none.',
    [],
  ),
  spans: metric(
    'spans_total',
    'counter',
    'Spans of requests that are traced, by what became of them: taken or refused by the collector, not taken because it could not be reached or did not answer well, or dropped here for want of room.',
    ['result'],
  ),
  spansQueued: metric('spans_queued', 'gauge', 'Spans that wait for the collector.', []),
  storeUp: metric(
    'store_up',
    'gauge',
    'Whether the storage that replicas share has answered the last call. Without STORE_URL there is no sample, here and in the next two.',
    ['engine'],
  ),
  storeCalls: metric(
    'store_calls_total',
    'counter',
    'Calls to it, by how they ended: well, refused because another replica was first, or failed.',
    ['operation', 'result'],
  ),
  storeDuration: metric('store_call_duration_seconds', 'histogram', 'How long each took.', ['operation']),
  logFileLines: metric(
    'access_log_file_lines_total',
    'counter',
    'Lines of the access log for ACCESS_LOG_FILE, by what became of them: written, or lost because the disk was full or slow.',
    ['result'],
  ),
  workers: metric('workers', 'gauge', 'Worker processes that serve.', []),
  workerRestarts: metric(
    'worker_restarts_total',
    'counter',
    'Workers that took the place of one that died.',
    [],
  ),
  workerMemory: metric('worker_resident_memory_bytes', 'gauge', 'Memory of each worker.', ['worker']),
  eventLoopLag: metric(
    'event_loop_lag_seconds',
    'gauge',
    'How late the event loop of a process came, at most, within the last second.',
    ['process'],
  ),
  processCpu: metric(
    'process_cpu_seconds_total',
    'counter',
    'CPU time of the supervisor and of all workers, those that have ended included.',
    [],
    '',
  ),
  processMemory: metric(
    'process_resident_memory_bytes',
    'gauge',
    'Memory of the supervisor and of the workers together.',
    [],
    '',
  ),
  processStart: metric('process_start_time_seconds', 'gauge', 'When the supervisor was started.', [], ''),
} as const satisfies Record<string, Metric>;

function metric(
  name: string,
  type: MetricType,
  help: string,
  labels: readonly string[],
  prefix = 'dstack_ingress_',
): Metric {
  return { name: `${prefix}${name}`, type, help, labels };
}
