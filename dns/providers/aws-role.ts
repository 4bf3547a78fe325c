// Assumes an AWS role with an access key: one call to the token service, signed by Amazon's package.

import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto';
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

/** Temporary keys, valid until `expiration`. Rejects with DnsError, `permission-missing` if the role may not be assumed. */
export async function assumeRole(options: AssumeRoleOptions): Promise<AwsKeys & { expiration: Date }> {
  const { api, url, roleArn } = options;
  const body = new URLSearchParams({
    Action: 'AssumeRole',
    Version: '2011-06-15',
    RoleArn: roleArn,
    RoleSessionName: 'dstack-ingress',
  }).toString();
  const subject = `assuming the role ${roleArn}`;
  const headers = await sign(body, options);
  const reply = await api.send({ method: 'POST', url: `${url}/`, headers, body });
  const root = parseXml(reply.body.toString('utf8'));
  const text = (name: string) => (root === undefined ? undefined : elementsNamed(root, name)[0]?.text.trim());
  if (reply.status < 200 || reply.status > 299) {
    const code = text('Code') ?? '';
    const said = [code, text('Message')].filter(Boolean).join(': ');
    // Status 403 is the answer to unknown keys and to missing permissions.
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

async function sign(body: string, options: AssumeRoleOptions): Promise<Record<string, string>> {
  const { region, keys, now } = options;
  const { protocol, hostname, host, pathname } = new URL(`${options.url}/`);
  const { SignatureV4 } = await import('./aws-packages.ts');
  const signer = new SignatureV4({ service: 'sts', region, credentials: keys, sha256: Sha256 });
  const headers = { host, 'content-type': 'application/x-www-form-urlencoded' };
  const request = { method: 'POST', protocol, hostname, path: pathname, headers, body };
  return (await signer.sign(request, { signingDate: now() })).headers;
}

/** The package's interface: an HMAC if there is a secret, or else a hash. */
class Sha256 {
  readonly #hash: Hash | Hmac;

  constructor(secret?: SourceData) {
    this.#hash = secret === undefined ? createHash('sha256') : createHmac('sha256', bytesOf(secret));
  }

  update(data: SourceData): void {
    this.#hash.update(bytesOf(data));
  }

  async digest(): Promise<Uint8Array> {
    return this.#hash.digest();
  }
}

type SourceData = string | ArrayBuffer | ArrayBufferView;

function bytesOf(data: SourceData): Buffer {
  if (typeof data === 'string') return Buffer.from(data);
  if (data instanceof ArrayBuffer) return Buffer.from(data);
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}
