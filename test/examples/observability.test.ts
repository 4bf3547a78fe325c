// The example with Prometheus and Grafana: both take its files, and every expression in them names metrics and labels that there are.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { type Metric, metrics } from '../../src/admin/metrics.ts';
import { readConfig } from '../../src/config/config.ts';

const folder = fileURLToPath(new URL('../../examples/observability/', import.meta.url));
const read = (name: string) => readFileSync(`${folder}${name}`, 'utf8');

const byName = new Map<string, Metric>(Object.values(metrics).map((metric) => [metric.name, metric]));
/** What Prometheus adds. */
const ADDED = new Set(['job', 'instance', 'le']);

/** What is wrong with the metrics and labels of an expression. */
function problemsOf(expression: string): string[] {
  const bare = expression.replaceAll(/"(?:[^"\\]|\\.)*"/g, '""');
  const names = [...bare.matchAll(/\b(?:dstack_ingress|process)_[a-z_]+\b/g)].map(([name]) => name);
  const named = names.map((name) => ({ name, metric: metricOf(name) }));
  const labels = new Set([...ADDED, ...named.flatMap(({ metric }) => metric?.labels ?? [])]);
  const selected = [...bare.matchAll(/([a-z_]+)\s*(?:=~|!~|!=|=)\s*""/g)].map(([, label]) => label!);
  const grouped = [...bare.matchAll(/\b(?:by|on|group_left)\s*\(([^)]*)\)/g)].flatMap(([, list]) =>
    list!.split(',').map((label) => label.trim()),
  );
  return [
    ...named.filter(({ metric }) => metric === undefined).map(({ name }) => `${name} is no metric`),
    ...[...selected, ...grouped]
      .filter((label) => label !== '' && !labels.has(label))
      .map((label) => `${label} is no label of ${names.join(' or ')}`),
  ];
}

function metricOf(name: string): Metric | undefined {
  const metric = byName.get(name) ?? byName.get(name.replace(/_(bucket|sum|count)$/, ''));
  const whole = metric?.name === name;
  return (metric?.type === 'histogram') === whole ? undefined : metric;
}

interface Rules {
  readonly groups: readonly {
    readonly rules: readonly { readonly alert: string; readonly expr: string }[];
  }[];
}

interface Panel {
  readonly title: string;
  readonly type: string;
  readonly targets?: readonly { readonly expr: string; readonly datasource: { readonly uid: string } }[];
}

interface Dashboard {
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly { readonly name: string; readonly definition?: string }[] };
  readonly annotations: { readonly list: readonly { readonly expr: string }[] };
}

const alerts = (parse(read('alerts.yaml')) as Rules).groups.flatMap(({ rules }) => rules);
const dashboard = JSON.parse(read('grafana/dashboard.json')) as Dashboard;

test('an expression with a wrong metric or a wrong label would be found', () => {
  assert.deepEqual(
    problemsOf('sum by (host) (rate(dstack_ingress_http_requests_total{code="200"}[5m]))'),
    [],
  );
  assert.equal(problemsOf('dstack_ingress_http_requests').length, 1);
  assert.equal(problemsOf('dstack_ingress_http_request_duration_seconds').length, 1);
  assert.equal(problemsOf('sum by (path) (dstack_ingress_http_requests_total)').length, 1);
  assert.equal(problemsOf('dstack_ingress_connections{host="a"}').length, 1);
});

describe('alert rules', () => {
  test('are taken by promtool, and so is the configuration that names them', () => {
    const run = (...args: string[]) =>
      execFileSync('promtool', ['check', ...args], { cwd: folder, encoding: 'utf8' });
    assert.match(run('rules', 'alerts.yaml'), /SUCCESS/);
    assert.match(run('config', '--syntax-only', 'prometheus.yaml'), /SUCCESS/);
  });

  test('fire when they should, and stay silent when they should', () => {
    const file = fileURLToPath(new URL('alerts.promtool.yaml', import.meta.url));
    assert.match(execFileSync('promtool', ['test', 'rules', file], { encoding: 'utf8' }), /SUCCESS/);
  });

  for (const { alert, expr } of alerts)
    test(`${alert} asks for what there is`, () => assert.deepEqual(problemsOf(expr), []));
});

describe('the dashboard', () => {
  test('asks for what there is, of the source that was chosen', () => {
    const targets = dashboard.panels.flatMap(({ title, targets = [] }) =>
      targets.map((target) => ({ title, ...target })),
    );
    assert.ok(targets.length > 25);
    const found = targets.flatMap(({ title, expr, datasource }) => [
      ...problemsOf(expr).map((problem) => `${title}: ${problem}`),
      ...(/^\$\{DS_PROMETHEUS\}$/.test(datasource.uid) ? [] : [`${title}: another source`]),
    ]);
    assert.deepEqual(found, []);
    for (const { expr } of dashboard.annotations.list) assert.deepEqual(problemsOf(expr), []);
    for (const { definition } of dashboard.templating.list)
      if (definition !== undefined) assert.deepEqual(problemsOf(definition), []);
  });

  test('shows every metric there is', () => {
    const all = JSON.stringify(dashboard);
    assert.deepEqual(
      [...byName.keys()].filter((name) => !all.includes(name)),
      [],
    );
  });

  test('lets job, instance and host be chosen', () => {
    const names = dashboard.templating.list.map(({ name }) => name);
    assert.deepEqual(names, ['DS_PROMETHEUS', 'job', 'instance', 'host']);
  });
});

test('the compose file configures an ingress that Prometheus may ask, and that sends its spans to the collector', () => {
  const { services } = parse(read('compose.yaml')) as {
    services: Record<string, { environment?: Record<string, string> }>;
  };
  const environment = Object.fromEntries(
    Object.entries(services.ingress!.environment!).map(([name, value]) => [
      name,
      value
        .replace(/\$\{DOMAIN\}/, 'app.example.com')
        .replace(/\$\{DSTACK_GATEWAY_DOMAIN\}/, 'gateway.example.net')
        .replace(/\$\{\w+\}/, '0123456789abcdef0123456789abcdef01234567'),
    ]),
  );
  const { admin, tracing } = readConfig({ ...environment, NGINX_CONF_DIR: 'none' });
  assert.deepEqual(admin.address, { host: '0.0.0.0', port: 9180, loopback: false });
  assert.ok(read('prometheus.yaml').includes('ingress:9180'));
  assert.deepEqual(
    [tracing?.collector.url, tracing?.followsParent, tracing?.ratio],
    ['http://collector:4318/v1/traces', true, 0.01],
  );
  const { receivers, exporters } = parse(read('collector.yaml')) as {
    receivers: { otlp: { protocols: { http: { endpoint: string } } } };
    exporters: { otlphttp: { endpoint: string } };
  };
  assert.match(receivers.otlp.protocols.http.endpoint, /:4318$/);
  assert.equal(exporters.otlphttp.endpoint, 'http://tempo:4318');
  assert.ok('collector' in services && 'tempo' in services);
});
