// A provisioning certificate caching service over a real socket: Intel's paths and headers, and ways to fall short of them.

import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import type { Collateral } from '../../evidence/verify/collateral.ts';

export interface PccsAnswer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

export interface PccsOptions {
  /** Caches send the root's list in hex, Intel's own service has none. */
  readonly rootCrl?: 'hex' | 'none';
  readonly pckCrl?: 'der' | 'hex' | 'pem';
  /** Stands between the service and the client: what it returns is sent instead. `attempt` counts from 1 for each path. */
  readonly intercept?: (path: string, attempt: number) => PccsAnswer | 'hang' | undefined;
}

export interface PccsDouble {
  readonly url: string;
  /** Path and query, in the order in which they came. */
  readonly asked: readonly string[];
}

/** Closed after the test. */
export async function startPccsDouble(
  t: TestContext,
  collateral: Collateral,
  options: PccsOptions = {},
): Promise<PccsDouble> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const path = request.url!;
    asked.push(path);
    const attempt = asked.filter((one) => one === path).length;
    const answer = options.intercept?.(path, attempt) ?? answerTo(path, collateral, options);
    if (answer !== 'hang') send(response, answer);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

function answerTo(
  path: string,
  collateral: Collateral,
  { rootCrl = 'hex', pckCrl = 'der' }: PccsOptions,
): PccsAnswer {
  const { pathname } = new URL(path, 'http://pccs');
  switch (pathname) {
    case '/sgx/certification/v4/pckcrl':
      return {
        headers: { 'SGX-PCK-CRL-Issuer-Chain': encodeURIComponent(collateral.pck_crl_issuer_chain) },
        body: asForm(pckCrl, collateral.pck_crl),
      };
    case '/tdx/certification/v4/tcb':
      return {
        headers: { 'TCB-Info-Issuer-Chain': encodeURIComponent(collateral.tcb_info_issuer_chain) },
        body: `{"tcbInfo":${collateral.tcb_info},"signature":"${collateral.tcb_info_signature}"}`,
      };
    case '/tdx/certification/v4/qe/identity':
      return {
        headers: {
          'SGX-Enclave-Identity-Issuer-Chain': encodeURIComponent(collateral.qe_identity_issuer_chain),
        },
        body: `{"enclaveIdentity":${collateral.qe_identity},"signature":"${collateral.qe_identity_signature}"}`,
      };
    case '/sgx/certification/v4/rootcacrl':
      return rootCrl === 'hex' ? { body: collateral.root_ca_crl } : { status: 404 };
    default:
      return { status: 404 };
  }
}

function asForm(form: 'der' | 'hex' | 'pem', hex: string): string | Buffer {
  if (form === 'hex') return hex;
  const der = Buffer.from(hex, 'hex');
  if (form === 'der') return der;
  return `-----BEGIN X509 CRL-----\n${der.toString('base64').replace(/(.{64})/g, '$1\n')}\n-----END X509 CRL-----\n`;
}

function send(response: ServerResponse, { status = 200, headers = {}, body = '' }: PccsAnswer): void {
  response.writeHead(status, headers);
  response.end(body);
}
