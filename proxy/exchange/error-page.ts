// The page that a browser shows when a request could not be served: one small document that needs nothing else.

import type { FaultCode, FaultSide } from '../faults.ts';

/** `what`: what happened, in a visitor's words. `todo`: what the visitor can do. Never anything of the inside. */
interface Words {
  readonly title: string;
  readonly what: string;
  readonly todo: string;
}

const RELOAD = 'Wait a minute, then reload the page.';
const IF_IT_GOES_ON = 'If it goes on, tell the people who run this site.';
const BROWSER = 'Another browser, or the newest version of yours, may do better.';

const words: Readonly<Record<FaultCode, Words>> = {
  'bad-request': {
    title: 'This request makes no sense',
    what: 'What your browser sent is incomplete, or can be understood in two ways. It was not passed on.',
    todo: `Check the address, then try again. ${BROWSER}`,
  },
  'no-route': {
    title: 'There is nothing here',
    what: 'No page is served under this address.',
    todo: 'Check the address for a typing mistake, or start at the front page of the site.',
  },
  'method-refused': {
    title: 'This cannot be done here',
    what: 'The kind of request that was sent is not accepted.',
    todo: 'Go back, and use the links and buttons of the site.',
  },
  'request-timeout': {
    title: 'Your request did not arrive in time',
    what: 'The connection was open, but the request came too slowly or stopped on its way.',
    todo: 'Check your network, then try again.',
  },
  'body-too-large': {
    title: 'This is too large',
    what: 'What you sent is larger than this site accepts. Nothing of it was kept.',
    todo: 'Send a smaller file, or several small ones.',
  },
  'target-too-long': {
    title: 'This address is too long',
    what: 'The address that was asked for is longer than this site accepts.',
    todo: 'Start at the front page of the site, or shorten what you searched for.',
  },
  'expectation-failed': {
    title: 'This cannot be promised',
    what: 'Your program wants something to be promised that is not offered here.',
    todo: BROWSER,
  },
  misdirected: {
    title: 'This connection is for another site',
    what: 'Your browser asked over a connection that was opened for a different name.',
    todo: 'Reload the page. If that does not help, restart your browser and open the address anew.',
  },
  'headers-too-large': {
    title: 'Your browser sent too much along',
    what: 'Besides the address, browsers send what a site has stored in them. That has grown too large.',
    todo: 'Delete the cookies of this site, then reload the page.',
  },
  'not-implemented': {
    title: 'This is not understood here',
    what: 'The request was sent in a form that this site does not know.',
    todo: BROWSER,
  },
  'version-refused': {
    title: 'This is not understood here',
    what: 'Your program speaks a version of HTTP that is not served here.',
    todo: BROWSER,
  },
  'client-closed': {
    title: 'The connection was closed',
    what: 'Your side ended the connection before the answer was ready.',
    todo: 'Try again.',
  },
  'upstream-refused': {
    title: 'The app cannot be reached',
    what: 'You have reached the entrance of this site, but the app behind it does not answer.',
    todo: `${RELOAD} ${IF_IT_GOES_ON}`,
  },
  'upstream-unresolved': {
    title: 'The app cannot be found',
    what: 'You have reached the entrance of this site, but the app behind it is not where it should be.',
    todo: `${RELOAD} ${IF_IT_GOES_ON}`,
  },
  'upstream-untrusted': {
    title: 'The app could not be verified',
    what: 'The app behind this site did not prove that it is the right one, so nothing was sent to it.',
    todo: `Nothing that you can change. ${IF_IT_GOES_ON}`,
  },
  'upstream-closed': {
    title: 'The app broke off its answer',
    what: 'The app took the request, but closed the connection before it had answered.',
    todo: `What you sent may have been carried out: look before you send it again. ${IF_IT_GOES_ON}`,
  },
  'upstream-malformed': {
    title: 'The app answered in error',
    what: 'The app answered in a form that cannot be passed on safely.',
    todo: `What you sent may have been carried out: look before you send it again. ${IF_IT_GOES_ON}`,
  },
  'upstream-unavailable': {
    title: 'The app is not available',
    what: 'The app behind this site takes no requests at the moment.',
    todo: `${RELOAD} ${IF_IT_GOES_ON}`,
  },
  'connect-timeout': {
    title: 'The app cannot be reached',
    what: 'You have reached the entrance of this site, but the app behind it did not answer in time.',
    todo: `${RELOAD} ${IF_IT_GOES_ON}`,
  },
  'upstream-timeout': {
    title: 'The app took too long',
    what: 'The app took the request, but did not answer in time. It may still be at work.',
    todo: `What you sent may have been carried out: look before you send it again. ${IF_IT_GOES_ON}`,
  },
  overloaded: {
    title: 'Too many visitors at once',
    what: 'This site is busier than it can serve at the moment. Your request was not passed on.',
    todo: RELOAD,
  },
  draining: {
    title: 'Back in a moment',
    what: 'This site is being restarted. Your request was not passed on.',
    todo: RELOAD,
  },
  failed: {
    title: 'Something went wrong here',
    what: 'The entrance of this site failed at your request.',
    todo: `${RELOAD} ${IF_IT_GOES_ON}`,
  },
};

