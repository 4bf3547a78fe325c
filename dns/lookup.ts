// One server's answer about a name: the values at the end of its aliases. A failure is an error, never an empty answer.

import { DnsError } from './error.ts';
import type { RecordType } from './provider.ts';
import type { Exchange } from './wire/exchange.ts';
import {
  CLASS_IN,
  FLAG_AUTHENTIC_DATA,
  FLAG_AUTHORITATIVE,
  FLAG_TRUNCATED,
  type Message,
  recordValue,
  responseCode,
  responseCodes,
  typeNumbers,
} from './wire/message.ts';
import { normalizeName } from './wire/presentation.ts';

export type LookupType = RecordType | 'NS';

/** Resolvers and CAs take longer chains for loops. */
const LONGEST_CHAIN = 8;

/** Repeats the question while the server follows an alias by one step only. */
export async function lookUp(exchange: Exchange, name: string, type: LookupType): Promise<string[]> {
  return (await lookUpWhole(exchange, name, type)).values;
}

/** The same, and whether the server has validated each step. */
export async function lookUpWhole(
  exchange: Exchange,
  name: string,
  type: LookupType,
): Promise<{ values: string[]; authentic: boolean }> {
  const chain = [normalizeName(name)];
  let authentic = true;
  for (;;) {
    const asked = chain.at(-1)!;
    const look = await lookUpOnce(exchange, chain, type);
    authentic &&= look.authentic;
    if (look.values.length > 0 || !look.exists || chain.at(-1) === asked)
      return { values: look.values, authentic };
  }
}

export interface Look {
  readonly values: string[];
  /** Whether the name has records of any type. */
  readonly exists: boolean;
  /** Whether the server holds the zone itself (RFC 1035 §4.1.1, AA). */
  readonly authoritative: boolean;
  /** Whether the server says that it has validated the answer (DNSSEC). */
  readonly authentic: boolean;
}

/**
 * One question, about the last name of `chain`; the aliases in the answer are appended to it. SERVFAIL, REFUSED and
 * silence reject with DnsError: they do not mean that there is nothing.
 */
export async function lookUpOnce(exchange: Exchange, chain: string[], type: LookupType): Promise<Look> {
  const name = chain.at(-1)!;
  const message = await exchange.ask({ name, type: typeNumbers[type], class: CLASS_IN });
  refuseFailure(message, exchange.server, name, type);
  return {
    values: valuesIn(message, chain, type, exchange.server),
    exists: responseCode(message) !== 3,
    authoritative: (message.flags & FLAG_AUTHORITATIVE) !== 0,
    authentic: (message.flags & FLAG_AUTHENTIC_DATA) !== 0,
  };
}

function refuseFailure(message: Message, server: string, name: string, type: LookupType): void {
  const code = responseCode(message);
  if ((message.flags & FLAG_TRUNCATED) !== 0) {
    throw new DnsError('unintelligible', `${server} sent only a part of the ${type} records of ${name}`);
  }
  // NXDOMAIN is a definite answer: there is nothing.
  if (code === 0 || code === 3) return;
  const said = `${server} answered ${responseCodes[code] ?? `code ${code}`} for ${type} of ${name}`;
  throw new DnsError(code === 2 ? 'unreachable' : 'refused', said);
}

/** Appends the aliases that it follows to `chain`. A record at the name itself goes before an alias of the same name. */
function valuesIn(message: Message, chain: string[], type: LookupType, server: string): string[] {
  const answers = message.answers.filter((record) => record.class === CLASS_IN);
  for (;;) {
    const name = chain.at(-1)!;
    const here = answers.filter((record) => record.name === name);
    const values = here.filter((record) => record.type === typeNumbers[type]).map(recordValue);
    const alias = here.find((record) => record.type === typeNumbers.CNAME);
    // An alias is not a zone, even if its target is: the target's name servers are not those of the name.
    if (values.length > 0 || alias === undefined || type === 'NS') return values;
    const target = recordValue(alias);
    if (chain.includes(target) || chain.length > LONGEST_CHAIN) {
      throw new DnsError(
        'unintelligible',
        `${server}: the CNAMEs of ${chain[0]} lead nowhere: ${chain.join(' -> ')} -> ${target}`,
      );
    }
    chain.push(target);
  }
}
