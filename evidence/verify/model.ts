// Which model of platform a quote says that it is of: collateral is made for one model.

import 'reflect-metadata';
import { X509Certificate } from '@peculiar/x509';
import { splitChain } from '../../src/lib/certificate.ts';
import { readQuote } from '../quote.ts';
import { readAuthentication } from './authentication.ts';
import { platformOf } from './platform.ts';

/** Its FMSPC, hex; undefined if it does not say. Not proven by anything. */
export function modelOf(quote: string): string | undefined {
  try {
    const { pckChain } = readAuthentication(readQuote(quote).signature);
    const [pck] = splitChain(pckChain ?? '');
    return pck === undefined ? undefined : platformOf(new X509Certificate(pck))?.fmspc;
  } catch {
    return undefined;
  }
}
