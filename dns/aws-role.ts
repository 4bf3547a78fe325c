// A role of Amazon's, assumed with an access key: one call to its token service, signed as its Signature Version 4 says.

import { createHash, createHmac } from 'node:crypto';
import type { Api } from './api.ts';
import { elementsNamed, parseXml } from './xml.ts';

export interface AwsKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

export interface AssumeRoleOptions {
  readonly api: Api;
  /** Of the token service. */
  readonly url: string;
  readonly region: string;
  readonly keys: AwsKeys;
  readonly roleArn: string;
  readonly now: () => Date;
}

/** Keys that lapse at `expiration`. Rejects with DnsError, `permission-missing` if the role may not be assumed. */
export async function assumeRole(options: AssumeRoleOptions): Promise<AwsKeys & { expiration: Date }> {
  const { api, url, roleArn } = options;
  const body = new URLSearchParams({
    Action: 'AssumeRole',
    Version: '2011-06-15',
    RoleArn: roleArn,
    RoleSessionName: 'dstack-ingress',
  }).toString();
  const subject = `assuming the role ${roleArn}`;
  const reply = await api.send({ method: 'POST', url: `${url}/`, headers: sign(body, options), body });
  const root = parseXml(reply.body.toString('utf8'));
  const text = (name: string) => (root === undefined ? undefined : elementsNamed(root, name)[0]?.text.trim());
  if (reply.status < 200 || reply.status > 299) {
    const code = text('Code') ?? '';
    const said = [code, text('Message')].filter(Boolean).join(': ');
    // Both come with status 403: a key that is not known, and one that may not.
    const unknown = /^(InvalidClientTokenId|ExpiredToken|SignatureDoesNotMatch|IncompleteSignature)/.test(
      code,
    );
    throw api.refusal(reply, subject, said, unknown ? 'credentials-refused' : undefined);
  }
  const [accessKeyId, secretAccessKey, sessionToken] = ['AccessKeyId', 'SecretAccessKey', 'SessionToken'].map(
    text,
  );
  const expiration = new Date(text('Expiration') ?? '');
  if (!accessKeyId || !secretAccessKey || !sessionToken || Number.isNaN(expiration.getTime())) {
    throw api.error('unintelligible', `${subject}: the answer holds no keys`);
  }
  return { accessKeyId, secretAccessKey, sessionToken, expiration };
}

const FORM = 'application/x-www-form-urlencoded';

/** AWS Signature Version 4 over a POST to the root path without a query. */
function sign(body: string, { url, region, keys, now }: AssumeRoleOptions): Record<string, string> {
  const time = now()
    .toISOString()
    .replace(/[-:]|\.\d{3}/g, '');
  const token: Record<string, string> =
    keys.sessionToken === undefined ? {} : { 'x-amz-security-token': keys.sessionToken };
  const headers: Record<string, string> = {
    'content-type': FORM,
    host: new URL(url).host,
    'x-amz-date': time,
    ...token,
  };
  const names = Object.keys(headers).sort();
  const canonical = [
    'POST',
    '/',
    '',
    ...names.map((name) => `${name}:${headers[name]}`),
    '',
    names.join(';'),
    createHash('sha256').update(body).digest('hex'),
  ].join('\n');
  const scope = `${time.slice(0, 8)}/${region}/sts/aws4_request`;
  const digest = createHash('sha256').update(canonical).digest('hex');
  const toSign = ['AWS4-HMAC-SHA256', time, scope, digest].join('\n');
  const key = scope
    .split('/')
    .reduce<string | Buffer>((secret, part) => hmac(secret, part), `AWS4${keys.secretAccessKey}`);
  const credential = `Credential=${keys.accessKeyId}/${scope}`;
  const signature = hmac(key, toSign).toString('hex');
  return {
    ...headers,
    authorization: `AWS4-HMAC-SHA256 ${credential}, SignedHeaders=${names.join(';')}, Signature=${signature}`,
  };
}

function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}
