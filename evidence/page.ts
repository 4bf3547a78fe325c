// The page at /evidences/: who vouches for what, what is stated, the files, and how all of it is checked. Without script it is whole.

import type { Facts, FileFact, MachineFacts, Since } from './page/facts.ts';
import { type Html, html } from './page/html.ts';
import type { StatedCertificate, Statement } from './statement.ts';

export interface Visit {
  /** As asked for, lower case, without a port. */
  readonly host: string;
  /** The file with its certificate; undefined if there is none. */
  readonly certificateFile: string | undefined;
}

/** A page is made for each visitor: lists longer than this are for the files to tell. */
const LONGEST_LIST = 50;

export function evidencePage(facts: Facts, visit: Visit): string {
  const { host } = visit;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Who vouches for ${host}</title>
<link rel="icon" href="page.svg" type="image/svg+xml">
<link rel="stylesheet" href="page.css">
<script src="page.js" type="module"></script>
</head>
<body>
<a class="skip" href="#chain">Skip to the chain</a>
<header>
<p class="kicker">Evidence</p>
<h1>Who vouches for <span class="host">${host}</span></h1>
<p class="lead">This site says that it runs in a confidential virtual machine. Five links lead from a processor to the
page before you: each vouches for the next, and none is better than what it rests on.</p>
<nav aria-label="On this page"><a href="#chain">The chain</a><a href="#statement">What it states</a><a href="#files">The files</a><a href="#check" class="strong">Check it</a></nav>
</header>
<main>
${chain(facts, visit)}
${stated(facts)}
${files(facts, visit)}
${check(host, facts)}
</main>
<footer><p>Made from the evidence of ${moment(facts.builtAt)} by the ingress itself. No script, style or picture comes from anywhere else.</p></footer>
</body>
</html>
`.markup;
}

interface Link {
  readonly name: string;
  readonly vouches: string;
  readonly restsOn: Html;
  readonly values: readonly (Html | undefined)[];
  /** The checks that it needs; none: nothing here can check it. */
  readonly checks: string;
  readonly icon: keyof typeof icons;
}

const CHIP = html`<path d="M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4"/>`;
const icons = {
  processor: CHIP,
  machine: html`<path d="M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9"/>`,
  software: html`<path d="M9 8l-4 4 4 4M15 8l4 4-4 4M13.2 6l-2.4 12"/>`,
  certificate: html`<path d="M6 3h8l4 4v14H6zM14 3v4h4M9 12h6M9 16h4"/>`,
  site: html`<circle cx="12" cy="12" r="9"/><path d="M3 12h18M12 3c3 3 3 15 0 18M12 3c-3 3-3 15 0 18"/>`,
} as const;

function chain(facts: Facts, visit: Visit): Html {
  return html`<section id="chain" aria-labelledby="chain-title">
<h2 id="chain-title">The chain</h2>
<p class="note">Until it is checked, all of this is only what the site says of itself.</p>
<ol class="chain">${linksOf(facts, visit).map(linkItem)}</ol>
</section>`;
}

function linksOf({ machine, statement, account }: Facts, visit: Visit): Link[] {
  const own = statement && certificateFor(statement.certificates, visit.host);
  return [
    {
      name: 'Processor',
      icon: 'processor',
      vouches: 'It signed a quote: a report on the one virtual machine that asked for it.',
      restsOn: html`Intel&rsquo;s root certificate, and Intel&rsquo;s lists of keys that are revoked and of firmware that is out of date.`,
      values: [machine && value('Quote', `Intel TDX, format ${machine.quoteFormat}`)],
      checks: 'quote.collateral quote.signature quote.revocation quote.tcb',
    },
    {
      name: 'Virtual machine',
      icon: 'machine',
      vouches:
        'Its memory is closed to the host it runs on, and the quote holds the measurements of how it started.',
      restsOn: html`The processor keeping the two apart, no debug mode, and you knowing the measurements of an operating system that you trust.`,
      values: machine === undefined ? [] : [registers(machine)],
      checks: 'quote.attributes',
    },
    {
      name: 'Software',
      icon: 'software',
      vouches: 'Before the app started, the operating system measured its compose file into the quote.',
      restsOn: html`The event log adding up to what was signed, and somebody having read the compose file that has this hash.`,
      values: [
        machine && hex('Compose hash', machine.composeHash),
        machine && hex('App', machine.appId),
        statement && value('Ingress', statement.revision),
      ],
      checks: 'log.replay statement.quote',
    },
    {
      name: 'Certificate',
      icon: 'certificate',
      vouches:
        'That software had the quote made over a list of its certificates, and of the account that orders them.',
      restsOn: html`The files fitting that list, the measured software keeping the key to itself, and CAA records that let no other account order one.`,
      values: [
        own && value('Issued by', own.issuer),
        own && html`<div><dt>In force</dt><dd>${period(own)}</dd></div>`,
        own && hex('Fingerprint', own.sha256),
        account === undefined ? undefined : value('Account', account),
      ],
      checks: 'bundle.sums quote.binding',
    },
    {
      name: 'This site',
      icon: 'site',
      vouches: 'Your connection ends where the key of that certificate is.',
      restsOn: html`Nothing that a page can show you. It takes a program that sees the certificate of its own connection: <a href="#command">the command below</a>.`,
      values: [
        visit.certificateFile === undefined ? undefined : value('Compare with', visit.certificateFile),
      ],
      checks: '',
    },
  ];
}

function linkItem({ name, icon, vouches, restsOn, values, checks }: Link): Html {
  const shown = values.filter((each) => each !== undefined);
  return html`
<li class="link"${checks === '' ? '' : html` data-checks="${checks}"`}>
<span class="node"><svg viewBox="0 0 24 24" aria-hidden="true">${icons[icon]}</svg></span>
<div class="vouches"><h3>${name} ${checks === '' ? html`<span class="badge never">not for a page to check</span>` : html`<span class="badge">not checked yet</span>`}</h3>
<p>${vouches}</p>${
    shown.length === 0
      ? ''
      : html`
<dl>${shown}</dl>`
  }</div>
<div class="rests"><h4>Rests on</h4><p>${restsOn}</p></div>
</li>`;
}

function registers({ mrTd, rtmrs }: MachineFacts): Html {
  const rows = [hex('MRTD', mrTd), ...rtmrs.map((register, index) => hex(`RTMR${index}`, register))];
  return html`<div class="fold"><dt>Measured</dt><dd><details><summary>MRTD and RTMR0 to RTMR3</summary>
<dl>${rows}</dl></details></dd></div>`;
}

function stated({ statement, since, account }: Facts): Html {
  return html`<section id="statement" aria-labelledby="statement-title">
<h2 id="statement-title">What it states</h2>
${statement === undefined ? unstated(account) : statementOf(statement, since)}
</section>`;
}

function unstated(account: string | undefined): Html {
  return html`<p class="note">There is no statement yet, so only the files below speak. It is made anew every day and with
every change; look again in a moment.</p>
${account === undefined ? '' : html`<dl class="facts">${value('Account that orders certificates', account)}</dl>`}`;
}

function statementOf(statement: Statement, since: Since | undefined): Html {
  const { domains, account, certificates } = statement;
  const records = Object.values(statement.caa).flat();
  return html`<p class="note">Quoted ${moment(statement.time)}, by the clock of the machine.
${since === undefined ? '' : placeOf(since)}</p>
<dl class="facts">
<div><dt>It serves</dt><dd>${list(domains, (domain) => html`<span class="name">${domain}</span>`)}</dd></div>
<div><dt>It runs</dt><dd>the code with compose hash ${code(statement.composeHash)}<br>as app ${code(statement.appId)}<br>on instance ${code(statement.instanceId)}</dd></div>
<div><dt>Certificates are ordered by</dt><dd>the account ${code(account.uri)}${
    since === undefined ? '' : html`,<br>the only one named since ${moment(since.account)}`
  }<br>whose key has the thumbprint ${code(account.thumbprint)}</dd></div>
<div><dt>CAA records that keep others out</dt><dd>${
    records.length === 0
      ? 'not stated: what the CA accepts could not be read'
      : list(Object.entries(statement.caa), caaOf)
  }</dd></div>
</dl>
<h3>Certificates</h3>
<ul class="cards">${cut(certificates).map(certificateCard)}</ul>${rest(certificates, 'certificate', 'attestation.json')}`;
}

function placeOf({ statements, first }: Since): Html {
  if (statements === 1) return html`It is the first of its history.`;
  return html`It is the newest of ${statements} statements, the first of ${moment(first)}; each names the one before.`;
}

function caaOf([domain, records]: readonly [string, readonly string[]]): Html {
  return html`<span class="name">${domain}</span> ${records.map((record) => html`<code class="block">CAA ${record}</code>`)}`;
}

function certificateCard(certificate: StatedCertificate): Html {
  return html`
<li><p class="names">${cut(certificate.names).map((name) => html`<span class="name">${name}</span> `)}</p>
<dl>${value('Issued by', certificate.issuer)}<div><dt>In force</dt><dd>${period(certificate)}</dd></div>${hex('Serial', certificate.serial)}${hex('Public key', certificate.spki)}${hex('Fingerprint', certificate.sha256)}</dl></li>`;
}

function files(facts: Facts, { certificateFile }: Visit): Html {
  return html`<section id="files" aria-labelledby="files-title">
<h2 id="files-title">The files</h2>
<p class="note">Everything said above is in them. Digests are SHA-256.</p>
<ul class="cards files">${cut(facts.files).map(fileCard)}${
    certificateFile === undefined
      ? ''
      : html`
<li><p class="names"><a href="cert.pem">cert.pem</a></p><p>of the chains the one for the host that you asked: ${certificateFile}</p></li>`
  }</ul>${rest(facts.files, 'file', 'sha256sum.txt')}
</section>`;
}

function fileCard({ name, about, sha256, bytes }: FileFact): Html {
  return html`
<li><p class="names"><a href="${encodeURIComponent(name)}">${name}</a> <span class="size">${size(bytes)}</span></p>
<p>${about}</p><p class="digest"><code>${sha256}</code></p></li>`;
}

/** In the order of the chain. The ids are those of the verify command. */
const checks: readonly (readonly [id: string, name: string, meaning: string])[] = [
  ['quote.signature', 'Signatures', 'root, processor, quoting enclave and quote: each signed the next'],
  [
    'quote.collateral',
    'Collateral',
    'the maker’s patch levels and revocation lists are signed, and not out of date',
  ],
  ['quote.revocation', 'Revocation', 'no key of the chain is on a revocation list'],
  ['quote.tcb', 'Firmware', 'processor, TDX module and quoting enclave are up to date'],
  ['quote.attributes', 'Isolation', 'no debug mode, and a TDX module of the maker'],
  ['log.replay', 'Event log', 'its events give the registers that were signed'],
  ['statement.quote', 'Statement', 'a sound quote was made over what is stated above'],
  ['quote.binding', 'Binding', 'the quote carries the digest of sha256sum.txt'],
  ['bundle.sums', 'Files', 'the account and the certificates have the digests in sha256sum.txt'],
];

function check(host: string, { files }: Facts): Html {
  const published = files.some(({ name }) => name === 'quote-collateral.json');
  return html`<section id="check" aria-labelledby="check-title">
<h2 id="check-title">Check it</h2>
<div class="limit"><h3>What a page can never prove</h3>
<p>Its own connection. Whoever stands between you and this site could send you this page, its button and its verdicts:
browsers do not show a script the certificate that it came with. So what follows shows that the <em>files</em> are sound.
That <em>you are connected</em> to the machine they describe takes a program that you got elsewhere.</p></div>
<div class="ways">
<div class="way">
<h3>In this browser</h3>
<p>It fetches the files again and judges them here, under Intel&rsquo;s root, which the script brings. Nobody else is asked.</p>
<p><label for="collateral">Collateral</label>
<input type="file" id="collateral" accept=".json,application/json" aria-describedby="collateral-about"${published ? html` data-published` : ''}></p>
<p class="about" id="collateral-about">What Intel says of the processor, signed by Intel: <code>quote-collateral.json</code>. ${
    published
      ? html`If you choose none, the one that this site publishes is taken: it may be a few days old, and is refused when it has run out.`
      : html`The command keeps it with <code>--save</code>. Intel&rsquo;s service does not answer pages; without the file, what needs it is not run.`
  }</p>
<details><summary>The platform is simulated</summary>
<p><label for="root">Its root, in place of Intel&rsquo;s</label>
<input type="file" id="root" accept=".pem" aria-describedby="root-about"></p>
<p class="about" id="root-about">A simulated processor is signed for by a root of its own (<code>quote-root.pem</code>). Its quotes pass under that root alone, and protect nobody.</p></details>
<p class="action"><button type="button" id="run" disabled>Check the files</button></p>
<noscript><p class="about">The button needs JavaScript; the command beside it does not.</p></noscript>
</div>
<div class="way" id="command">
<h3>From a terminal</h3>
<p>The command asks from outside, and checks what a page cannot as well: that your connection ends in this machine, by a
fresh quote over its keys; that DNS lets no other account order certificates; that the logs of certificates know of no other.</p>
<div class="copy"><pre tabindex="0" aria-label="Command"><code>npx dstack-ingress verify https://${host}</code></pre><button type="button" id="copy" disabled>Copy</button></div>
<p class="about" id="copied" role="status">It ends with 0 if all holds, 1 if anything does not, 3 if something could not be checked.</p>
</div>
</div>
<h3 class="results">Verdicts of this browser</h3>
<p id="outcome" class="outcome" role="status">Nothing has been checked.</p>
<ul class="checks">${checks.map(checkItem)}</ul>
</section>`;
}

function checkItem([id, name, meaning]: (typeof checks)[number]): Html {
  return html`
<li data-check="${id}"><span class="mark" aria-hidden="true"></span><h4>${name}</h4><p class="reason">${meaning}</p><span class="verdict">not run</span></li>`;
}

/** Its own, else that of the wildcard over it. */
function certificateFor(certificates: readonly StatedCertificate[], host: string) {
  const named = (name: string) => certificates.find(({ names }) => names.includes(name));
  return named(host) ?? named(`*${host.slice(host.indexOf('.'))}`);
}

function value(name: string, text: string): Html {
  return html`<div><dt>${name}</dt><dd>${text}</dd></div>`;
}

function hex(name: string, text: string): Html {
  return html`<div><dt>${name}</dt><dd>${code(text)}</dd></div>`;
}

function code(text: string): Html {
  return text === '' ? html`<span class="soft">not said</span>` : html`<code>${text}</code>`;
}

function cut<T>(all: readonly T[]): readonly T[] {
  return all.slice(0, LONGEST_LIST);
}

function list<T>(all: readonly T[], item: (one: T) => Html): Html {
  return html`<ul>${cut(all).map((one) => html`<li>${item(one)}</li>`)}</ul>${rest(all, 'name', 'attestation.json')}`;
}

function rest(all: readonly unknown[], what: string, file: string): Html | string {
  const more = all.length - LONGEST_LIST;
  return more > 0
    ? html`<p class="soft">and ${count(more, `more ${what}`)}, see <a href="${file}">${file}</a></p>`
    : '';
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}

function period({ notBefore, notAfter }: StatedCertificate): Html {
  return html`${moment(notBefore)} to ${moment(notAfter)}`;
}

let words: Intl.DateTimeFormat | undefined;

/** Made with the first page: it takes a tenth of what a worker needs to start. */
function inWords(date: Date): string {
  words ??= new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'short', timeZone: 'UTC' });
  return words.format(date);
}

function moment(iso: string): Html {
  const date = new Date(iso);
  return Number.isNaN(date.getTime())
    ? html`${iso}`
    : html`<time datetime="${iso}">${inWords(date)} UTC</time>`;
}

function size(bytes: number): string {
  return bytes < 1024 ? `${bytes} B` : `${(bytes / 1024).toFixed(1)} KiB`;
}
