// What packages made for Node look for in a browser: they get it from here, and the page's own globals stay as they are.

import * as z from 'zod';

export { Buffer } from 'buffer/index.js';

export const process = { env: {}, browser: true, version: '', versions: {}, platform: 'browser' } as const;

// A page's policy may forbid what is compiled at run time. Said before the first schema is made.
z.config({ jitless: true });
