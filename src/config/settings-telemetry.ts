// The settings of what the ingress tells of itself and of its requests: logs, ids, the admin server, traces.

import type { Setting } from './setting.ts';

export const telemetrySettings: readonly Setting[] = [
  {
    name: 'ACCESS_LOG',
    meaning: 'Whether every request is logged, to stdout.',
    byDefault: 'false',
    example: 'true',
    security: 'The log names clients and paths, and dstack can publish container logs.',
  },
  {
    name: 'ACCESS_LOG_FILE',
    meaning:
      'A file for the same lines: beside stdout, or in its place where ACCESS_LOG is off. It is made with mode 0600, and opened anew when it has been moved away, on SIGHUP and on SIGUSR1, see [logs.md](logs.md#in-a-file).',
    byDefault: '',
    example: '/var/log/ingress/access.log',
    security: 'It names clients and paths. Nothing but a rotation of your own bounds its size.',
  },
  {
    name: 'ACCESS_LOG_FORMAT',
    meaning: 'The form of its lines: `json`, `caddy`, `ecs` or `common`, see [logs.md](logs.md).',
    byDefault: 'json',
    example: 'ecs',
  },
  {
    name: 'ACCESS_LOG_QUERY',
    meaning: 'Whether queries are shown, without the values of what is redacted.',
    byDefault: 'false',
    example: 'true',
    security: 'Queries carry tokens under any name: what is not known to be secret is shown.',
  },
  {
    name: 'ACCESS_LOG_HEADERS',
    meaning: 'Headers of requests to show, names separated by commas or spaces.',
    byDefault: '',
    example: 'referer,x-tenant',
    security: 'Headers carry tokens under any name: what is not known to be secret is shown.',
  },
  {
    name: 'ACCESS_LOG_REDACT',
    meaning:
      'More names of headers and of parameters in queries whose values are not shown. Those that are never shown are in [logs.md](logs.md).',
    byDefault: '',
    example: 'x-tenant,email',
  },
  {
    name: 'ACCESS_LOG_SAMPLE',
    meaning:
      'The part of the lines that is written, from 0 to 1. Faults, replies of 500 and above, and slow ones are written always.',
    byDefault: '1',
    example: '0.01',
  },
  {
    name: 'ACCESS_LOG_SLOW',
    meaning: 'From so long on a request is slow, and its line is written whatever ACCESS_LOG_SAMPLE says.',
    byDefault: '1s',
    example: '5s',
  },
  {
    name: 'REQUEST_ID',
    meaning:
      'Whether each request has an id: X-Request-ID to the upstream and in the reply, `id` in the log. That of a peer in TRUSTED_FORWARDERS is kept, of others it is replaced. Without it X-Request-ID passes as it came.',
    byDefault: 'where there is an access log',
    example: 'true',
  },
  {
    name: 'ADMIN_ADDRESS',
    meaning:
      'Where metrics, health and the status page are served: `127.0.0.1:9180`, `unix:/path`, or an address of the network with ADMIN_TOKEN. Commands inside the container need none of it.',
    byDefault: 'off',
    example: '127.0.0.1:9180',
    security:
      'It shows domains, routes, upstreams and traffic, in the clear. It changes nothing, and holds no secret.',
  },
  {
    name: 'ADMIN_TOKEN',
    meaning:
      'What ADMIN_ADDRESS asks for: as a Bearer token, or as the password of any user in a browser. At least 16 characters. An address beyond loopback is refused without one.',
    byDefault: '',
    example: '',
    secret: true,
    security: 'Secret. The health answers are given without it.',
  },
  {
    name: 'OTEL_EXPORTER_OTLP_ENDPOINT',
    meaning:
      'An OpenTelemetry collector that takes OTLP over HTTP; the path `v1/traces` is added. With it requests are traced and their spans go there, see [traces.md](traces.md). Without it traces pass as they come.',
    byDefault: 'nothing is traced',
    example: 'http://collector:4318',
    security:
      'Spans name clients, hosts and paths: with `http://` whoever is on the way reads them, and HEADERS too.',
  },
  {
    name: 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT',
    meaning: 'The same, as it is: nothing is added. It goes before OTEL_EXPORTER_OTLP_ENDPOINT.',
    byDefault: '',
    example: 'https://otlp.example.net/v1/traces',
  },
  {
    name: 'OTEL_EXPORTER_OTLP_HEADERS',
    aliases: ['OTEL_EXPORTER_OTLP_TRACES_HEADERS'],
    meaning: 'Headers for the collector: `name=value,other=value`, values percent-encoded.',
    byDefault: '',
    example: '',
    secret: true,
    security: 'Secret: a key as a rule. The workers do not have it.',
  },
  {
    name: 'OTEL_EXPORTER_OTLP_PROTOCOL',
    aliases: ['OTEL_EXPORTER_OTLP_TRACES_PROTOCOL'],
    meaning: 'How spans are written: `http/json` or `http/protobuf`. gRPC is not spoken.',
    byDefault: 'http/json',
    example: 'http/protobuf',
  },
  {
    name: 'OTEL_EXPORTER_OTLP_TIMEOUT',
    aliases: ['OTEL_EXPORTER_OTLP_TRACES_TIMEOUT'],
    meaning: 'Milliseconds that the collector has to answer; without a unit, as OpenTelemetry has it.',
    byDefault: '10000',
    example: '3000',
  },
  {
    name: 'OTEL_EXPORTER_OTLP_CERTIFICATE',
    aliases: ['OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE'],
    meaning: 'PEM file of the roots that the collector may be under, in the place of the public ones.',
    byDefault: '',
    example: '/config/collector-root.pem',
  },
  {
    name: 'OTEL_EXPORTER_OTLP_COMPRESSION',
    aliases: ['OTEL_EXPORTER_OTLP_TRACES_COMPRESSION'],
    meaning: '`gzip` or `none`.',
    byDefault: 'none',
    example: 'gzip',
  },
  {
    name: 'OTEL_TRACES_SAMPLER',
    meaning:
      'Which requests are recorded: `always_on`, `always_off`, `traceidratio`, or the same after a trusted peer that says so itself: `parentbased_always_on`, `parentbased_always_off`, `parentbased_traceidratio`.',
    byDefault: 'parentbased_always_on',
    example: 'parentbased_traceidratio',
  },
  {
    name: 'OTEL_TRACES_SAMPLER_ARG',
    meaning: 'The part that `traceidratio` records, from 0 to 1.',
    byDefault: '1',
    example: '0.01',
  },
  {
    name: 'OTEL_SERVICE_NAME',
    meaning: 'What the spans call this program.',
    byDefault: 'dstack-ingress',
    example: 'shop-ingress',
  },
  {
    name: 'OTEL_RESOURCE_ATTRIBUTES',
    meaning: 'What else they say of it: `name=value,other=value`, values percent-encoded.',
    byDefault: '',
    example: 'deployment.environment.name=production',
  },
  {
    name: 'LOG_LEVEL',
    meaning: '`trace`, `debug`, `info`, `warn`, `error` or `silent`.',
    byDefault: 'info',
    example: 'debug',
  },
  {
    name: 'DSTACK_INGRESS_NODE_INSIDES',
    meaning:
      "For diagnosis: which uses of Node's insides are switched off, `off` for all or names from docs/performance.md. What is off is done by Node's public interface alone, at a higher cost.",
    byDefault: '',
    example: 'off',
  },
];