/** The way of a request, and where on it the fault lies. */
const STATIONS: readonly (readonly [FaultSide, string])[] = [
  ['downstream', 'You'],
  ['ingress', 'Entrance'],
  ['upstream', 'App'],
];

const WHOSE: Readonly<Record<FaultSide, string>> = {
  downstream: 'The site is up, but could not take this request as it was sent.',
  ingress: 'It stopped at the entrance of this site. It is not your fault.',
  upstream: 'It stopped behind the entrance of this site. It is not your fault.',
};

const STYLE = `:root{color-scheme:light dark;--ink:#1b1f24;--soft:#626c77;--line:#d8dee4;--paper:#f5f6f8;--card:#fff;--mark:#b4371d}
@media(prefers-color-scheme:dark){:root{--ink:#e7eaee;--soft:#98a2ad;--line:#343b44;--paper:#111418;--card:#191d23;--mark:#ff8f70}}
*,:before,:after{box-sizing:border-box;margin:0}
body{min-height:100vh;display:grid;place-items:center;padding:1.25rem;background:var(--paper);color:var(--ink);font:1rem/1.6 system-ui,sans-serif}
main{width:100%;max-width:34rem;padding:clamp(1.5rem,6vw,2.75rem);background:var(--card);border:1px solid var(--line);border-radius:14px}
.code{color:var(--mark);font-weight:650;letter-spacing:.08em}
h1{margin:.2rem 0 .8rem;font-size:clamp(1.5rem,6vw,2rem);line-height:1.2;letter-spacing:-.015em;text-wrap:balance}
ol{display:flex;margin:1.8rem 0 .7rem;padding:0;list-style:none;font-size:.875rem;color:var(--soft)}
li{position:relative;flex:1;padding-top:1.3rem;text-align:center}
li:before{content:"";position:absolute;z-index:1;top:0;left:50%;width:.8rem;height:.8rem;margin-left:-.4rem;border-radius:50%;background:var(--card);border:2px solid var(--line)}
li+li:after{content:"";position:absolute;top:.34rem;right:50%;width:100%;height:2px;background:var(--line)}
li.x{color:var(--mark);font-weight:650}
li.x:before{background:var(--mark);border-color:var(--mark)}
.whose{text-align:center;text-wrap:balance}
h2{margin-top:1.7rem;font-size:1rem}
footer{margin-top:1.7rem;padding-top:1rem;border-top:1px solid var(--line)}
.whose,footer{font-size:.875rem;color:var(--soft)}`;

