// The files of an nginx folder, with what they include, as one list of directives.

import { basename, dirname, isAbsolute, join, matchesGlob, normalize } from 'node:path';
import type { ListFolder, ReadFile } from '../../config/files.ts';
import { type Mistake, unreadable } from '../../config/mistake.ts';
import { quote } from '../../config/values.ts';
import { type Directive, parseBlocks, placeOf } from './blocks.ts';
import type { Word } from './lexer.ts';

export interface NginxFolder {
  readonly directives: readonly Directive[];
  readonly mistakes: readonly Mistake[];
  /** Every file that was read or looked for, and every folder that was listed. */
  readonly watched: readonly string[];
  /** What nginx's image has beside the folder, and nothing here depends on. */
  readonly ignored: readonly Word[];
  /** A file that a directive names, by the rules of `include`. Undefined: it cannot be read, and a mistake says so. */
  readNamed(path: Word): string | undefined;
}

export interface FolderAccess {
  readonly readFile: ReadFile;
  readonly listFolder: ListFolder;
}

const LARGEST_FILE_BYTES = 1024 * 1024;
const LARGEST_TOTAL_BYTES = 8 * 1024 * 1024;
const MOST_FILES = 2000;
const DEEPEST_INCLUDE = 10;
/** Where files of nginx's images say that they are. */
const USUAL_FOLDER = '/etc/nginx/conf.d';
const OF_THE_IMAGE =
  /^(mime\.types|(fastcgi|uwsgi|scgi|proxy)_params|fastcgi\.conf|koi-utf|koi-win|win-utf)$/;

/** `*.conf` in alphabetical order, as the image's own nginx.conf includes them. */
export function readFolder(folder: string, access: FolderAccess): NginxFolder {
  const reader = new FolderReader(folder, access);
  const directives = reader.readAll();
  return {
    directives,
    mistakes: reader.mistakes,
    get watched() {
      return [...reader.watched];
    },
    ignored: reader.ignored,
    readNamed: (path) => reader.readNamed(path),
  };
}

class FolderReader {
  readonly mistakes: Mistake[] = [];
  readonly ignored: Word[] = [];
  readonly watched = new Set<string>();
  readonly #folder: string;
  /** What relative paths begin at: nginx's is the folder of nginx.conf. */
  readonly #prefix: string;
  readonly #access: FolderAccess;
  #bytes = 0;
  #isFull = false;
  #files = 0;

  constructor(folder: string, access: FolderAccess) {
    this.#folder = normalize(folder).replace(/(?<=.)\/$/, '');
    this.#prefix = basename(this.#folder) === 'conf.d' ? dirname(this.#folder) : this.#folder;
    this.#access = access;
  }

