// Where the ingress is not as nginx is, and why: the one list that the tests allow, and docs/nginx.md tells.

import type { Ask } from './clients.ts';
import type { Heard, Outcome } from './stage.ts';

export interface Asked extends Ask {
  readonly host: string;
  /** The file that holds the server. */
  readonly conf: string;
  readonly protocol: string;
}

export interface Pair {
  readonly nginx: Outcome;
  readonly ours: Outcome;
}

export interface Difference {
  /** As the table in docs/nginx.md has it. */
  readonly what: string;
  readonly here: string;
  readonly why: string;
  /** Takes it out of both. */
  even(pair: Pair, asked: Asked): Pair;
}

type Fields = Outcome['fields'];

function without(fields: Fields, dropped: (name: string) => boolean): Fields {
  return fields.filter(([name]) => !dropped(name));
}

function both(pair: Pair, change: (outcome: Outcome) => Outcome): Pair {
  return { nginx: change(pair.nginx), ours: change(pair.ours) };
}

function hearing(outcome: Outcome, change: (heard: Heard) => Heard): Outcome {
  return { ...outcome, heard: outcome.heard.map(change) };
}

const forwardedFamily = new Set([
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-real-ip',
  'forwarded',
]);

const pageFields = new Set([
  'content-type',
  'cache-control',
  'vary',
  'content-security-policy',
  'x-content-type-options',
]);

const isNginxPage = ({ body }: Outcome) => body.includes('<hr><center>nginx/');

/** A page, or what is left of one where there is no body: nginx has none for some statuses, and nothing has one for HEAD. */
function isPage({ nginx }: Pair, { method }: Asked): boolean {
  if (isNginxPage(nginx)) return true;
  if (nginx.status < 300 || nginx.body !== '') return false;
  const type = nginx.fields.find(([name]) => name === 'content-type')?.[1];
  return type === undefined || (method === 'HEAD' && type === 'text/html');
}