/** What may be fetched or run for the page: nothing but its own style. */
export const PAGE_POLICY =
  "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/** An ASCII document of less than 4 KiB. `now` is the one thing in it that differs from request to request. */
export function errorPage(
  code: FaultCode,
  { status, reason, side, now }: { status: number; reason: string; side: FaultSide; now: Date },
): string {
  return page(words[code], { status, reason, side, now });
}

/** Statuses that rules answer with, and that no fault has. */
const statusWords: Readonly<Record<number, Words>> = {
  401: {
    title: 'You have to sign in',
    what: 'This page is shown to those only who have signed in.',
    todo: 'Reload the page, and give your name and password.',
  },
  403: {
    title: 'This is closed to you',
    what: 'This page exists for others, or from elsewhere.',
    todo: 'If you should see it, tell the people who run this site.',
  },
  429: {
    title: 'Too many requests',
    what: 'More was asked in a short time than one visitor may ask.',
    todo: RELOAD,
  },
};

const REFUSED: Words = {
  title: 'This is not served',
  what: 'The site does not answer this request.',
  todo: 'Go back, and use the links of the site.',
};
const BROKEN: Words = {
  title: 'Something went wrong here',
  what: 'This site cannot answer at the moment.',
  todo: `${RELOAD} ${IF_IT_GOES_ON}`,
};

/** The same for a status that rules say. */
export function statusPage(status: number, reason: string, now: Date): string {
  const found = statusWords[status] ?? (status < 500 ? REFUSED : BROKEN);
  return page(found, { status, reason, side: 'ingress', now });
}

function page(
  { title, what, todo }: Words,
  { status, reason, side, now }: { status: number; reason: string; side: FaultSide; now: Date },
): string {
  const way = STATIONS.map(([station, name]) =>
    station === side ? `<li class="x">${name}</li>` : `<li>${name}</li>`,
  ).join('');
  const time = now.toISOString();
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="robots" content="noindex">
<title>${status} ${title}</title>
<style>${STYLE}</style>
<main>
<p class="code">${status} ${reason}</p>
<h1>${title}</h1>
<p>${what}</p>
<ol aria-hidden="true">${way}</ol>
<p class="whose">${WHOSE[side]}</p>
<h2>What you can do</h2>
<p>${todo}</p>
<footer>Asked at <time datetime="${time}">${time.slice(0, 19).replace('T', ' ')} UTC</time></footer>
</main>
</html>
`;
}

/** Browsers send a fifth of it; nobody makes us read a longer list. */
const LONGEST_ACCEPT = 1024;

/**
 * Whether HTML is preferred to JSON (RFC 9110 §12.5.1). No preference is JSON's: programs rarely say what they take,
 * browsers always do.
 */
export function prefersHtml(accept: string | undefined): boolean {
  if (accept === undefined || accept === '') return false;
  const ranges = accept.slice(0, LONGEST_ACCEPT).split(',').map(parseRange);
  return weightOf(ranges, 'text', 'html') > weightOf(ranges, 'application', 'json');
}

interface MediaRange {
  readonly range: string;
  readonly weight: number;
}

function parseRange(text: string): MediaRange {
  const [range = '', ...parameters] = text.split(';').map((part) => part.trim().toLowerCase());
  const q = parameters.find((parameter) => /^q\s*=/.test(parameter));
  const weight = q === undefined ? 1 : Number(/^q\s*=\s*([01](?:\.\d{0,3})?)$/.exec(q)?.[1] ?? 0);
  return { range, weight: Math.min(weight, 1) };
}

/** That of the most specific range that fits; what no range fits is not wanted. */
function weightOf(ranges: readonly MediaRange[], type: string, subtype: string): number {
  for (const wanted of [`${type}/${subtype}`, `${type}/*`, '*/*']) {
    const found = ranges.filter(({ range }) => range === wanted);
    if (found.length > 0) return Math.max(...found.map(({ weight }) => weight));
  }
  return 0;
}
