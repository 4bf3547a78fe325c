// The httpreq protocol of lego: two calls to a server of the operator's, which writes challenges to any DNS.

import type { DnsProvider, DnsRecord, ProviderKind, ProviderOptions } from '../provider.ts';
import { type Api, createApi, readBaseUrl } from './api.ts';
import { patiently } from './patience.ts';

export const httpreqKind: ProviderKind = {
  name: 'httpreq',
  variables: [
    {
      name: 'HTTPREQ_ENDPOINT',
      required: true,
      secret: false,
      meaning: 'the address of the server; /present and /cleanup are called below it',
    },
    {
      name: 'HTTPREQ_USERNAME',
      required: false,
      secret: false,
      meaning: 'for basic authentication, with a password',
    },
    { name: 'HTTPREQ_PASSWORD', required: false, secret: true, meaning: 'for basic authentication' },
  ],
  create: createHttpreq,
};

function createHttpreq(
  credentials: Readonly<Record<string, string>>,
  options: ProviderOptions = {},
): DnsProvider {
  const { timeoutMs, patience } = options;
  const { HTTPREQ_USERNAME: user, HTTPREQ_PASSWORD: password } = credentials;
  const base = readBaseUrl('HTTPREQ_ENDPOINT', credentials.HTTPREQ_ENDPOINT ?? '');
  const basic = Buffer.from(`${user}:${password}`).toString('base64');
  const api = createApi({ provider: 'httpreq', secrets: [password ?? '', basic], timeoutMs });
  const headers = user === undefined ? {} : { authorization: `Basic ${basic}` };
  const call = (path: string, record: DnsRecord) =>
    patiently(() => post(api, `${base}/${path}`, headers, challengeOf(api, record)), patience);
  return {
    name: 'httpreq',
    caaBesideCname: false,
    challengesOnly: true,
    list: async (name) => {
      throw api.error('unsupported', `the protocol has no way to read the records of ${name}`);
    },
    add: (record) => call('present', record),
    remove: (record) => call('cleanup', record),
  };
}

function challengeOf(api: Api, { name, type, value }: DnsRecord): { fqdn: string; value: string } {
  if (type !== 'TXT')
    throw api.error('unsupported', `the protocol sets TXT records only, not ${type} of ${name}`);
  return { fqdn: `${name}.`, value };
}

async function post(
  api: Api,
  url: string,
  headers: Readonly<Record<string, string>>,
  body: unknown,
): Promise<void> {
  const reply = await api.send({
    method: 'POST',
    url,
    headers: { ...headers, accept: 'application/json', 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (reply.status < 200 || reply.status > 299) {
    throw api.refusal(reply, `POST ${new URL(url).pathname}`, reply.body.toString('utf8'));
  }
}
