// What is used of Cloudflare's own package: large, and so a module of its own that is loaded on demand.

export { BaseRecords } from 'cloudflare/resources/dns/records';
export { BaseZones } from 'cloudflare/resources/zones/zones';
export { createClient } from 'cloudflare/tree-shakable';
