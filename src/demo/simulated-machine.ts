// The machine behind the simulated agent: its identity, what it measured when it booted, and its keys.

import { createHash, hkdfSync } from 'node:crypto';
import { secp256k1 } from '@noble/curves/secp256k1.js';
import { keccak_256 } from '@noble/hashes/sha3.js';
import { RUNTIME_EVENT, replay, runtimeDigest } from '../../evidence/event-log.ts';
import type { Measurements, SimulatedProcessor } from './simulated-quote.ts';

export interface MachineOptions {
  /** The app's description; its SHA-256 is the compose hash, whose first 20 bytes are the app id unless one is given. */
  appCompose?: string;
  /** Hex, 20 bytes. */
  appId?: string;
  /** Hex, 20 bytes. */
  instanceId?: string;
  /** 32 bytes, the root key of the key service: agents with the same seed and app id derive the same keys. */
  kmsSeed?: Uint8Array;
  /** How much of the log is told. */
  eventLog?: EventLogForm;
  /** Changes what the system measures into RTMR3, before it does. */
  measures?: (events: readonly SystemEvent[]) => readonly SystemEvent[];
  /** Hex, 48 bytes. Default: version 1, the compose hash, zeros. */
  mrConfigId?: string;
}

/** `stripped`: without payloads below RTMR3, and without digests in it; `with-markers`: the tables of ACPI keep theirs. */
export type EventLogForm = 'full' | 'stripped' | 'stripped-with-markers';

/** The payload in hex. */
export type SystemEvent = readonly [name: string, payload: string];

export interface Machine {
  readonly appId: string;
  readonly instanceId: string;
  readonly composeHash: string;
  info(): object;
  quote(reportData: Buffer): { quote: string; event_log: string; report_data: string; vm_config: string };
  /** An event of the app's own: RTMR3 grows. */
  measure(name: string, payload: Buffer): void;
  key(path: string, purpose: string): { key: string; chain: string[] };
}

const DEFAULT_COMPOSE = JSON.stringify({
  manifest_version: 2,
  name: 'SIMULATED app',
  runner: 'docker-compose',
});

export function createMachine(options: MachineOptions, processor: SimulatedProcessor): Machine {
  const appCompose = options.appCompose ?? DEFAULT_COMPOSE;
  const composeHash = sha256(appCompose);
  const appId = options.appId ?? composeHash.slice(0, 40);
  const instanceId = options.instanceId ?? sha256(`SIMULATED instance of ${appId}`).slice(0, 40);
  const seed = options.kmsSeed ?? Buffer.from(sha256('SIMULATED key service'), 'hex');
  const keys = createKeyService(seed, appId);
  const keyProvider = JSON.stringify({ name: 'simulated-kms', id: keys.rootPublicKey });
  const identity = { appId, composeHash, instanceId, osImageHash: sha256('SIMULATED image'), keyProvider };
  const measured = measurerOf(appCompose);
  const log = [...firmwareLog(), ...(options.measures ?? same)(systemLog(identity)).map(measured)];
  const measurements = (): Measurements => ({
    mrTd: sha384('SIMULATED firmware'),
    // Binds the app's description: version 1, then its hash.
    mrConfigId: options.mrConfigId ?? `01${composeHash}${'00'.repeat(15)}`,
    rtmrs: replay(log),
  });
  const told = () => log.map(published(options.eventLog ?? 'stripped'));
  const vm_config = describeMachine(identity);
  return {
    appId,
    instanceId,
    composeHash,
    info: () =>
      describeApp(identity, { measurements: measurements(), event_log: told(), appCompose }, vm_config),
    quote: (reportData) => ({
      quote: processor.quote(measurements(), reportData).toString('hex'),
      event_log: JSON.stringify(told()),
      report_data: reportData.toString('hex'),
      vm_config,
    }),
    measure: (name, payload) => void log.push(measured([name, payload.toString('hex')])),
    key: keys.derive,
  };
}

function same<T>(value: T): T {
  return value;
}

function describeMachine({ osImageHash }: Identity): string {
  return JSON.stringify({ os_image_hash: osImageHash, cpu_count: 1, memory_size: 0, simulated: true });
}

function describeApp(
  identity: Identity,
  app: { measurements: Measurements; event_log: readonly object[]; appCompose: string },
  vm_config: string,
) {
  const { measurements, event_log, appCompose } = app;
  const { mrTd, mrConfigId, rtmrs } = measurements;
  const [rtmr0, rtmr1, rtmr2, rtmr3] = rtmrs;
  // MRTD, the registers, MRCONFIGID, then MROWNER and MROWNERCONFIG, which are zero here.
  const mr_aggregated = sha256(Buffer.from(mrTd + rtmrs.join('') + mrConfigId + '00'.repeat(96), 'hex'));
  const shared = {
    mr_aggregated,
    os_image_hash: identity.osImageHash,
    compose_hash: identity.composeHash,
    device_id: sha256('SIMULATED processor'),
  };
  return {
    app_id: identity.appId,
    instance_id: identity.instanceId,
    app_cert: '',
    tcb_info: JSON.stringify({
      mrtd: mrTd,
      rtmr0,
      rtmr1,
      rtmr2,
      rtmr3,
      ...shared,
      event_log,
      app_compose: appCompose,
    }),
    app_name: 'SIMULATED app',
    ...shared,
    key_provider_info: identity.keyProvider,
    vm_config,
    cloud_vendor: 'SIMULATED',
    cloud_product: 'SIMULATED',
  };
}

