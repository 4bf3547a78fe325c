// Of zod what reads the files of a quote, by name: the whole of it would be a third of the script that a page loads.

import * as zod from 'zod/v4';

// A page's policy may forbid what is compiled at run time.
zod.config({ jitless: true });

export const z = {
  array: zod.array,
  enum: zod.enum,
  int: zod.int,
  iso: zod.iso,
  literal: zod.literal,
  looseObject: zod.looseObject,
  object: zod.object,
  record: zod.record,
  strictObject: zod.strictObject,
  string: zod.string,
  union: zod.union,
  url: zod.url,
  ZodError: zod.ZodError,
};