/** Spaces and controls as they leave here. */
function escaped(value: string): string {
  return value.replaceAll(
    /[\x00-\x20\x7f]/g,
    (byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
}

function mapped(fields: Fields, name: string, change: (value: string) => string): Fields {
  return fields.map((field) => (field[0] === name ? ([name, change(field[1])] as const) : field));
}

export const differences: readonly Difference[] = [
  {
    what: 'pages of errors and redirects without an `error_page`',
    here: 'pages of the ingress, HTML or JSON by `Accept`; redirects have no body',
    why: 'they tell a visitor what to do, and not which program runs',
    even(pair, asked) {
      if (pair.nginx.status !== pair.ours.status || !isPage(pair, asked)) return pair;
      return both(pair, (outcome) => ({
        ...outcome,
        body: '',
        fields: without(outcome.fields, (name) => pageFields.has(name)),
      }));
    },
  },
  {
    what: '`proxy_http_version`, `keepalive`',
    here: 'HTTP/1.1 and kept connections always',
    why: 'nothing gains by HTTP/1.0',
    even: (pair) => both(pair, (outcome) => hearing(outcome, (heard) => ({ ...heard, version: '1.1' }))),
  },
  {
    what: '`X-Forwarded-*`, `X-Real-IP`, `Forwarded`',
    here: 'ours are there where the file sets none; what clients send under these names is dropped',
    why: 'the app can always tell the client, and no client can pretend',
    even(pair, { conf }) {
      const isOurs = (name: string) =>
        forwardedFamily.has(name) && !conf.toLowerCase().includes(`proxy_set_header ${name}`);
      return both(pair, (outcome) =>
        hearing(outcome, (heard) => ({ ...heard, fields: without(heard.fields, isOurs) })),
      );
    },
  },
  {
    what: 'a redirect or target of decoded text with spaces or controls',
    here: 'sent as `%XX`',
    why: 'nginx sends them raw, and a line break of a client would begin a field of its own',
    even(pair) {
      const isUnreadable = pair.nginx.heard.length < pair.ours.heard.length;
      const isEscaped = pair.ours.heard.some(({ target }) => /%(?:[01][0-9A-F]|20|7F)/.test(target));
      if (isUnreadable && isEscaped) return { nginx: pair.nginx, ours: pair.nginx };
      return both(pair, (outcome) => ({ ...outcome, fields: mapped(outcome.fields, 'location', escaped) }));
    },
  },
  {
    what: '`return 301` and the like without a URL',
    here: 'no `Location` at all',
    why: 'an empty one leads nowhere',
    even: (pair) => ({
      ...pair,
      nginx: {
        ...pair.nginx,
        fields: pair.nginx.fields.filter(([name, value]) => name !== 'location' || value !== ''),
      },
    }),
  },
  {
    what: 'Content-Type of replies without content (204 over HTTP/2, `return 304`)',
    here: 'that of the app; none of ours',
    why: 'it is the same over both protocols',
    even(pair) {
      const { status } = pair.nginx;
      if (status !== 204 && status !== 304) return pair;
      return both(pair, (outcome) => ({
        ...outcome,
        fields: without(outcome.fields, (name) => name === 'content-type'),
      }));
    },
  },
  {
    what: 'requests without a body that could have one',
    here: '`Content-Length: 0` to the app',
    why: 'RFC 9110 §8.6 asks for it',
    even: (pair) =>
      both(pair, (outcome) =>
        hearing(outcome, (heard) => ({
          ...heard,
          fields: heard.fields.filter(([name, value]) => name !== 'content-length' || value !== '0'),
        })),
      ),
  },
  {
    what: '`proxy_method` on HEAD, or with nothing in it',
    here: 'HEAD stays HEAD; nothing leaves the method as it is',
    why: 'whether a reply has a body depends on its method',
    even(pair, { method, conf }) {
      if (!conf.includes('proxy_method') || (method !== 'HEAD' && pair.nginx.status !== 400)) return pair;
      return { nginx: pair.nginx, ours: pair.nginx };
    },
  },
  {
    what: '`$remote_user`',
    here: 'empty unless `auth_basic` has let the user in',
    why: 'a name that nobody has checked is no user',
    even(pair, { conf }) {
      if (!conf.includes('$remote_user')) return pair;
      const isFree = pair.ours.status === 401 || !conf.includes('auth_basic');
      if (!isFree) return pair;
      return both(pair, (outcome) => ({
        ...hearing(outcome, (heard) => ({
          ...heard,
          fields: without(heard.fields, (name) => name === 'x-user'),
        })),
        fields: without(outcome.fields, (name) => name === 'x-user'),
      }));
    },
  },
  {
    what: 'two `Authorization` fields',
    here: '401 where a password is asked for',
    why: 'nginx says 400; neither lets anybody in',
    even(pair, { headers = [] }) {
      const isTwice = headers.filter(([name]) => name === 'Authorization').length > 1;
      const refused = pair.nginx.status === 400 && pair.ours.status === 401;
      return isTwice && refused ? { nginx: pair.nginx, ours: pair.nginx } : pair;
    },
  },
  {
    what: '`WWW-Authenticate` in the 500 of an `auth_request` that failed',
    here: 'not sent',
    why: 'no password helps against a 500',
    even(pair) {
      if (pair.nginx.status !== 500) return pair;
      return {
        ...pair,
        nginx: { ...pair.nginx, fields: without(pair.nginx.fields, (name) => name === 'www-authenticate') },
      };
    },
  },
  {
    what: 'the body of a request that an `error_page` with a URI answers from another app',
    here: 'not sent along',
    why: 'the request has become a GET',
    even(pair, { body, method = 'GET', conf }) {
      if (body === undefined || method === 'GET' || !conf.includes('error_page')) return pair;
      const bare = (heard: Heard) =>
        heard.method === 'GET'
          ? { ...heard, body: '', fields: without(heard.fields, (name) => name === 'content-length') }
          : heard;
      return both(pair, (outcome) => hearing(outcome, bare));
    },
  },
  {
    what: '`add_header` and `expires` on the 416 of a file',
    here: 'as on other errors, only what says `always`',
    why: 'a refusal is not to be kept',
    even(pair) {
      if (pair.nginx.status !== 416) return pair;
      const names = new Set(pair.ours.fields.map(([name]) => name));
      return {
        ...pair,
        nginx: { ...pair.nginx, fields: without(pair.nginx.fields, (name) => !names.has(name)) },
      };
    },
  },
  {
    what: 'two `if` of a location that are true, the first with a `proxy_pass`, the second without',
    here: 'the second holds as if the first were not there',
    why: 'nginx answers 500',
    even(pair, { conf }) {
      const fails = pair.nginx.status === 500 && pair.nginx.heard.length === 0;
      return fails && /\bif \(.*\bproxy_pass/.test(conf) ? { nginx: pair.nginx, ours: pair.nginx } : pair;
    },
  },
  {
    what: 'variables in the 400 for a target that cannot be read',
    here: 'headers and query are known',
    why: 'nginx has not read them yet',
    even(pair) {
      if (pair.nginx.status !== 400 || pair.ours.status !== 400 || pair.nginx.heard.length > 0) return pair;
      const ofRules = (name: string) => /^x-/.test(name) && !pageFields.has(name);
      return both(pair, (outcome) => ({ ...outcome, fields: without(outcome.fields, ofRules) }));
    },
  },
  {
    what: 'paths that lead out of `root` or `alias`, by `..` of a variable or by a link',
    here: '404',
    why: 'a folder that is named is all that is meant to be seen',
    even(pair, { target }) {
      const leadsOut = target.includes('f=../') && pair.ours.status === 404;
      return leadsOut ? { nginx: pair.nginx, ours: pair.nginx } : pair;
    },
  },
];
