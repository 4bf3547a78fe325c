// What packages made for Node look for in a browser: they get it from here, and the page's own globals stay as they are.

export { Buffer } from 'buffer/index.js';

export const process = { env: {}, browser: true, version: '', versions: {}, platform: 'browser' } as const;
