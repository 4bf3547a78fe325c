// Who may issue, by the records of a name: every way that a pin fails open or shut.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CaaQuestion, checkCaa, judgeCaa } from '../../dns/caa.ts';
import { DnsError } from '../../dns/provider.ts';
import { parseDomain } from '../../src/lib/domain.ts';

const accountUrl = 'https://ca.example/acct/1';
const question = (domain = 'a.b.example'): CaaQuestion => ({
  domain: parseDomain(domain),
  identities: ['ca.example', 'www.ca.example'],
  accountUrl,
  method: 'dns-01',
});
const pin = `0 issue "ca.example; accounturi=${accountUrl}; validationmethods=dns-01"`;
const wildPin = pin.replace('issue', 'issuewild');
const judge = (values: string[], domain?: string) => {
  const { allowed, pinned } = judgeCaa(values, question(domain));
  return { allowed, pinned };
};
const SHUT = { allowed: false, pinned: false };
const OPEN = { allowed: true, pinned: false };
const PINNED = { allowed: true, pinned: true };

test('a bare record left beside the pin lets every account issue: that is no pin', () => {
  assert.deepEqual(judge([pin, '0 issue "ca.example"']), OPEN);
  assert.match(judgeCaa([pin, '0 issue "ca.example"'], question()).findings.join(), /every account/);
});

test('a record of another CA beside the pin lets that CA issue: that is no pin', () => {
  assert.deepEqual(judge([pin, '0 issue "other.example"']), OPEN);
});

test('a record for another account beside ours lets that account issue: that is no pin', () => {
  assert.deepEqual(judge([pin, pin.replace(accountUrl, `${accountUrl}2`)]), OPEN);
});

test('the account of staging, of another person, or with another slash is not ours', () => {
  for (const other of ['https://staging.ca.example/acct/1', `${accountUrl}2`, `${accountUrl}/`]) {
    assert.deepEqual(judge([pin.replace(accountUrl, other)]), SHUT, other);
  }
});

test('a pin for another validation method shuts us out', () => {
  assert.deepEqual(judge([pin.replace('dns-01', 'tls-alpn-01')]), SHUT);
  assert.deepEqual(judge([pin.replace('dns-01', 'http-01,dns-01')]), PINNED);
});

test('what a strict CA cannot read counts for nothing, and shuts', () => {
  const unreadable = [
    `0 issue "ca.example; accounturi=${accountUrl};"`,
    `0 issue "ca.example; accounturi=${accountUrl}; accounturi=${accountUrl}"`,
    `0 issue "ca.example; validationmethods=dns-01, http-01"`,
    `0 issue "ca.example; validationmethods"`,
    `0 issue "ca example"`,
    `0 issue "ca.example accounturi=${accountUrl}"`,
  ];
  for (const record of unreadable) assert.deepEqual(judge([record]), SHUT, record);
});

test('an empty issuer forbids everyone', () => {
  for (const record of ['0 issue ";"', '0 issue ""', '0 issue "; accounturi=x"'])
    assert.deepEqual(judge([record]), SHUT);
});

test('the pin allows this account alone; case and spaces around do not matter', () => {
  assert.deepEqual(judge([pin]), PINNED);
  assert.deepEqual(judge([`128 ISSUE "CA.example ;  ACCOUNTURI = ${accountUrl}"`]), PINNED);
});

test('issuewild decides for a wildcard where there is any, issue where there is none', () => {
  assert.deepEqual(judge([pin], '*.b.example'), PINNED);
  assert.deepEqual(judge([pin, '0 issuewild ";"'], '*.b.example'), SHUT);
  assert.deepEqual(judge(['0 issue ";"', wildPin], '*.b.example'), PINNED);
});

test('issuewild says nothing about other names', () => {
  assert.deepEqual(judge(['0 issuewild ";"']), OPEN);
  assert.deepEqual(judge([pin, '0 issuewild "other.example"']), PINNED);
});

test('an unknown property shuts if it is critical, and only then', () => {
  assert.deepEqual(judge([pin, '128 future "x"']), SHUT);
  assert.deepEqual(judge([pin, '0 future "x"', '0 iodef "mailto:a@b.example"']), PINNED);
});

test('something that is no CAA record forbids issuance', () => {
  for (const text of ['issue "ca.example"', '256 issue "x"', '0 issue "open', '\\# 3 abcdef']) {
    assert.deepEqual(judge([text]), SHUT, text);
  }
});

function zone(records: Record<string, string[]>) {
  const asked: string[] = [];
  return {
    asked,
    async resolve(name: string) {
      asked.push(name);
      return records[name] ?? [];
    },
  };
}

test('the closest name with records decides, and no name above it is asked', async () => {
  const resolver = zone({ 'b.example': [pin], example: ['0 issue ";"'] });
  const verdict = await checkCaa(resolver, question());
  assert.deepEqual([verdict.allowed, verdict.pinned, verdict.decidedBy], [true, true, 'b.example']);
  assert.deepEqual(resolver.asked, ['a.b.example', 'b.example']);
});

test('a closer record hides the pin above it', async () => {
  const resolver = zone({ 'a.b.example': ['0 issue "ca.example"'], 'b.example': [pin] });
  assert.equal((await checkCaa(resolver, question())).pinned, false);
});

test('a wildcard is asked for at the name below which it stands', async () => {
  const resolver = zone({});
  const verdict = await checkCaa(resolver, question('*.b.example'));
  assert.deepEqual(resolver.asked, ['b.example', 'example']);
  assert.deepEqual([verdict.allowed, verdict.decidedBy], [true, undefined]);
});

test('a resolver that fails is no permission', async () => {
  const resolver = { resolve: () => Promise.reject(new DnsError('unreachable', 'SERVFAIL')) };
  await assert.rejects(checkCaa(resolver, question()), { code: 'unreachable' });
});
