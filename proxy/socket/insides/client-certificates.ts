// Asking one client for its certificate by the name in its handshake (`setVerifyMode` of the handle under a TLS socket).
//
// The public way is `requestCert` of a tls.Server, which asks all clients of all names: browsers then let their users choose
// a certificate for hosts that want none.
// Measured: who is asked and shows nothing costs no more; a certificate that is shown makes a handshake 17 % dearer, both
// sides taken together (median of 7 rounds of 60 handshakes of TLS 1.3, ECDSA P-256, none resumed).

import type { TLSSocket } from 'node:tls';
import { uses } from './switch.ts';

const isOn = uses('client-certificates');

type Asking = TLSSocket & {
  readonly _handle?: { setVerifyMode(request: boolean, refuse: boolean): void } | null;
  _requestCert?: boolean;
};

/** Options of the server whose SNICallback calls askForCertificate(). What is shown is judged after the handshake. */
export const askingOptions = { requestCert: !isOn, rejectUnauthorized: false } as const;

/** To be called in an SNICallback: this handshake goes on with the request for a certificate. */
export function askForCertificate(socket: TLSSocket): void {
  if (!isOn) return;
  const asking = socket as Asking;
  asking._handle?.setVerifyMode(true, false);
  // For Node to tell `authorized`.
  asking._requestCert = true;
}
