// What holds for schemas in a browser; imported before the first of them is made.

import * as z from 'zod';

// A page's policy may forbid what is compiled at run time.
z.config({ jitless: true });
