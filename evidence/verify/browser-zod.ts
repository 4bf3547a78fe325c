// Of zod what reads the files of a quote, by name: the whole of it would be a third of the script that a page loads.

import { array, config, enum as enumOf, int, iso, literal, object, string, union, ZodError } from 'zod/v4';

// A page's policy may forbid what is compiled at run time.
config({ jitless: true });

export const z = { array, enum: enumOf, int, iso, literal, object, string, union, ZodError };
