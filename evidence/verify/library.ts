// What is used of the library that verifies quotes beside us: a module of its own, so that it is loaded on demand.

export { constants, QuoteVerifier } from '@phala/dcap-qvl';
