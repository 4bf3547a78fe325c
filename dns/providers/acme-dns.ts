// Writes challenges to acme-dns, a small server of the operator's; the domain's `_acme-challenge` is an alias into it.

import * as z from 'zod';
import type { DnsProvider, DnsRecord, ProviderKind, ProviderOptions } from '../provider.ts';
import { createApi, readBaseUrl } from './api.ts';
import { patiently } from './patience.ts';

export const acmeDnsKind: ProviderKind = {
  name: 'acme-dns',
  aliases: ['acmedns'],
  variables: [
    {
      name: 'ACME_DNS_API_BASE',
      aliases: ['ACMEDNS_BASE_URL'],
      required: true,
      secret: false,
      meaning: 'the address of the server, as in https://auth.example.com',
    },
    {
      name: 'ACME_DNS_SUBDOMAIN',
      aliases: ['ACMEDNS_SUBDOMAIN'],
      required: true,
      secret: false,
      meaning:
        'the subdomain that registering gave; it holds the two newest challenges, so give it one certificate',
    },
    {
      name: 'ACME_DNS_USERNAME',
      aliases: ['ACMEDNS_USERNAME'],
      required: true,
      secret: false,
      meaning: 'the user name that registering gave',
    },
    {
      name: 'ACME_DNS_PASSWORD',
      aliases: ['ACMEDNS_PASSWORD'],
      required: true,
      secret: true,
      meaning: 'the password that registering gave',
    },
  ],
  create: createAcmeDns,
};

const updatedSchema = z.object({ txt: z.string() });

function createAcmeDns(
  credentials: Readonly<Record<string, string>>,
  options: ProviderOptions = {},
): DnsProvider {
  const { timeoutMs, patience } = options;
  const { ACME_DNS_USERNAME: user = '', ACME_DNS_PASSWORD: password = '' } = credentials;
  const subdomain = credentials.ACME_DNS_SUBDOMAIN ?? '';
  const base = readBaseUrl('ACME_DNS_API_BASE', credentials.ACME_DNS_API_BASE ?? '');
  const api = createApi({ provider: 'acme-dns', secrets: [password], timeoutMs });

  async function update({ name, type, value }: DnsRecord): Promise<void> {
    if (type !== 'TXT') throw api.error('unsupported', `it holds TXT records only, not ${type} of ${name}`);
    const reply = await api.send({
      method: 'POST',
      url: `${base}/update`,
      headers: { 'x-api-user': user, 'x-api-key': password, 'content-type': 'application/json' },
      body: JSON.stringify({ subdomain, txt: value }),
    });
    if (reply.status !== 200) throw api.refusal(reply, 'POST /update', reply.body.toString('utf8'));
    const { txt } = api.expect(updatedSchema, api.json(reply), `setting TXT of ${name}`);
    if (txt !== value)
      throw api.error('unintelligible', `setting TXT of ${name}: the server took another value`);
  }

  return {
    name: 'acme-dns',
    caaBesideCname: false,
    challengesOnly: true,
    list: async (name) => {
      throw api.error('unsupported', `the server has no way to read the records of ${name}`);
    },
    add: (record) => patiently(() => update(record), patience),
    // The API cannot remove: a later challenge takes the place of an old one, and the server holds nothing else.
    remove: async () => {},
  };
}
