// The log: JSON lines on stdout (readable text on a terminal), constant messages with fields.

import pino from 'pino';

export type Log = Pick<pino.Logger, 'trace' | 'debug' | 'info' | 'warn' | 'error'> & {
  child(fields: Record<string, unknown>): Log;
};

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'silent';

export interface LogOptions {
  level?: LogLevel;
  /** Readable text for people instead of JSON lines; default: when `stream` is a terminal. */
  readable?: boolean;
  stream?: NodeJS.WritableStream & { isTTY?: boolean };
  /** Given each line that is written, as JSON. */
  tap?: (line: string) => void;
}

/** `error` means that an operator must act; `warn` that one should look; the message never varies, the fields do. */
export function createLog(options: LogOptions = {}): Log {
  const stream = options.stream ?? process.stdout;
  const { tap } = options;
  const readable = options.readable ?? stream.isTTY === true;
  return pino(
    {
      level: options.level ?? 'info',
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: describeError },
    },
    readable || tap !== undefined
      ? {
          write(line: string) {
            stream.write(readable ? asText(line) : line);
            tap?.(line);
          },
        }
      : stream,
  );
}

export const silentLog: Log = pino({ level: 'silent' });

/** An error as fields: its code and the messages of its whole chain of causes, without stacks of expected failures. */
export function describeError(error: unknown): { message: string; code?: string; stack?: string } {
  if (!(error instanceof Error)) return { message: String(error) };
  const messages = new Set<string>();
  // Bounded, because an error can be its own cause.
  for (let cause: unknown = error, depth = 0; cause !== undefined && depth < 8; depth++) {
    messages.add(cause instanceof Error ? cause.message : String(cause));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  const code = (error as { code?: unknown }).code;
  const described: { message: string; code?: string; stack?: string } = { message: [...messages].join(': ') };
  if (typeof code === 'string') described.code = code;
  // An error without a code was not foreseen: only its stack says where it came from.
  else if (error.stack !== undefined) described.stack = error.stack;
  return described;
}

function asText(line: string): string {
  const { time, level, msg, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const rest = Object.entries(fields).map(([name, value]) => `${name}=${fieldText(name, value)}`);
  return `${String(time).slice(11, 19)} ${String(level).padEnd(5)} ${msg}${rest.length ? `  ${rest.join(' ')}` : ''}\n`;
}

function fieldText(name: string, value: unknown): string {
  if (name === 'err') {
    const { message, stack } = value as { message: string; stack?: string };
    return stack === undefined ? JSON.stringify(message) : `${JSON.stringify(message)}\n${stack}`;
  }
  return typeof value === 'string' && !/[\s"=]/.test(value) ? value : JSON.stringify(value);
}
