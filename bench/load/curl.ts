// curl as a load: large downloads one after another on one connection.

import { LOAD_CORE, runToEnd } from '../processes.ts';
import type { Stage } from '../stage.ts';

/** As curl's options name them. */
export type CurlProtocol = 'http1.1' | 'http2';

/** Downloads `times` times. Rejects unless every one had status 200 and `bytes` bytes. */
export async function download(
  stage: Stage,
  port: number,
  file: { path: string; bytes: number },
  times: number,
  protocol: CurlProtocol = 'http1.1',
): Promise<void> {
  const url = `https://localhost:${port}${file.path}`;
  const each = ['-o', '/dev/null', '-w', '%{http_code} %{size_download}\n', url];
  const common = ['-sS', `--${protocol}`, '--max-time', '120', '--cacert', stage.certificate.chain];
  // Options belong to one URL each: --next starts the set of the following one, the connection stays.
  const args = Array.from({ length: times }, (_, index) => [
    ...(index ? ['--next'] : []),
    ...common,
    ...each,
  ]);
  const told = await runToEnd({ program: 'curl', args: args.flat() }, LOAD_CORE);
  const wrong = told
    .trim()
    .split('\n')
    .find((line) => line !== `200 ${file.bytes}`);
  if (wrong !== undefined) throw new Error(`a download gave status and size ${wrong}`);
}
