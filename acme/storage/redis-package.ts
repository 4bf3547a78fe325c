// The Redis client by name, for the module that is loaded on demand.

export { Cluster, Redis } from 'ioredis';
