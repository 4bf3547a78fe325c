// Lists of addresses: who is allowed and denied, and whose word on a client's address is taken.

import { BlockList, isIP } from 'node:net';
import type { AddressList, AddressTest } from './compiled.ts';
import type { AddressRule, Origin } from './model.ts';
import { RuleSetError } from './scope.ts';

/** Neighbours with the same verdict are asked as one: the first that fits decides all the same. */
export function compileAddresses(rules: readonly AddressRule[]): readonly AddressTest[] {
  const tests: AddressTest[] = [];
  let run: AddressRule[] = [];
  const close = () => {
    if (run.length > 0) tests.push(compileRun(run));
    run = [];
  };
  for (const rule of rules) {
    if (run[0] !== undefined && (run[0].allow !== rule.allow || rule.range === 'all')) close();
    run.push(rule);
    if (rule.range === 'all') close();
  }
  close();
  return tests;
}

function compileRun(rules: readonly AddressRule[]): AddressTest {
  const { allow, origin } = rules[0]!;
  const written = `${allow ? 'allow' : 'deny'} ${rules.map(({ range }) => range).join(', ')}`;
  const all = rules.some(({ range }) => range === 'all');
  const ranges = rules.map(({ range, origin: at }) => ({ range, origin: at }));
  return { allow, origin, written, list: all ? undefined : compileRanges(ranges) };
}

interface Range {
  readonly range: string;
  readonly origin?: Origin | undefined;
}

/** Addresses and CIDRs. `unix:` is nobody here. A range of IPv6, all of it even, holds no address of IPv4. */
export function compileRanges(ranges: readonly Range[]): AddressList {
  const list: AddressList = { four: new BlockList(), six: new BlockList() };
  for (const { range, origin } of ranges) {
    if (range === 'unix:') continue;
    const [address = '', bits] = range.split('/');
    const family = isIP(address);
    const most = family === 4 ? 32 : 128;
    const prefix = bits === undefined ? most : Number(bits);
    if (family === 0 || !/^\d{1,3}$/.test(bits ?? '0') || prefix > most)
      throw new RuleSetError(`${range} is neither an address nor a CIDR`, origin);
    if (family === 4) list.four.addSubnet(address, prefix, 'ipv4');
    else list.six.addSubnet(address, prefix, 'ipv6');
  }
  return list;
}

/** What IPv4 looks like on a socket of IPv6 is IPv4 (RFC 4291 §2.5.5.2). */
export function plainAddress(address: string): string {
  return /^::ffff:\d/i.test(address) ? address.slice(7) : address;
}

export function isIn({ four, six }: AddressList, address: string): boolean {
  const plain = plainAddress(address);
  const family = isIP(plain);
  if (family === 4) return four.check(plain, 'ipv4');
  return family === 6 && six.check(plain, 'ipv6');
}

/** The rule that decides. Undefined: none fits, and nobody is kept out. */
export function verdict(tests: readonly AddressTest[], address: string): AddressTest | undefined {
  return tests.find(({ list }) => list === undefined || isIn(list, address));
}
