// The part of Cloudflare's package that is used. It is large, so this module is loaded on demand.

export { BaseRecords } from 'cloudflare/resources/dns/records';
export { BaseZones } from 'cloudflare/resources/zones/zones';
export { createClient } from 'cloudflare/tree-shakable';