interface MeasuredEvent {
  readonly imr: number;
  readonly type: number;
  readonly name: string;
  readonly payload: string;
  readonly digest: string;
  /** Of an app that has chosen the second version of digests. */
  readonly preimage?: string;
}

interface Identity {
  readonly appId: string;
  readonly composeHash: string;
  readonly instanceId: string;
  readonly osImageHash: string;
  readonly keyProvider: string;
}

const FIRMWARE_EVENT = 0x80000008;
const ACPI_EVENT = 0x0a;
/** What the firmware logs for each table: "ACPI DATA". */
const ACPI_PAYLOAD = Buffer.from('ACPI DATA').toString('hex');

/** What is measured into RTMR0 to RTMR2 before the system runs. */
function firmwareLog(): MeasuredEvent[] {
  const event = (imr: number, type: number, name: string, payload: string, what: string) => ({
    imr,
    type,
    name,
    payload,
    digest: sha384(`SIMULATED ${what}`),
  });
  const acpi = ['acpi-loader', 'acpi-rsdp', 'acpi-tables'];
  return [
    event(0, FIRMWARE_EVENT, '', Buffer.from('SIMULATED volume').toString('hex'), 'firmware volume'),
    ...acpi.map((name) => event(0, ACPI_EVENT, name, ACPI_PAYLOAD, name)),
    event(1, FIRMWARE_EVENT, '', Buffer.from('SIMULATED kernel').toString('hex'), 'kernel'),
    event(2, FIRMWARE_EVENT, '', Buffer.from('SIMULATED initrd').toString('hex'), 'initrd'),
  ];
}

/** What dstack measures into RTMR3, in its order. */
function systemLog(identity: Identity): SystemEvent[] {
  return [
    ['system-preparing', ''],
    ['app-id', identity.appId],
    ['compose-hash', identity.composeHash],
    ['instance-id', identity.instanceId],
    ['boot-mr-done', ''],
    ['os-image-hash', identity.osImageHash],
    ['key-provider', Buffer.from(identity.keyProvider).toString('hex')],
    ['storage-fs', Buffer.from('SIMULATED').toString('hex')],
    ['system-ready', ''],
  ];
}

/** An app chooses between two ways to compute the digest of a runtime event: `event_log_version` in its description. */
function measurerOf(appCompose: string): (event: SystemEvent) => MeasuredEvent {
  const runtime = ([name, payload]: SystemEvent) => ({ imr: 3, type: RUNTIME_EVENT, name, payload });
  if (!/"event_log_version"\s*:\s*2\b/.test(appCompose)) {
    return (event) => ({ ...runtime(event), digest: runtimeDigest(event[0], Buffer.from(event[1], 'hex')) });
  }
  return (event) => {
    const [name, payload] = event;
    const preimage = JSON.stringify({ name, payload, type: RUNTIME_EVENT });
    return { ...runtime(event), digest: sha384(preimage), preimage: Buffer.from(preimage).toString('hex') };
  };
}

function published(form: EventLogForm) {
  return ({ imr, type, name, payload, digest, preimage }: MeasuredEvent) => {
    const marked = form === 'stripped-with-markers' && type === ACPI_EVENT;
    return {
      imr,
      event_type: type,
      digest: form !== 'full' && imr === 3 ? '' : digest,
      event: imr === 3 || marked ? name : '',
      event_payload: form === 'full' || imr === 3 || marked ? payload : '',
      ...(preimage === undefined ? {} : { version: 2, preimage }),
    };
  };
}

/** Derives as dstack's key service does, so that what is built on its keys behaves the same. */
function createKeyService(seed: Uint8Array, appId: string) {
  const appKey = derived(seed, Buffer.concat([Buffer.from(appId, 'hex'), Buffer.from('app-key')]));
  const issued = Buffer.concat([
    Buffer.from('dstack-kms-issued:'),
    Buffer.from(appId, 'hex'),
    secp256k1.getPublicKey(appKey, true),
  ]);
  return {
    rootPublicKey: Buffer.from(secp256k1.getPublicKey(seed, true)).toString('hex'),
    derive(path: string, purpose: string) {
      const key = derived(appKey, Buffer.from(path));
      const publicKey = Buffer.from(secp256k1.getPublicKey(key, true)).toString('hex');
      const chain = [signed(Buffer.from(`${purpose}:${publicKey}`), appKey), signed(issued, seed)];
      return { key: key.toString('hex'), chain };
    },
  };
}

function derived(key: Uint8Array, info: Uint8Array): Buffer {
  return Buffer.from(hkdfSync('sha256', key, 'RATLS', info, 32));
}

/** r, s and the recovery bit over keccak-256. */
function signed(message: Uint8Array, key: Uint8Array): string {
  const signature = secp256k1.sign(keccak_256(message), key);
  return signature.toCompactHex() + signature.recovery.toString(16).padStart(2, '0');
}

function sha256(data: string | Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}

function sha384(data: string): string {
  return createHash('sha384').update(data).digest('hex');
}
