// Signed dynamic updates (RFC 2136, RFC 8945): for BIND, Knot, PowerDNS and every other server that takes them.

import { randomInt } from 'node:crypto';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { meantIn } from '../../src/lib/spelling.ts';
import { DnsError, type DnsErrorCode } from '../error.ts';
import type { DnsProvider, DnsRecord, ProviderKind, ProviderOptions, RecordType } from '../provider.ts';
import { askByStream, type ServerAddress } from '../wire/exchange.ts';
import {
  CLASS_IN,
  decodeMessage,
  encodeQuery,
  FLAG_AUTHORITATIVE,
  type Message,
  type ResourceRecord,
  recordValue,
  responseCode,
  responseCodes,
  typeNumbers,
} from '../wire/message.ts';
import { normalizeName, sameRecord } from '../wire/presentation.ts';
import { encodeValue } from '../wire/rdata.ts';
import { signMessage, type TsigKey, tsigAlgorithms, verifyAnswer } from '../wire/tsig.ts';
import { possibleZones } from '../zone.ts';
import { cureOf } from './cures.ts';
import { patiently } from './patience.ts';
import { createZoneCache } from './zone-cache.ts';

export const rfc2136Kind: ProviderKind = {
  name: 'rfc2136',
  aliases: ['bind', 'nsupdate'],
  variables: [
    {
      name: 'RFC2136_NAMESERVER',
      required: true,
      secret: false,
      meaning: 'the primary server, as host or host:port',
    },
    { name: 'RFC2136_TSIG_KEY', required: true, secret: false, meaning: 'the name of the key' },
    { name: 'RFC2136_TSIG_SECRET', required: true, secret: true, meaning: 'the key itself, in base64' },
    {
      name: 'RFC2136_TSIG_ALGORITHM',
      required: false,
      secret: false,
      meaning: `one of ${Object.keys(tsigAlgorithms).join(', ')}; hmac-sha256 if not given`,
    },
  ],
  create: createRfc2136,
};

const DEFAULT_TTL_SECONDS = 60;
/** RFC 2136 §1.3 and §2.5.4: the operation, and the class that means "delete this very record". */
const OPCODE_UPDATE = 5 << 11;
const CLASS_NONE = 254;

interface Zone {
  readonly name: string;
}

function createRfc2136(
  credentials: Readonly<Record<string, string>>,
  options: ProviderOptions = {},
): DnsProvider {
  const { timeoutMs = 10_000, patience, clock = systemClock } = options;
  const server = readServer(credentials.RFC2136_NAMESERVER ?? '');
  const calls = createCalls({ server, key: readKey(credentials), timeoutMs, clock });
  const zones = createZoneCache(calls.findZone);
  const inZone = <T>(name: string, use: (zone: Zone) => Promise<T>) =>
    patiently(() => zones.within(name, use), patience);
  return {
    name: 'rfc2136',
    caaBesideCname: false,
    list: (name, type) => patiently(() => calls.held(name, type), patience),
    add: (record, ttlSeconds = DEFAULT_TTL_SECONDS) =>
      inZone(record.name, async (zone) => {
        if (await calls.holds(record)) return;
        await calls.update(zone, { ...toUpdate(record), class: CLASS_IN, ttl: ttlSeconds });
        // RFC 2136 §3.4.2.2: the server silently ignores a record that excludes an existing one.
        if (await calls.holds(record)) return;
        throw new DnsError(
          'conflict',
          `${server.text} did not take ${record.type} ${record.name}: it cannot stand beside what is there`,
        );
      }),
    remove: (record) =>
      inZone(record.name, (zone) => calls.update(zone, { ...toUpdate(record), class: CLASS_NONE, ttl: 0 })),
  };
}

function readServer(text: string): ServerAddress {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:\s[\]]+))(?::(\d{1,5}))?$/i.exec(text.trim());
  const port = Number(match?.[3] ?? 53);
  if (match === null || port < 1 || port > 65_535) {
    throw new DnsError('unsupported', `${JSON.stringify(text)} is not a server`, {
      variable: 'RFC2136_NAMESERVER',
      cure: 'give host or host:port',
    });
  }
  return { host: match[1] ?? match[2]!, port, text };
}

