// Checks the files of the evidence in the reader's own browser, and shows each verdict with its reason.

const LARGEST_FILE = 1024 * 1024;
const MOST_FILES = 2000;
const AT_ONCE = 6;

const words = { pass: 'holds', fail: 'fails', 'not-run': 'not run' };

const byId = (id) => document.getElementById(id);
const runButton = byId('run');
const copyButton = byId('copy');
const outcome = byId('outcome');

class Unfit extends Error {}

const verdict = (name, reason) => ({ verdict: name, reason });

async function fetchFile(name) {
  const reply = await fetch(encodeURIComponent(name), { cache: 'no-store', redirect: 'error' }).catch(() => {
    throw new Error(`${name} cannot be fetched: no connection`);
  });
  if (!reply.ok) throw new Error(`${name} cannot be fetched: ${reply.status}`);
  const bytes = new Uint8Array(await reply.arrayBuffer());
  if (bytes.length > LARGEST_FILE) throw new Unfit(`${name} has more than ${LARGEST_FILE} bytes`);
  return bytes;
}

/** Lines as sha256sum(1) writes them, of plain names that come once. */
function parseSums(bytes) {
  const lines = new TextDecoder().decode(bytes).split('\n');
  if (lines.pop() !== '') throw new Unfit('sha256sum.txt does not end with a line');
  if (lines.length > MOST_FILES) throw new Unfit(`sha256sum.txt lists more than ${MOST_FILES} files`);
  const sums = new Map();
  for (const line of lines) {
    const [, digest, name] = /^([0-9a-f]{64}) [ *]([^/\\\p{Cc}]+)$/u.exec(line) ?? [];
    if (name === undefined || name === '.' || name === '..' || sums.has(name))
      throw new Unfit('sha256sum.txt has a line that is not a digest and a plain name of its own');
    sums.set(name, digest);
  }
  return sums;
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The account and a certificate for this host are listed, and every file that is listed has its digest. */
async function judgeSums(sumsFile) {
  try {
    const sums = parseSums(sumsFile);
    const host = location.hostname;
    const own = [`cert-${host}.pem`, `cert-*${host.slice(host.indexOf('.'))}.pem`];
    if (!sums.has('acme-account.json')) return verdict('fail', 'sha256sum.txt does not list acme-account.json');
    if (!own.some((name) => sums.has(name))) return verdict('fail', `sha256sum.txt does not list ${own[0]}`);
    const entries = [...sums];
    while (entries.length > 0) {
      const some = entries.splice(0, AT_ONCE);
      const digests = await Promise.all(some.map(async ([name]) => sha256(await fetchFile(name))));
      const wrong = some.find(([, digest], index) => digest !== digests[index]);
      if (wrong !== undefined)
        return verdict('fail', `${wrong[0]} does not have the digest that sha256sum.txt lists: it was altered, or renewed just now`);
    }
    return verdict('pass', `${sums.size} files have the digests that sha256sum.txt lists`);
  } catch (error) {
    return verdict(error instanceof Unfit ? 'fail' : 'not-run', error.message);
  }
}

let verifier;

/** Loaded when it is first wanted: it is most of what this page weighs. */
function loadVerifier() {
  verifier ??= new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = 'verifier.js';
    script.onload = () => resolve(globalThis.dstackIngressVerify);
    script.onerror = () => {
      verifier = undefined;
      script.remove();
      reject(new Error('the verifier cannot be loaded'));
    };
    document.head.append(script);
  });
  return verifier;
}

async function chosen(id) {
  const [file] = byId(id).files;
  if (file === undefined) return undefined;
  if (file.size > LARGEST_FILE) throw new Error(`${file.name} is too large to be what is asked for`);
  return file.text();
}

/** What the reader has chosen; else what the site publishes, if it does: it is signed, and so can only be old. */
async function collateralText() {
  const own = await chosen('collateral');
  if (own !== undefined || !('published' in byId('collateral').dataset)) return own;
  return new TextDecoder().decode(await fetchFile('quote-collateral.json'));
}