  readAll(): Directive[] {
    this.watched.add(this.#folder);
    let names: readonly string[];
    try {
      names = this.#access.listFolder(this.#folder);
    } catch (cause) {
      this.mistakes.push({ place: { file: this.#folder }, ...unreadable(cause) });
      return [];
    }
    return matching(names, '*.conf').flatMap((name) => this.#readFile(join(this.#folder, name), []));
  }

  readNamed(path: Word): string | undefined {
    return this.#text(this.#resolve(path.text), path);
  }

  #readFile(path: string, within: readonly Word[]): Directive[] {
    const text = this.#text(path, within.at(-1));
    if (text === undefined) return [];
    const { directives, mistakes } = parseBlocks(text, path);
    this.mistakes.push(...mistakes);
    return this.#expand(directives, within);
  }

  #text(path: string, named: Word | undefined): string | undefined {
    if (this.#isFull) return undefined;
    this.watched.add(path);
    const refuse = (subject: string, cure: string): undefined => {
      if (named === undefined) this.mistakes.push({ place: { file: path }, subject, cure });
      else this.mistakes.push({ place: placeOf(named), subject: `${quote(path)} ${subject}`, cure });
    };
    let text: string;
    try {
      text = this.#access.readFile(path);
    } catch (cause) {
      const { subject, cure } = unreadable(cause);
      return refuse(subject, cure);
    }
    this.#bytes += text.length;
    this.#files++;
    if (text.length > LARGEST_FILE_BYTES)
      return refuse('is larger than 1 MiB', 'split it, or take away what is no rule');
    this.#isFull = this.#bytes > LARGEST_TOTAL_BYTES || this.#files > MOST_FILES;
    if (this.#bytes > LARGEST_TOTAL_BYTES)
      return refuse('makes more than 8 MiB of all files', 'wants fewer or smaller files');
    if (this.#files > MOST_FILES)
      return refuse(`is one of more than ${MOST_FILES} files`, 'wants fewer files');
    return text;
  }

  /** The directives with those of included files in the place of each `include`. */
  #expand(directives: readonly Directive[], within: readonly Word[]): Directive[] {
    return directives.flatMap((directive) => {
      const { name, args, block } = directive;
      if (name.text === 'include' && block === undefined && args.length === 1)
        return this.#include(args[0]!, within);
      return block === undefined ? [directive] : [{ name, args, block: this.#expand(block, within) }];
    });
  }

  #include(path: Word, within: readonly Word[]): Directive[] {
    if (this.#isFull) return [];
    const refuse = (subject: string, cure: string): Directive[] => {
      this.mistakes.push({ place: placeOf(path), subject, cure });
      return [];
    };
    if (path.text.includes('$'))
      return refuse(`include ${quote(path.text)} holds a variable`, 'write the path out');
    const target = this.#resolve(path.text);
    if (within.some((outer) => this.#resolve(outer.text) === target) || target === path.file)
      return refuse(`${quote(path.text)} includes itself`, 'take this include away');
    if (within.length >= DEEPEST_INCLUDE)
      return refuse('includes are nested too deeply', `wants at most ${DEEPEST_INCLUDE}`);
    if (!target.startsWith(`${this.#prefix}/`))
      return refuse(
        `${quote(path.text)} lies outside of ${this.#prefix}`,
        `mount it there, and include it as ${quote(join(this.#prefix, basename(target)))}`,
      );
    if (isGlob(target)) return this.#includeGlob(path, target, within);
    if (OF_THE_IMAGE.test(basename(target)) && !this.#isThere(target)) {
      this.ignored.push(path);
      return [];
    }
    return this.#readFile(target, [...within, path]);
  }

  #includeGlob(path: Word, target: string, within: readonly Word[]): Directive[] {
    const folder = dirname(target);
    if (isGlob(folder)) {
      this.mistakes.push({
        place: placeOf(path),
        subject: `${quote(path.text)} has a * in a folder's name`,
        cure: 'wants it in the last part alone; write an include for each folder',
      });
      return [];
    }
    this.watched.add(folder);
    let names: readonly string[] = [];
    try {
      names = this.#access.listFolder(folder);
    } catch {
      // nginx: a pattern that nothing fits is no mistake.
    }
    return matching(names, basename(target)).flatMap((name) => {
      const file = join(folder, name);
      const isOpen = file === path.file || within.some((outer) => outer.file === file);
      if (!isOpen) return this.#readFile(file, [...within, { ...path, text: file }]);
      this.mistakes.push({
        place: placeOf(path),
        subject: `${quote(file)} includes itself`,
        cure: 'take this include away',
      });
      return [];
    });
  }

  #isThere(path: string): boolean {
    try {
      return this.#access.listFolder(dirname(path)).includes(basename(path));
    } catch {
      return false;
    }
  }

  #resolve(text: string): string {
    if (!isAbsolute(text)) return join(this.#prefix, text);
    const path = normalize(text);
    return path.startsWith(`${USUAL_FOLDER}/`) ? join(this.#folder, path.slice(USUAL_FOLDER.length)) : path;
  }
}

function isGlob(path: string): boolean {
  return /[*?[]/.test(path);
}

/** In the order of bytes; `*` fits no name that begins with a dot. */
function matching(names: readonly string[], pattern: string): string[] {
  return names
    .filter((name) => (!name.startsWith('.') || pattern.startsWith('.')) && matchesGlob(name, pattern))
    .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}
