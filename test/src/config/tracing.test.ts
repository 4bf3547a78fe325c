// The settings of traces: OpenTelemetry's names, what is made of them, and what is refused with a cure.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, readConfig } from '../../../src/config/config.ts';
import { describeMistake } from '../../../src/config/mistake.ts';
import { appCertificate } from '../../support/proxy.ts';

const base = {
  DOMAIN: 'app.example.com',
  TARGET_ENDPOINT: 'app:80',
  GATEWAY_DOMAIN: 'gateway.example.net',
  CHALLENGE_TYPE: 'tls-alpn-01',
  NGINX_CONF_DIR: 'none',
};
const files: Readonly<Record<string, string>> = {
  '/secret': 'api-key=from-a-file\n',
  '/root.pem': appCertificate.chain,
};
const readFile = (path: string) => {
  const text = files[path];
  if (text === undefined) throw Object.assign(new Error('ENOENT'), { code: 'ENOENT' });
  return text;
};
const read = (env: Record<string, string>) => readConfig({ ...base, ...env }, readFile as never);
const ENDPOINT = 'OTEL_EXPORTER_OTLP_ENDPOINT';

function mistakes(env: Record<string, string>): string[] {
  try {
    read(env);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.mistakes.map(describeMistake);
  }
  return assert.fail('it was taken');
}

