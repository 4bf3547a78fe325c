// The status as text, for people: one paragraph a domain.

import type { CaaStatus, DomainStatus, RecordsStatus, Status } from './status-report.ts';

const DAY_MS = 86_400_000;

export function describeStatus({ directory, account, at, problems, domains, upstreams }: Status): string {
  const now = new Date(at);
  const head = [
    line('CA', directory),
    line('account', account ?? 'none yet'),
    ...problems.map((problem) => line('problem', problem)),
  ];
  const reached = upstreams.map(({ upstream, state, why }) =>
    line(
      'upstream',
      `${upstream}: ${state === 'unreachable' ? 'NOT REACHABLE' : state}${why ? `: ${why}` : ''}`,
    ),
  );
  return `${[head.join(''), ...domains.map((each) => describeDomain(each, now)), reached.join('')].join('\n')}`;
}

function describeDomain(status: DomainStatus, now: Date): string {
  const { domain, certificate, window, next, failure, orderSince } = status;
  const due = new Date(next.at) <= now;
  return [
    `${domain}: ${status.valid ? 'valid' : 'NO VALID CERTIFICATE'}\n`,
    certificate && line('  certificate', `${certificate.serial} by ${certificate.issuer}`),
    certificate && line('  expires', `${certificate.notAfter} (${daysUntil(certificate.notAfter, now)})`),
    window && line('  window', `${window.start} to ${window.end}`),
    line('  next', `${due ? 'due now' : next.at} (${next.reason})`),
    orderSince && line('  order', `under way since ${orderSince}`),
    ...status.damaged.map((each) => line('  damaged', each)),
    failure && line('  last failure', `${failure.at}${times(failure.failures)}: ${failure.reason}`),
    line('  CAA', describeCaa(status.caa)),
    line('  records', describeRecords(status.records)),
  ]
    .filter((text) => text !== undefined && text !== '')
    .join('');
}

function line(label: string, text: string): string {
  return `${label.padEnd(16)}${text}\n`;
}

function times(failures: number): string {
  return failures > 1 ? `, ${failures} in a row` : '';
}

function daysUntil(time: string, now: Date): string {
  const leftMs = new Date(time).getTime() - now.getTime();
  const days = Math.abs(leftMs) / DAY_MS;
  const span = days < 2 ? `${Math.floor(days * 24)} hours` : `${Math.floor(days)} days`;
  return leftMs < 0 ? `${span} ago` : `${span} left`;
}

function describeCaa(caa: CaaStatus): string {
  const cure = caa.cure === undefined ? '' : `; ${caa.cure}`;
  if (caa.state === 'unknown') return `not known: ${caa.why}${cure}`;
  const by = caa.decidedBy === undefined ? '' : ` at ${caa.decidedBy}`;
  const said = {
    pinned: `this account alone may have certificates${by}`,
    open: `others may have certificates as well${by}`,
    forbids: `FORBIDS the next certificate${by}`,
  }[caa.state];
  const findings = caa.findings.length > 0 ? `: ${caa.findings.join(', ')}` : '';
  return `${said}${findings}${cure} (seen ${caa.at})`;
}

function describeRecords(records: RecordsStatus): string {
  if (records.state === 'unknown') return `not known: ${records.why}`;
  return records.state === 'missing' ? `MISSING: ${records.what}` : 'in place';
}
