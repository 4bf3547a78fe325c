// Secrets that stand in files: `NAME_FILE` names the file that holds the value of NAME, as with Docker's secrets and lego.

import { type ReadFile, readNamedFile } from './files.ts';
import { quote, ValueError } from './values.ts';

/** Far more than any token, and little enough to be read without a thought. */
const LARGEST_SECRET = 64 * 1024;

/** The value without what editors and `echo` leave around it. Throws ValueError, which quotes nothing of what was read. */
export function readSecretFile(path: string, readFile: ReadFile): string {
  const text = readNamedFile(path, readFile);
  if (text.length > LARGEST_SECRET)
    throw new ValueError(`${quote(path)} has more than 64 KiB`, 'wants a file with nothing but the secret');
  // The byte order mark of some editors counts as a space.
  const secret = text.trim();
  if (secret === '') throw new ValueError(`${quote(path)} is empty`, 'wants the secret in it');
  if (/[\x00-\x1f\x7f\ufffd]/.test(secret))
    throw new ValueError(`${quote(path)} holds more than one line of text`, 'wants the secret alone');
  return secret;
}
