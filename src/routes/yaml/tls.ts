// Certificates on either side: what clients show, and how upstreams are spoken to through TLS.

import type { Node } from 'yaml';
import type { ClientAuth, HeaderEdit, Policy, UpstreamTls } from '../../../proxy/rules/model.ts';
import { isRevocationList } from '../../config/files.ts';
import { parseHost } from '../../config/values.ts';
import { readBoolean, readChoice, readFields, readInteger, readString, readValue } from './fields.ts';
import { readNames } from './headers.ts';
import { keys } from './keys.ts';
import { type Reading, readAuthorities, readNamed } from './reading.ts';

export interface ClientAuthWord {
  readonly clientAuth: ClientAuth;
  /** Tells the app who came; the client's own field of that name never passes. */
  readonly edits: readonly HeaderEdit[];
}

export function readClientAuth(node: Node, reading: Reading): ClientAuthWord | undefined {
  const { mistakes } = reading;
  const fields = readFields(node, keys.clientAuth, '"client_auth"', mistakes);
  const ca = fields?.require(
    'ca',
    '"client_auth" has no "ca"',
    'wants a PEM file of the authorities that sign',
  );
  if (fields === undefined || ca === undefined) return undefined;
  const authorities = readAuthorities(ca, '"ca"', reading);
  const modeNode = fields.find('mode');
  const mode = modeNode && readChoice(modeNode, 'mode', ['require', 'optional'], mistakes);
  const depth = readInteger(fields.find('depth'), '"depth"', [1, 10], mistakes);
  const crlNode = fields.find('crl');
  const crl = crlNode && readRevoked(crlNode, reading);
  const header = fields.find('header');
  const names = header === undefined ? [] : readNames(header, '"header"', reading);
  if (authorities === undefined) return undefined;
  return {
    clientAuth: {
      mode: mode ?? 'require',
      authorities,
      ...(depth !== undefined && { depth }),
      ...(crl !== undefined && { crl }),
    },
    edits: names.map((name) => ({
      do: 'set',
      name,
      value: [{ name: 'ssl_client_s_dn' }],
      origin: mistakes.originOf(header),
    })),
  };
}

export function readUpstreamTls(node: Node, reading: Reading): Policy {
  const { mistakes } = reading;
  const fields = readFields(node, keys.upstreamTls, '"upstream_tls"', mistakes);
  if (fields === undefined) return {};
  const [ca, nameNode] = [fields.find('ca'), fields.find('name')];
  const [certificateNode, keyNode] = [fields.find('certificate'), fields.find('key')];
  if ((certificateNode === undefined) !== (keyNode === undefined))
    mistakes.at(node, '"upstream_tls" has one of "certificate" and "key"', 'wants both of them or neither');
  const name = nameNode && readHostName(nameNode, reading);
  const authorities = ca && readAuthorities(ca, '"ca"', reading);
  const certificate = certificateNode && readAuthorities(certificateNode, '"certificate"', reading);
  const key = keyNode && readKey(keyNode, reading);
  const verify = readBoolean(fields, 'verify', mistakes);
  const upstreamTls: UpstreamTls = {
    verify: verify ?? true,
    sendName: true,
    ...(authorities !== undefined && { authorities }),
    ...(name !== undefined && { name }),
    ...(certificate !== undefined && { certificate }),
    ...(key !== undefined && { key }),
  };
  return { upstreamTls };
}

function readHostName(node: Node, { mistakes }: Reading): string | undefined {
  const text = readString(node, '"name"', 'app.internal', mistakes);
  return text === undefined ? undefined : readValue(node, () => parseHost(text), mistakes);
}

function readRevoked(node: Node, reading: Reading): string | undefined {
  const pem = readNamed(node, '"crl"', reading);
  if (pem === undefined || isRevocationList(pem)) return pem;
  reading.mistakes.at(
    node,
    'the file of "crl" holds no list of revoked certificates',
    'wants a PEM file of one',
  );
  return undefined;
}

function readKey(node: Node, reading: Reading): string | undefined {
  const pem = readNamed(node, '"key"', reading);
  if (pem === undefined || /-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(pem)) return pem;
  reading.mistakes.at(node, 'the file of "key" holds no private key', 'wants a PEM file of one');
  return undefined;
}
