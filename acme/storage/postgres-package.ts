// The PostgreSQL client by name, for the module that is loaded on demand.

export { Client, Pool, type PoolConfig } from 'pg';
