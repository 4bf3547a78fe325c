// Settings of the 1.x and 2.x images that are not settings here: those that are named in a warning, and those that stop the start.

export interface RetiredSetting {
  readonly name: string;
  readonly why: string;
}

/** Settings of the 1.x and 2.x images that no longer do anything, and need not. */
export const retiredSettings: readonly RetiredSetting[] = [
  { name: 'PROXY_BUFFERS', why: 'replies are streamed, not buffered' },
  { name: 'PROXY_BUSY_BUFFERS_SIZE', why: 'replies are streamed, not buffered' },
  { name: 'EVIDENCE_PORT', why: 'evidence is served on the TLS port, by the ingress itself' },
  { name: 'TLSALPN_ADDRESS', why: 'challenges are answered by the serving listener' },
  { name: 'TLSALPN_PORT', why: 'challenges are answered by the serving listener' },
  { name: 'TLS_TERMINATE_PORT', why: 'TLS ends where connections are accepted' },
  { name: 'LEGO_BIN', why: 'no other ACME client is run' },
  { name: 'LEGO_PATH', why: 'no other ACME client is run; the state is in STATE_DIR' },
  { name: 'CERTBOT_TIMEOUT', why: 'no other ACME client is run; every step has its own deadline' },
  { name: 'DELEGATION_PROPAGATION_SECONDS', why: 'it waits until the records show, see DNS_SETUP_TIMEOUT' },
  {
    name: 'DELEGATION_GATEWAY_RECORD',
    why: 'an alias is written, or addresses where the provider cannot hold CAA beside one',
  },
  { name: 'ALLOW_MISSING_CAA', why: 'SET_CAA says whether CAA records are written' },
  { name: 'TAPPD_SIMULATOR_ENDPOINT', why: 'the agent to ask is named by DSTACK_SIMULATOR_ENDPOINT' },
];

/** Settings of the earlier images that would do harm if they were ignored: the start is refused. */
export const unsupportedSettings: readonly RetiredSetting[] = [
  {
    name: 'DETERMINISTIC_TLS_KEY',
    why: 'is not supported: a key that the app can derive again is known to whatever version of it the KMS admits',
  },
];