async function check() {
  const root = await chosen('root');
  const [collateral, { verifyFiles, verifyStatement }, sums, quote] = await Promise.all([
    collateralText(),
    loadVerifier(),
    fetchFile('sha256sum.txt'),
    fetchFile('quote.json'),
  ]);
  const rules = { ...(collateral !== undefined && { collateral }), ...(root !== undefined && { root }) };
  const text = (bytes) => new TextDecoder().decode(bytes);
  const stated = fetchFile('attestation.json').then(
    (bytes) => verifyStatement({ attestation: text(bytes), ...rules }),
    (error) => verdict(error instanceof Unfit ? 'fail' : 'not-run', error.message),
  );
  const [ofQuote, ofStatement, ofSums] = await Promise.all([
    verifyFiles({ sums, quote: text(quote), ...rules }),
    stated,
    judgeSums(sums),
  ]);
  return { ...ofQuote, 'statement.quote': ofStatement, 'bundle.sums': ofSums };
}

/** Of some verdicts the one that counts; what passes under a root that somebody chose proves nothing about a real processor. */
function worst(names, isSimulated) {
  return ['fail', 'not-run'].find((each) => names.includes(each)) ?? (isSimulated ? 'simulated' : 'pass');
}

const linkWords = {
  pass: 'holds',
  simulated: 'holds, simulated',
  fail: 'does not hold',
  'not-run': 'not proven',
};

function show(verdicts, isSimulated) {
  for (const item of document.querySelectorAll('[data-check]')) {
    const { verdict: name, reason } = verdicts[item.dataset.check];
    item.dataset.verdict = name;
    item.querySelector('.verdict').textContent = words[name];
    item.querySelector('.reason').textContent = reason;
  }
  for (const link of document.querySelectorAll('[data-checks]')) {
    const names = link.dataset.checks.split(' ').map((id) => verdicts[id].verdict);
    link.dataset.verdict = worst(names, isSimulated);
    link.querySelector('.badge').textContent = linkWords[link.dataset.verdict];
  }
}

function summaryOf(verdicts, root) {
  const all = [...document.querySelectorAll('[data-check]')].map((item) => ({
    ...verdicts[item.dataset.check],
    title: item.querySelector('h4').textContent,
  }));
  const of = (name) => all.filter((each) => each.verdict === name);
  const failed = of('fail').map(({ title }) => title);
  const counts = [`${of('pass').length} of ${all.length} hold`];
  if (of('not-run').length > 0) counts.push(`${of('not-run').length} could not be run`);
  if (failed.length > 0) counts.push(`${failed.length} ${failed.length === 1 ? 'fails' : 'fail'}: ${failed.join(', ')}`);
  const under =
    root === undefined
      ? 'Judged under Intel’s root.'
      : `Judged under ${root.name}, a root that you chose in place of Intel’s: this platform counts as simulated.`;
  return `${counts.join('; ')}. ${under}`;
}

function tell(text, state) {
  outcome.textContent = text;
  outcome.dataset.state = state;
  // On a phone it is not where the button is.
  outcome.scrollIntoView({ block: 'nearest' });
}

async function run() {
  runButton.setAttribute('aria-disabled', 'true');
  tell('Checking…', 'busy');
  try {
    const verdicts = await check();
    const [root] = byId('root').files;
    show(verdicts, root !== undefined);
    const names = Object.values(verdicts).map((each) => each.verdict);
    tell(summaryOf(verdicts, root), worst(names, root !== undefined));
  } catch (error) {
    // What was judged before is about other files.
    const ids = [...document.querySelectorAll('[data-check]')].map(({ dataset }) => dataset.check);
    show(Object.fromEntries(ids.map((id) => [id, verdict('not-run', 'nothing could be judged')])), false);
    tell(`Nothing could be judged: ${error.message}.`, 'fail');
  } finally {
    runButton.removeAttribute('aria-disabled');
  }
}

async function copy() {
  const command = document.querySelector('#command code').textContent;
  const isCopied = await navigator.clipboard.writeText(command).then(
    () => true,
    () => false,
  );
  byId('copied').textContent = isCopied ? 'Copied.' : 'The browser does not let it be copied: select it by hand.';
}

// The port is known here alone.
document.querySelector('#command code').textContent = `npx dstack-ingress verify ${location.origin}`;
runButton.disabled = false;
copyButton.disabled = false;
runButton.addEventListener('click', () => {
  if (!runButton.hasAttribute('aria-disabled')) run();
});
copyButton.addEventListener('click', copy);