test('nothing is traced without an endpoint; what else is set may be meant for others, and is not read', () => {
  const { tracing, warnings } = read({ OTEL_TRACES_SAMPLER: 'xray', OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' });
  assert.equal(tracing, undefined);
  assert.deepEqual(warnings, [
    {
      variable: 'OTEL_EXPORTER_OTLP_PROTOCOL',
      warning: 'does nothing: OTEL_EXPORTER_OTLP_ENDPOINT is not set',
    },
    { variable: 'OTEL_TRACES_SAMPLER', warning: 'does nothing: OTEL_EXPORTER_OTLP_ENDPOINT is not set' },
  ]);
});

test('an endpoint alone: everything is recorded, in JSON, under its path, and no query is shown', () => {
  const { tracing } = read({ [ENDPOINT]: 'http://collector:4318' });
  assert.deepEqual(tracing, {
    followsParent: true,
    ratio: 1,
    query: undefined,
    collector: {
      url: 'http://collector:4318/v1/traces',
      encoding: 'json',
      headers: {},
      gzip: false,
      timeoutMs: 10_000,
      ca: undefined,
    },
    resource: new Map([['service.name', 'dstack-ingress']]),
  });
});

test('the path is added to what there is, and never to the endpoint of traces', () => {
  const url = (env: Record<string, string>) => read(env).tracing?.collector.url;
  assert.equal(
    url({ [ENDPOINT]: 'https://otlp.example.net/otlp/' }),
    'https://otlp.example.net/otlp/v1/traces',
  );
  const traces = 'https://traces.example.net/in';
  assert.equal(url({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: traces }), traces);
  assert.equal(url({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: traces, [ENDPOINT]: 'http://other' }), traces);
});

test('all of it is read', () => {
  const { tracing, shown } = read({
    [ENDPOINT]: 'https://collector',
    OTEL_EXPORTER_OTLP_HEADERS: 'Authorization=Bearer%20abc%3D%3D, x-tenant = one ',
    OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf',
    OTEL_EXPORTER_OTLP_TIMEOUT: '3000',
    OTEL_EXPORTER_OTLP_CERTIFICATE: '/root.pem',
    OTEL_EXPORTER_OTLP_COMPRESSION: 'gzip',
    OTEL_TRACES_SAMPLER: 'traceidratio',
    OTEL_TRACES_SAMPLER_ARG: '0.25',
    OTEL_SERVICE_NAME: 'shop',
    OTEL_RESOURCE_ATTRIBUTES: 'service.name=other,team=a%2Cb',
    ACCESS_LOG_QUERY: 'true',
    ACCESS_LOG_REDACT: 'email',
  });
  const { collector, ...rest } = tracing!;
  assert.deepEqual(rest, {
    followsParent: false,
    ratio: 0.25,
    query: { redact: ['email'] },
    resource: new Map([
      ['service.name', 'shop'],
      ['team', 'a,b'],
    ]),
  });
  assert.deepEqual(collector, {
    url: 'https://collector/v1/traces',
    encoding: 'protobuf',
    headers: { authorization: 'Bearer abc==', 'x-tenant': 'one' },
    gzip: true,
    timeoutMs: 3_000,
    ca: appCertificate.chain,
  });
  const header = shown.find(({ name }) => name === 'OTEL_EXPORTER_OTLP_HEADERS');
  assert.deepEqual(header, { name: 'OTEL_EXPORTER_OTLP_HEADERS', value: undefined });
});

test('every sampler of the specification, but for those of makers', () => {
  const sampling = (sampler: string) => {
    const { followsParent, ratio } = read({
      [ENDPOINT]: 'http://c',
      OTEL_TRACES_SAMPLER: sampler,
      OTEL_TRACES_SAMPLER_ARG: '.5',
    }).tracing!;
    return [followsParent, ratio];
  };
  assert.deepEqual(sampling('always_on'), [false, 1]);
  assert.deepEqual(sampling('always_off'), [false, 0]);
  assert.deepEqual(sampling('traceidratio'), [false, 0.5]);
  assert.deepEqual(sampling('parentbased_always_on'), [true, 1]);
  assert.deepEqual(sampling('parentbased_always_off'), [true, 0]);
  assert.deepEqual(sampling('parentbased_traceidratio'), [true, 0.5]);
});

test('headers may stand in a file, and those for traces alone go before the others', () => {
  const headers = (env: Record<string, string>) =>
    read({ [ENDPOINT]: 'http://c', ...env }).tracing!.collector.headers;
  assert.deepEqual(headers({ OTEL_EXPORTER_OTLP_HEADERS_FILE: '/secret' }), { 'api-key': 'from-a-file' });
  assert.deepEqual(headers({ OTEL_EXPORTER_OTLP_HEADERS: 'a=1', OTEL_EXPORTER_OTLP_TRACES_HEADERS: 'b=2' }), {
    b: '2',
  });
});

test('what cannot be read is told with what is wanted, and no header is quoted', () => {
  const wrong = (env: Record<string, string>) => mistakes({ [ENDPOINT]: 'http://c', ...env });
  assert.match(wrong({ [ENDPOINT]: 'collector:4318' })[0]!, /is no http:\/\/ or https:\/\/ URL/);
  assert.match(wrong({ [ENDPOINT]: 'http://collector:4317' })[0]!, /port 4317, where collectors speak gRPC/);
  assert.match(wrong({ OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' })[0]!, /grpc is not spoken: wants http\/json/);
  assert.match(
    wrong({ OTEL_TRACES_SAMPLER: 'parentbased_traceidration' })[0]!,
    /was parentbased_traceidratio meant/,
  );
  assert.match(wrong({ OTEL_TRACES_SAMPLER_ARG: '5' })[0]!, /wants a number from 0 to 1/);
  assert.match(wrong({ OTEL_EXPORTER_OTLP_TIMEOUT: '10s' })[0]!, /is not a number/);
  const secret = 'correct-horse';
  for (const bad of [
    secret,
    `a b=${secret}`,
    `content-type=${secret}`,
    `a=${secret}%zz`,
    `a=${secret}%0d%0ab`,
  ]) {
    const [said = ''] = wrong({ OTEL_EXPORTER_OTLP_HEADERS: bad });
    assert.match(said, /^OTEL_EXPORTER_OTLP_HEADERS: /);
    assert.ok(!said.includes(secret), said);
  }
  const userInfo = wrong({ [ENDPOINT]: `https://me:${secret}@collector` });
  assert.match(userInfo[0]!, /put them into OTEL_EXPORTER_OTLP_HEADERS/);
  assert.ok(!userInfo[0]!.includes(secret));
});
