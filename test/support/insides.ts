// Tests of what only one of Node's insides can do are skipped where it is switched off, with the reason.

import { INSIDES_VARIABLE, type NodeInside, uses } from '../../proxy/socket/insides/switch.ts';

/** For the `skip` of a test. */
export function unlessUsed(inside: NodeInside): string | false {
  return uses(inside) ? false : `${INSIDES_VARIABLE} has switched ${inside} off`;
}
