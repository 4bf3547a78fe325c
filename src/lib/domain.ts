// A domain name as certificates and routes know it: lower case, ASCII (A-labels), perhaps with a wildcard in front.

import { domainToASCII } from 'node:url';

declare const domainBrand: unique symbol;
/** Only parseDomain makes one: `example.com` or `*.example.com`, lower case, no trailing dot. */
export type Domain = string & { readonly [domainBrand]: true };

export class DomainError extends Error {
  override readonly name = 'DomainError';
  readonly code = 'invalid-domain';
  readonly subject: string;
  readonly cure: string;
  constructor(subject: string, cure: string) {
    super(`${subject}: ${cure}`);
    this.subject = subject;
    this.cure = cure;
  }
}

// RFC 1123 §2.1 host labels; the underscore of service names is not allowed in certificates (RFC 5280, CA/B BR 7.1.4).
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** Unicode names become A-labels. Throws DomainError with the reason. `localhost` is the only name of one label. */
export function parseDomain(text: string): Domain {
  const refuse = (why: string, cure = 'wants a name as in app.example.com'): never => {
    const because = why === '' ? '' : ` (${why})`;
    throw new DomainError(`${JSON.stringify(text)} is not a domain name${because}`, cure);
  };
  const trimmed = text.trim().replace(/\.$/, '');
  const wildcard = trimmed.startsWith('*.');
  const base = wildcard ? trimmed.slice(2) : trimmed;
  if (base === '') return refuse('it is empty');
  if (base.includes('*'))
    return refuse('', 'a wildcard stands for the whole first label, as in *.example.com');
  if (/[/:@?#\s]/.test(base)) return refuse('', 'give the bare name, without scheme, port or path');
  // domainToASCII reads as URLs do (WHATWG URL, host parser): a backslash ends the host, and %61 is an a.
  if (/[\\%]/.test(base)) return refuse('it has characters that no domain name can have');
  const ascii = domainToASCII(base).toLowerCase();
  if (ascii === '') return refuse('it has characters that no domain name can have');
  const labels = ascii.split('.');
  for (const label of labels) {
    if (!LABEL.test(label)) {
      return refuse(
        `${JSON.stringify(label)} is not a valid label`,
        'wants labels of 1 to 63 letters, digits and inner hyphens',
      );
    }
  }
  if (/^\d+$/.test(labels.at(-1)!)) return refuse('it is an IP address');
  if (labels.length === 1 && ascii !== 'localhost') return refuse('it has only one label');
  const name = wildcard ? `*.${ascii}` : ascii;
  if (name.length > 253) return refuse('it is longer than 253 characters', 'wants a shorter one');
  return name as Domain;
}

export function isWildcard(domain: Domain): boolean {
  return domain.startsWith('*.');
}

/** `*.example.com` -> `example.com`; any other name is its own base. */
export function baseOf(domain: Domain): Domain {
  return (isWildcard(domain) ? domain.slice(2) : domain) as Domain;
}

/** Whether a certificate name or route host covers `host`: equal, or a wildcard over exactly one label (RFC 9525 §6.3). */
export function covers(pattern: string, host: string): boolean {
  if (pattern === host) return true;
  if (!pattern.startsWith('*.')) return false;
  const dot = host.indexOf('.');
  return dot > 0 && host.slice(dot + 1) === pattern.slice(2);
}
