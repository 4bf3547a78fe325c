// Statements for tests that need some, and chains of them.

import { type Attestation, type Statement, statementDigest } from '../../evidence/statement.ts';

export function sampleStatement(change: Partial<Statement> = {}): Statement {
  return {
    type: 'dstack-ingress/statement/v1',
    time: '2026-03-01T12:00:00.000Z',
    domains: ['app.example.com'],
    certificates: [
      {
        names: ['app.example.com'],
        serial: '04ab',
        issuer: 'CN=R10, O=Let’s Encrypt, C=US',
        spki: '11'.repeat(32),
        sha256: '22'.repeat(32),
        notBefore: '2026-03-01T00:00:00.000Z',
        notAfter: '2026-05-30T00:00:00.000Z',
      },
    ],
    account: {
      uri: 'https://ca.example/acct/1',
      thumbprint: 'NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs',
    },
    caa: { 'app.example.com': ['0 issue "ca.example; accounturi=https://ca.example/acct/1"'] },
    appId: 'aa'.repeat(20),
    instanceId: 'bb'.repeat(20),
    composeHash: 'cc'.repeat(32),
    bootId: '6d0c7a3e-0b0f-4d52-9a0c-3f5e4a1d2c3b',
    revision: '1.0.0 (abc)',
    previous: null,
    ...change,
  };
}

export function sampleAttestation(change: Partial<Statement> = {}): Attestation {
  return {
    statement: sampleStatement(change),
    quote: '00',
    event_log: '[]',
    report_data: '00'.repeat(64),
  };
}

/** `length` statements, a day apart, each linked to the one before. */
export function chainOf(length: number): Statement[] {
  const chain: Statement[] = [];
  for (let day = 1; day <= length; day++) {
    const before = chain.at(-1);
    chain.push(
      sampleStatement({
        time: new Date(Date.UTC(2026, 2, day)).toISOString(),
        previous: before === undefined ? null : statementDigest(before),
      }),
    );
  }
  return chain;
}
