// What the demo suggests to try: plain shell commands, each under a line that says what it shows.

export interface Suggestion {
  readonly shows: string;
  /** For a POSIX shell. */
  readonly command: string;
}

export interface Scene {
  readonly port: number;
  readonly adminPort: number;
  /** The root that curl and the clients are to trust. */
  readonly caFile: string;
  /** Where downloaded evidence goes. */
  readonly downloads: string;
  /** How the demo's own clients are started, as shell words. */
  readonly program: string;
  /** How the commands verify and top are started. */
  readonly verify: string;
  readonly top: string;
  /** What a verifier trusts in the place of Intel's root, and what it would fetch from Intel. */
  readonly quoteRoot: string;
  readonly quoteCollateral: string;
  /** What is expected of the app. */
  readonly policyFile: string;
}

/** What a newcomer tries in the first minute: each line fits a terminal of 80 columns, if TMPDIR is no longer than usual. */
export function first(scene: Scene): Suggestion[] {
  const { port, adminPort, caFile } = scene;
  const fetch = (path: string) =>
    folded([`curl -sS --cacert ${shellWord(caFile)}`, `https://localhost:${port}${path}`]);
  return [
    { shows: 'The page, as the app saw the request', command: fetch('/') },
    { shows: 'The list that the evidence vouches for', command: fetch('/evidences/sha256sum.txt') },
    { shows: 'What the status page shows', command: `curl -sS http://localhost:${adminPort}/status.json` },
    verification(scene),
  ];
}

/** Everything else there is to try. */
export function others(scene: Scene): Suggestion[] {
  return [...traffic(scene), ...evidence(scene), watching(scene)];
}

/** Nobody is asked but the demo itself: DNS and the certificate logs know nothing of localhost. */
function verification({ verify, port, caFile, quoteRoot, quoteCollateral, policyFile }: Scene): Suggestion {
  const flags = { policy: policyFile, ca: caFile, root: quoteRoot, collateral: quoteCollateral };
  return {
    shows: 'All of it verified, as a stranger would (3: no DNS, no log knows localhost)',
    command: folded([
      `${verify} https://localhost:${port}`,
      ...Object.entries(flags).map(([flag, file]) => `--${flag} ${shellWord(file)}`),
    ]),
  };
}

/** One command over several lines. */
function folded(parts: readonly string[]): string {
  return parts.join(' \\\n      ');
}

function watching({ top, adminPort }: Scene): Suggestion {
  return {
    shows: 'The status in a terminal',
    command: `${top} --address 127.0.0.1:${adminPort}`,
  };
}

function traffic({ port, caFile, program }: Scene): Suggestion[] {
  const ca = shellWord(caFile);
  const client = (words: string) => `${program} ${words} --port ${port} --ca ${ca}`;
  const page = `https://localhost:${port}/hello?from=curl`;
  return [
    {
      shows: 'A page over HTTP/1.1, as the app saw the request',
      command: `curl -sS --http1.1 --cacert ${ca} '${page}'`,
    },
    {
      shows: 'The same over HTTP/2, with the head of the reply',
      command: `curl -sSi --http2 --cacert ${ca} '${page}'`,
    },
    { shows: 'A WebSocket whose messages come back', command: client('websocket hello') },
    { shows: 'A unary gRPC call', command: client('grpc-unary World') },
    {
      shows: 'A bidirectional gRPC stream, each message echoed before the next is sent',
      command: client('grpc-stream a b c'),
    },
  ];
}

function evidence({ port, caFile, downloads }: Scene): Suggestion[] {
  const folder = shellWord(downloads);
  const fetch = `curl -fsS --cacert ${shellWord(caFile)} -O https://localhost:${port}/evidences`;
  // The first 64 of a sha256sum's characters are the digest, so the names begin at the 67th.
  const names = '$(cut -c67- sha256sum.txt)';
  const digest = `$(sha256sum < ${folder}/sha256sum.txt | cut -c1-64)`;
  const quote = `${folder}/quote.json`;
  return [
    {
      shows: 'The evidence: fetch all of it, and check each file against sha256sum.txt',
      command: `mkdir -p ${folder} && (cd ${folder} && ${fetch}/sha256sum.txt && for name in ${names} quote.json; do ${fetch}/$name; done && sha256sum -c sha256sum.txt)`,
    },
    {
      shows: 'The report data beside the (simulated) quote begins with the digest of sha256sum.txt',
      command: `grep -Eq '"report_data": *"'${digest} ${quote} && echo 'report data: is the digest of sha256sum.txt'`,
    },
    {
      shows: 'The same within what the (simulated) quote signs: bytes 568 to 600 of a TDX quote',
      command: `test "$(grep -Eo '"quote": *"[0-9a-f]+' ${quote} | cut -d'"' -f4 | cut -c1137-1200)" = "${digest}" && echo 'quote: signs the digest of sha256sum.txt'`,
    },
  ];
}

/** As it stands if the shell leaves it alone, else in single quotes. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