/** Never repeats the secret. */
function readKey(credentials: Readonly<Record<string, string>>): TsigKey {
  const algorithm = normalizeName(credentials.RFC2136_TSIG_ALGORITHM ?? 'hmac-sha256');
  if (tsigAlgorithms[algorithm] === undefined) {
    const known = Object.keys(tsigAlgorithms).join(', ');
    throw new DnsError('unsupported', `${JSON.stringify(algorithm)} is not one of ${known}`, {
      variable: 'RFC2136_TSIG_ALGORITHM',
      cure: `wants one of them${meantIn(algorithm, Object.keys(tsigAlgorithms))}`,
    });
  }
  const text = (credentials.RFC2136_TSIG_SECRET ?? '').trim();
  if (text === '' || !/^[A-Za-z0-9+/]+={0,2}$/.test(text)) {
    throw new DnsError('unsupported', 'is not base64', {
      variable: 'RFC2136_TSIG_SECRET',
      cure: 'give the key as the server has it, without quotes',
    });
  }
  return {
    name: normalizeName(credentials.RFC2136_TSIG_KEY ?? ''),
    algorithm,
    secret: Buffer.from(text, 'base64'),
  };
}

function toUpdate(record: DnsRecord): Pick<ResourceRecord, 'name' | 'type' | 'data'> {
  return { name: record.name, type: typeNumbers[record.type], data: encodeValue(record) };
}

function createCalls(context: { server: ServerAddress; key: TsigKey; timeoutMs: number; clock: Clock }) {
  const { server, key, timeoutMs, clock } = context;
  /** Reads over TCP, where an answer is hard to forge: not all servers sign answers to questions. */
  const query = async (name: string, type: number): Promise<Message> => {
    const id = randomInt(0x10000);
    const bytes = await askByStream(
      server,
      encodeQuery(id, { name, type, class: CLASS_IN }, false),
      timeoutMs,
    );
    const message = decodeMessage(bytes);
    const [asked] = message.questions;
    if (message.id === id && asked?.name === name && asked.type === type) return message;
    throw new DnsError('unintelligible', `${server.text} answered another question than the one asked`);
  };
  const held = async (name: string, type: RecordType): Promise<DnsRecord[]> => {
    const message = await query(name, typeNumbers[type]);
    const code = responseCode(message);
    if (code !== 0 && code !== 3) throw refusal(server, code, `reading ${type} of ${name}`);
    if ((message.flags & FLAG_AUTHORITATIVE) === 0) {
      throw new DnsError('zone-not-found', `${server.text} does not hold the zone of ${name}`, {
        variable: 'RFC2136_NAMESERVER',
        cure: 'RFC2136_NAMESERVER must be the primary server of the zone',
      });
    }
    const here = message.answers.filter(
      (record) => record.name === name && record.type === typeNumbers[type],
    );
    return here.map((record) => ({ name, type, value: recordValue(record) }));
  };
  return {
    held,
    holds: async (record: DnsRecord) =>
      (await held(record.name, record.type)).some((other) => sameRecord(other, record)),
    async findZone(name: string): Promise<Zone> {
      for (const candidate of possibleZones(name)) {
        const message = await query(candidate, typeNumbers.SOA);
        const owns = message.answers.some(
          (record) => record.type === typeNumbers.SOA && record.name === candidate,
        );
        if (owns && (message.flags & FLAG_AUTHORITATIVE) !== 0) return { name: candidate };
        if (responseCode(message) === 2) throw refusal(server, 2, `looking for the zone of ${name}`);
      }
      throw new DnsError('zone-not-found', `${server.text} holds no zone of ${name}`, {
        variable: 'RFC2136_NAMESERVER',
        cure: 'RFC2136_NAMESERVER must be the primary server of the zone',
      });
    },
    async update(zone: Zone, change: ResourceRecord): Promise<void> {
      const now = clock.now();
      const message = {
        id: randomInt(0x10000),
        flags: OPCODE_UPDATE,
        questions: [{ name: zone.name, type: typeNumbers.SOA, class: CLASS_IN }],
        answers: [],
        authority: [change],
        additional: [],
      };
      const { bytes, mac } = signMessage(message, key, now);
      const answer = verifyAnswer(await askByStream(server, bytes, timeoutMs), mac, key, clock.now());
      if (answer.id !== message.id)
        throw new DnsError('unintelligible', `${server.text} answered another update`);
      const code = responseCode(answer);
      if (code !== 0) throw refusal(server, code, `updating ${change.name} in ${zone.name}`);
    },
  };
}

function refusal(server: ServerAddress, code: number, subject: string): DnsError {
  // The answer is signed, so the server knows the key: REFUSED means a missing permission.
  const kinds: Readonly<Record<number, DnsErrorCode>> = {
    2: 'unreachable',
    5: 'permission-missing',
    9: 'zone-not-found',
    10: 'zone-not-found',
  };
  const kind = kinds[code] ?? 'refused';
  const said = `${server.text}: ${subject}: ${responseCodes[code] ?? `code ${code}`}`;
  return new DnsError(kind, said, cureOf('rfc2136', kind));
}
