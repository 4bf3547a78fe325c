// The history on disk: it outlives the process, grows by a line at a time, and is mended or begun anew where it must be.

import { open, truncate } from 'node:fs/promises';
import { dirname } from 'node:path';
import {
  ensurePrivateFolder,
  readFileIfPresent,
  syncFolder,
  writeFileAtomic,
} from '../src/lib/atomic-file.ts';
import type { Clock } from '../src/lib/clock.ts';
import { CodedError } from '../src/lib/coded-error.ts';
import type { Log } from '../src/lib/log.ts';
import { type History, type HistoryEntry, historyLine, readHistory } from './history.ts';
import { type Statement, statementDigest } from './statement.ts';

export type HistoryErrorCode = 'moved-on';

export class HistoryError extends CodedError<HistoryErrorCode> {
  override readonly name = 'HistoryError';
}

export interface HistoryFileOptions {
  readonly log: Log;
  readonly clock: Clock;
  /** Bytes of the whole. */
  readonly longest?: number;
}

/** The disk is read at every call: another process may have written, and an operator may have moved the file away. */
export interface HistoryFile {
  /**
   * What the next statement, with a line of so many bytes, has to name as the one before it. Mends a last line that was cut
   * off, and begins anew if there is no room. Rejects with the system's error.
   */
  previous(lineBytes: number): Promise<string | null>;
  /**
   * Resolves to the whole text once the line is on the disk. Rejects, and then nothing is added: with the system's error,
   * or with HistoryError `moved-on` if another statement was faster.
   */
  append(statement: Statement): Promise<string>;
}

/** Readers refuse more than a MiB. */
const LONGEST = 1_000_000;
/** So much of it may be taken by what is carried over when it begins anew. */
const CARRIED_PART = 0.5;

const LINE_END = 0x0a;

export function createHistoryFile(path: string, options: HistoryFileOptions): HistoryFile {
  const { log, clock, longest = LONGEST } = options;
  let saidOfDamage: string | undefined;

  async function read(): Promise<{ text: string; bytes: number; history: History }> {
    const found = (await readFileIfPresent(path)) ?? Buffer.alloc(0);
    const whole = found.subarray(0, found.lastIndexOf(LINE_END) + 1);
    // Nothing was published about a line that has no end: it is on the disk before anybody sees its statement.
    if (whole.length < found.length) {
      await truncate(path, whole.length);
      log.warn(
        { path, bytes: found.length - whole.length },
        'the last line of the history was cut off, dropped',
      );
    }
    const text = whole.toString('utf8');
    const history = readHistory(text);
    sayDamage(history);
    return { text, bytes: whole.length, history };
  }

  /** Once for each damage. It stays as it is: whoever hides it would have to be believed. */
  function sayDamage({ faults }: History): void {
    const messages = faults.map(({ message }) => message);
    const all = messages.join();
    if (all !== '' && all !== saidOfDamage) {
      log.error(
        { path, faults: messages.slice(0, 10), count: messages.length },
        'the history of statements is damaged, and verifiers will see it: find out who wrote to the file; ' +
          'to begin a new history move the file away, and keep it',
      );
    }
    saidOfDamage = all;
  }

  /** The file of before stays beside it until the next time. */
  async function beginAnew(text: string, { entries }: History): Promise<string | null> {
    const carried = carriedOver(entries, clock.now(), longest * CARRIED_PART);
    await writeFileAtomic(`${path}.before`, text);
    await writeFileAtomic(path, carried.statements.map(historyLine).join(''));
    const { statements, lost } = carried;
    log.info({ path, carried: statements.length }, 'the history of statements was full and begins anew');
    if (lost > 0)
      log.warn({ path, lost }, 'statements about certificates that are still valid had no room in it');
    return lastDigest(statements);
  }

  return {
    async previous(lineBytes) {
      const { text, bytes, history } = await read();
      if (bytes > 0 && bytes + lineBytes > longest) return beginAnew(text, history);
      return history.entries.at(-1)?.digest ?? null;
    },
    async append(statement) {
      await ensurePrivateFolder(dirname(path));
      const { text, bytes, history } = await read();
      if (statement.previous !== (history.entries.at(-1)?.digest ?? null)) {
        throw new HistoryError('moved-on', `${path} has got another statement in the meantime`);
      }
      const line = historyLine(statement);
      await appendWhole(path, line, bytes);
      return text + line;
    },
  };
}

async function appendWhole(path: string, line: string, before: number): Promise<void> {
  const file = await open(path, 'a', 0o600);
  try {
    await file.writeFile(line);
    await file.sync();
  } catch (error) {
    // A full disk takes part of a line. If this fails too, the next read finds a cut line.
    await file.truncate(before).catch(() => {});
    throw error;
  } finally {
    await file.close();
  }
  if (before === 0) await syncFolder(dirname(path));
}

/**
 * What a new history has to begin with so that nobody misses a certificate that is still valid: of each such certificate
 * the first statement that names it, under links of their own. If that is too much, the newest of them.
 */
function carriedOver(
  entries: readonly HistoryEntry[],
  now: Date,
  mostBytes: number,
): { statements: Statement[]; lost: number } {
  const named = new Set<string>();
  const needed = entries.filter(({ statement }) => {
    const fresh = statement.certificates.filter(
      ({ sha256, notAfter }) => new Date(notAfter) > now && !named.has(sha256),
    );
    for (const { sha256 } of fresh) named.add(sha256);
    return fresh.length > 0;
  });
  let bytes = 0;
  const kept: Statement[] = [];
  for (const { statement } of needed.toReversed()) {
    bytes += Buffer.byteLength(historyLine(statement));
    if (bytes > mostBytes) break;
    kept.unshift(statement);
  }
  return { statements: linked(kept), lost: needed.length - kept.length };
}

function linked(statements: readonly Statement[]): Statement[] {
  const chain: Statement[] = [];
  for (const statement of statements) chain.push({ ...statement, previous: lastDigest(chain) });
  return chain;
}

function lastDigest(statements: readonly Statement[]): string | null {
  const last = statements.at(-1);
  return last === undefined ? null : statementDigest(last);
}
