// The bytes of a TDX quote as fields (Intel TDX DCAP Quoting Library, quote formats 4 and 5).

/** Only parseQuote makes one. Measurements are lower-case hex. Nothing in it is trustworthy before its signature is verified. */
export interface Quote {
  readonly version: 4 | 5;
  /** One byte a component, of the TDX module and the processor. */
  readonly teeTcbSvn: string;
  readonly mrSeam: string;
  readonly mrSignerSeam: string;
  readonly seamAttributes: string;
  readonly tdAttributes: string;
  readonly xfam: string;
  readonly mrTd: string;
  readonly mrConfigId: string;
  readonly mrOwner: string;
  readonly mrOwnerConfig: string;
  readonly rtmrs: readonly [string, string, string, string];
  /** 64 bytes, chosen by whoever asked for the quote. */
  readonly reportData: string;
  /** Only in TD reports of version 1.5. */
  readonly mrServiceTd?: string;
  /** Whether the host may read the machine's memory: then the quote proves nothing. */
  readonly debug: boolean;
}

/** A quote with the bytes that its signatures are over. Only readQuote makes one. */
export interface SignedQuote {
  readonly quote: Quote;
  readonly bytes: Uint8Array;
  /** Header and TD report: what the attestation key signs. */
  readonly signed: Uint8Array;
  readonly attestationKeyType: number;
  /** The signature and the chain that vouches for it, as they stand in the quote. */
  readonly signature: Uint8Array;
  /** What follows the signature, covered by nothing: real quotes end with zeros. */
  readonly after: Uint8Array;
}

export type QuoteErrorCode = 'not-hex' | 'truncated' | 'unsupported';

export class QuoteError extends Error {
  override readonly name = 'QuoteError';
  readonly code: QuoteErrorCode;
  constructor(code: QuoteErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

const HEADER_BYTES = 48;
const TDX = 0x81;
/** Body types of format 5. Format 4 always has a TD report 1.0 and no such field. */
const BODY_TD_1_0 = 2;
const BODY_TD_1_5 = 3;
const BODY_BYTES: Readonly<Record<number, number>> = { [BODY_TD_1_0]: 584, [BODY_TD_1_5]: 648 };

/** Takes hex, with or without 0x, or bytes. Throws QuoteError: also when the signature part is cut short. */
export function parseQuote(quote: string | Uint8Array): Quote {
  return readQuote(quote).quote;
}

/** As parseQuote, with what a verifier of the signatures needs besides. */
export function readQuote(given: string | Uint8Array): SignedQuote {
  const bytes = typeof given === 'string' ? bytesOf(given) : Buffer.from(given);
  const read = createReader(bytes);
  const version = read.u16('version');
  if (version !== 4 && version !== 5)
    throw new QuoteError('unsupported', `quote format ${version} is not 4 or 5`);
  const attestationKeyType = read.u16('attestation key type');
  const teeType = read.u32('TEE type');
  if (teeType !== TDX)
    throw new QuoteError('unsupported', `TEE type 0x${teeType.toString(16)} is not TDX (0x81)`);
  read.bytes(HEADER_BYTES - 8, 'header');
  const quote = readReport(read, version, version === 4 ? BODY_TD_1_0 : readBodyType(read));
  const signed = read.soFar();
  const signature = read.bytes(read.u32('signature length'), 'signature');
  return { quote, bytes, signed, attestationKeyType, signature, after: read.rest() };
}

function readBodyType(read: Reader): number {
  const type = read.u16('body type');
  const size = read.u32('body size');
  const expected = BODY_BYTES[type];
  if (expected === undefined)
    throw new QuoteError('unsupported', `quote body type ${type} is not a TD report`);
  if (size !== expected)
    throw new QuoteError('unsupported', `a body of type ${type} has ${expected} bytes, not ${size}`);
  return type;
}

function readReport(read: Reader, version: 4 | 5, bodyType: number): Quote {
  const report = {
    version,
    teeTcbSvn: read.hex(16, 'TEE TCB SVN'),
    mrSeam: read.hex(48, 'MRSEAM'),
    mrSignerSeam: read.hex(48, 'MRSIGNERSEAM'),
    seamAttributes: read.hex(8, 'SEAM attributes'),
    tdAttributes: read.hex(8, 'TD attributes'),
    xfam: read.hex(8, 'XFAM'),
    mrTd: read.hex(48, 'MRTD'),
    mrConfigId: read.hex(48, 'MRCONFIGID'),
    mrOwner: read.hex(48, 'MROWNER'),
    mrOwnerConfig: read.hex(48, 'MROWNERCONFIG'),
    rtmrs: [read.hex(48, 'RTMR0'), read.hex(48, 'RTMR1'), read.hex(48, 'RTMR2'), read.hex(48, 'RTMR3')],
    reportData: read.hex(64, 'report data'),
  } as const;
  // The lowest byte of the attributes is the "TD under debug" group: any bit of it opens the machine.
  const debug = !report.tdAttributes.startsWith('00');
  if (bodyType === BODY_TD_1_0) return { ...report, debug };
  read.bytes(16, 'TEE TCB SVN 2');
  return { ...report, debug, mrServiceTd: read.hex(48, 'MRSERVICETD') };
}

interface Reader {
  u16(what: string): number;
  u32(what: string): number;
  hex(length: number, what: string): string;
  bytes(length: number, what: string): Uint8Array;
  /** Everything that has been read, and everything that has not. */
  soFar(): Uint8Array;
  rest(): Uint8Array;
}

function createReader(bytes: Buffer): Reader {
  let offset = 0;
  const take = (length: number, what: string): Buffer => {
    const end = offset + length;
    if (end > bytes.length) {
      throw new QuoteError('truncated', `the quote has ${bytes.length} bytes and ends within its ${what}`);
    }
    const part = bytes.subarray(offset, end);
    offset = end;
    return part;
  };
  return {
    u16: (what) => take(2, what).readUInt16LE(),
    u32: (what) => take(4, what).readUInt32LE(),
    hex: (length, what) => take(length, what).toString('hex'),
    bytes: take,
    soFar: () => bytes.subarray(0, offset),
    rest: () => bytes.subarray(offset),
  };
}

function bytesOf(text: string): Buffer {
  const hex = text.replace(/^0x/i, '');
  // Buffer.from stops silently at the first character that is not hex.
  if (hex.length % 2 !== 0 || !/^[0-9a-f]*$/i.test(hex))
    throw new QuoteError('not-hex', 'the quote is not hexadecimal');
  return Buffer.from(hex, 'hex');
}
