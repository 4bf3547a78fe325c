// The connection and the files that came over it -> verdicts on tls.* and bundle.*, and on what the quote binds.

import { X509Certificate } from 'node:crypto';
import {
  ACCOUNT_FILE,
  accountIn,
  leafIn,
  ownCertificateName,
  parseSums,
  type SumLine,
} from './bundle-files.ts';
import type { Verdicts } from './checks.ts';
import { judgeBinding, type QuoteDocument, readQuoteDocument, sha256 } from './documents.ts';
import { type Fetched, ownConnection, type Seen, type SeenBundle } from './seen.ts';
import { judgeChain } from './tls-chain.ts';
import { fail, notRun, pass, type Verdict } from './verdict.ts';

export function judgeConnection(
  seen: Seen,
  question: { readonly at: Date; readonly ca: string | undefined },
): Pick<Verdicts, 'tls.chain' | 'tls.pinned'> {
  const { connections, host } = seen;
  const own = ownConnection(seen);
  if (own === undefined) {
    const never = notRun(seen.unreachable ?? 'there is no connection to the host');
    return { 'tls.chain': never, 'tls.pinned': never };
  }
  return {
    'tls.chain': judgeChain(own, { host, ...question }),
    'tls.pinned': judgeKeys(connections.map(({ spki }) => spki)),
  };
}

function judgeKeys([first, ...others]: readonly Buffer[]): Verdict {
  if (first === undefined || others.length === 0)
    return notRun('there was one connection only, and nothing to compare it with');
  const other = others.find((spki) => !spki.equals(first));
  if (other !== undefined)
    return fail(`two keys on ${others.length + 1} connections: ${sha256(first)} and ${sha256(other)}`);
  return pass(`the key ${sha256(first)} on all ${others.length + 1} connections`);
}

/** The bundle as far as it could be read. */
export interface ReadBundle {
  readonly sums: readonly SumLine[] | undefined;
  readonly quote: QuoteDocument | undefined;
  /** The URL of the account; undefined also if its file is not the one in the sums. */
  readonly account: string | undefined;
}

export function readBundle({ sums, quote, files }: SeenBundle): ReadBundle {
  const lines = sums.state === 'got' ? parseSums(sums.body) : 'missing';
  const document = quote.state === 'got' ? readQuoteDocument(quote.body) : 'missing';
  const account = files.get(ACCOUNT_FILE);
  const listed = typeof lines === 'string' ? undefined : lines.find(({ name }) => name === ACCOUNT_FILE);
  const proven = account?.state === 'got' && sha256(account.body) === listed?.sha256;
  return {
    sums: typeof lines === 'string' ? undefined : lines,
    quote: typeof document === 'string' ? undefined : document,
    account: proven ? accountIn(account.body) : undefined,
  };
}

export function judgeBundle(
  seen: Seen,
): Pick<Verdicts, 'bundle.fetch' | 'bundle.format' | 'bundle.sums' | 'bundle.leaf' | 'quote.binding'> {
  const { bundle, host } = seen;
  const read = readBundle(bundle);
  return {
    'bundle.fetch': judgeFetch(bundle),
    'bundle.format': judgeFormat(bundle),
    'bundle.sums': judgeSums(bundle, read, host),
    'bundle.leaf': judgeLeaf(bundle, read, host, ownConnection(seen)?.chain[0]),
    'quote.binding':
      bundle.sums.state !== 'got' || read.quote === undefined
        ? notRun('there are no sums, or there is no quote')
        : judgeBinding(read.quote.parsed, bundle.sums.body),
  };
}

function judgeFetch({ sums, quote, files }: SeenBundle): Verdict {
  const all: (readonly [string, Fetched])[] = [['sha256sum.txt', sums], ['quote.json', quote], ...files];
  // Without the sums the others were not asked for.
  const asked = sums.state === 'got' ? all : all.slice(0, 1);
  const worst =
    asked.find(([, file]) => file.state === 'absent' || file.state === 'refused') ??
    asked.find(([, file]) => file.state === 'missing');
  if (worst === undefined) return pass(`${asked.length} files, each whole`);
  const [name, file] = worst;
  const said = `${name}: ${file.state === 'got' ? '' : file.why}`;
  return file.state === 'missing' ? notRun(said) : fail(said);
}

function judgeFormat({ sums, quote, files }: SeenBundle): Verdict {
  const faults = [faultIn(sums, parseSums), faultIn(quote, readQuoteDocument)];
  const account = files.get(ACCOUNT_FILE);
  if (account?.state === 'got' && accountIn(account.body) === undefined)
    faults.push(`${ACCOUNT_FILE} is not JSON with the URL of an account as "uri"`);
  const fault = faults.find((one) => one !== undefined);
  if (fault !== undefined) return fail(fault);
  if (sums.state !== 'got' || quote.state !== 'got' || account?.state !== 'got')
    return notRun('not every file is there to be read');
  return pass('the sums, the account and the quote are in their formats, and the report data agrees');
}

function faultIn(file: Fetched, read: (body: Uint8Array) => unknown): string | undefined {
  if (file.state !== 'got') return undefined;
  const result = read(file.body);
  return typeof result === 'string' ? result : undefined;
}

function judgeSums({ files }: SeenBundle, { sums }: ReadBundle, host: string): Verdict {
  if (sums === undefined) return notRun('there are no sums to go by');
  const changed = sums.find(({ name, sha256: sum }) => {
    const file = files.get(name);
    return file?.state === 'got' && sha256(file.body) !== sum;
  });
  if (changed !== undefined) return fail(`${changed.name} is not the file that sha256sum.txt lists`);
  if (!sums.some(({ name }) => name === ACCOUNT_FILE))
    return fail(`sha256sum.txt does not list ${ACCOUNT_FILE}`);
  if (ownCertificateName(sums, host) === undefined)
    return fail(`sha256sum.txt lists no certificate for ${host} (cert-${host}.pem)`);
  if (sums.some(({ name }) => files.get(name)?.state !== 'got'))
    return notRun('not every file that is listed could be fetched');
  return pass(`${sums.length} files have the sums that sha256sum.txt lists`);
}

function judgeLeaf(
  { files }: SeenBundle,
  { sums }: ReadBundle,
  host: string,
  wire: Buffer | undefined,
): Verdict {
  const name = sums === undefined ? undefined : ownCertificateName(sums, host);
  const file = name === undefined ? undefined : files.get(name);
  if (wire === undefined || file?.state !== 'got')
    return notRun('the certificate is not among the evidence that came');
  if (sha256(file.body) !== sums?.find((line) => line.name === name)?.sha256)
    return notRun(`${name} is not the file that the sums list`);
  const leaf = leafIn(file.body);
  if (leaf === undefined) return fail(`${name} does not begin with a certificate`);
  const served = new X509Certificate(wire);
  if (!leaf.raw.equals(wire))
    return fail(
      `served is the certificate ${served.serialNumber} (SHA-256 ${sha256(wire)}), in the evidence ${leaf.serialNumber} (${sha256(leaf.raw)})`,
    );
  return pass(`the certificate served is that of ${name}: ${served.serialNumber}`);
}
