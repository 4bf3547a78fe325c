// Every directive of nginx that is known here: where it may stand, how many arguments it takes, and what is done with it.

/** Where directives stand: `if` of a server and of a location are two. */
export type Context =
  | 'http'
  | 'server'
  | 'location'
  | 'if in server'
  | 'if in location'
  | 'limit_except'
  | 'upstream';

export type Handling =
  | { readonly do: 'translate' }
  /** `kind` is told once, however many there are. */
  | { readonly do: 'accept'; readonly kind: AcceptedKind; readonly quietIf?: RegExp }
  | { readonly do: 'refuse'; readonly why: string; readonly cure: string; readonly unless?: RegExp };

export interface DirectiveRule {
  readonly contexts: readonly Context[];
  /** Both included. */
  readonly args: readonly [least: number, most: number];
  /** `on` or `off`. */
  readonly isSwitch: boolean;
  readonly hasBlock: boolean;
  /** Whether one level may have several. */
  readonly many: boolean;
  readonly handling: Handling;
}

/** What accepted directives do here, in words. Those in the second list change what visitors get. */
export const acceptedKinds = {
  tls: 'certificates and TLS settings have no effect: the ingress obtains and serves certificates itself',
  protocols: 'protocol switches have no effect: HTTP/1.1 and HTTP/2 are always served',
  buffers: 'buffer settings have no effect: bodies are streamed, not buffered',
  connections:
    'keep-alive and socket settings have no effect: connections are kept by settings of the ingress',
  clients:
    "clients' timeouts and header limits have no effect: settings of the ingress hold (docs/settings.md)",
  resolver: 'resolver settings have no effect: names are looked up by the system, as often as they expire',
  logs: 'log files and formats have no effect: the access log is written to standard output as JSON',
  tables: 'sizes of hash tables, zones and caches of open files have no effect: nothing needs them',
  'plain HTTP': 'servers that only redirect port 80 to HTTPS have no effect: HTTP_PORT does that',
  evidence: 'locations for /evidences/ have no effect: the ingress serves the evidence itself',
  challenges: 'locations for ACME challenges have no effect: the ingress answers them itself',
  listening: 'listen addresses and their options have no effect: PORT says where the ingress listens',
  image: "includes of files that come with nginx's image have no effect: they are built in",
  cache: 'replies are not cached: each request goes to the upstream (proxy_cache and its family)',
  stale:
    'proxy_cache_use_stale has no effect: when the upstream is down, clients get an error, not an old reply',
  rate: 'limit_rate has no effect: replies are sent as fast as clients take them',
  precompressed: 'gzip_static has no effect: .gz files beside others are not served in their place',
  minor: 'these have no effect here',
} as const;

export type AcceptedKind = keyof typeof acceptedKinds;

/** What the owner of the files would notice. */
export const noticeableKinds: ReadonlySet<AcceptedKind> = new Set([
  'cache',
  'stale',
  'rate',
  'precompressed',
]);

const letters: Readonly<Record<string, Context>> = {
  h: 'http',
  s: 'server',
  l: 'location',
  S: 'if in server',
  L: 'if in location',
  E: 'limit_except',
  u: 'upstream',
};

type Arguments = number | readonly [number, number] | 'switch' | 'block' | readonly ['block', number, number];
const ANY = Number.POSITIVE_INFINITY;

const rules = new Map<string, DirectiveRule>();

function add(names: string, contexts: string, args: Arguments, handling: Handling, many: boolean): void {
  const isBlock = args === 'block' || (Array.isArray(args) && args[0] === 'block');
  const rule: DirectiveRule = {
    contexts: [...contexts].map((letter) => letters[letter]!),
    args: countsOf(args),
    isSwitch: args === 'switch',
    hasBlock: isBlock,
    many,
    handling,
  };
  for (const name of names.split(' ')) rules.set(name, rule);
}

function countsOf(args: Arguments): readonly [number, number] {
  if (typeof args === 'number') return [args, args];
  if (args === 'switch') return [1, 1];
  if (args === 'block') return [0, 0];
  const [first, second, third] = args as readonly (number | 'block')[];
  return first === 'block' ? [second as number, third as number] : [first as number, second as number];
}

const translated: Handling = { do: 'translate' };

function once(names: string, contexts: string, args: Arguments): void {
  add(names, contexts, args, translated, false);
}

function many(names: string, contexts: string, args: Arguments): void {
  add(names, contexts, args, translated, true);
}

/** `quietIf`: arguments with which it does nothing in nginx either. */
function accept(
  kind: AcceptedKind,
  names: string,
  contexts: string,
  args: Arguments,
  quietIf?: RegExp,
): void {
  for (const name of names.split(' '))
    add(name, contexts, args, { do: 'accept', kind, ...(quietIf && { quietIf }) }, repeatable.has(name));
}

/** Accepted, and several at one level are usual. */
const repeatable = new Set([
  'ssl_certificate',
  'ssl_certificate_key',
  'ssl_conf_command',
  'proxy_ssl_conf_command',
  'grpc_ssl_conf_command',
  'error_log',
  'proxy_cache_path',
  'proxy_cache_valid',
  'gzip_disable',
]);

/** Wherever and however it stands. `unless`: with such arguments it does nothing, and is let pass. */
function refuse(names: string, why: string, cure: string, unless?: RegExp): void {
  add(names, 'hslSLEu', [0, ANY], { do: 'refuse', why, cure, ...(unless && { unless }) }, true);
}

// Servers and locations
many('server', 'h', 'block');
many('upstream/server', 'u', [1, ANY]);
many('listen server_name', 's', [1, ANY]);
many('location', 'sl', ['block', 1, 2]);
once('limit_except', 'l', ['block', 1, ANY]);
many('internal', 'l', 0);
once('merge_slashes underscores_in_headers ignore_invalid_headers', 'hs', 'switch');
once('port_in_redirect absolute_redirect server_name_in_redirect recursive_error_pages', 'hsl', 'switch');
once('client_max_body_size', 'hsl', 1);
many('error_page', 'hslL', [2, ANY]);

// Rewriting
many('rewrite', 'sSlL', [2, 3]);
many('return', 'sSlL', [1, 2]);
many('break', 'sSlL', 0);
many('set', 'sSlL', 2);
many('if', 'sl', ['block', 1, ANY]);
many('map', 'h', ['block', 2, 2]);

// Files
once('root', 'hslL', 1);
once('alias', 'l', 1);
many('index', 'hsl', [1, ANY]);
once('try_files', 'sl', [2, ANY]);
many('types', 'hsl', 'block');
once('default_type', 'hsl', 1);
once('charset', 'hslL', 1);
once('autoindex etag', 'hsl', 'switch');

// To upstreams
once('proxy_pass', 'lLE', 1);
once('grpc_pass', 'lL', 1);
many('upstream', 'h', ['block', 1, 1]);
once('least_conn ip_hash', 'u', 0);
once('hash', 'u', [1, 2]);
once('random', 'u', [0, 2]);
for (const family of ['proxy', 'grpc']) {
  many(`${family}_set_header`, 'hsl', 2);
  many(`${family}_hide_header ${family}_pass_header`, 'hsl', 1);
  once(`${family}_connect_timeout ${family}_read_timeout ${family}_send_timeout`, 'hsl', 1);
  once(`${family}_intercept_errors`, 'hsl', 'switch');
  many(`${family}_next_upstream`, 'hsl', [1, ANY]);
  once(`${family}_next_upstream_tries ${family}_next_upstream_timeout`, 'hsl', 1);
  once(`${family}_ssl_verify ${family}_ssl_server_name`, 'hsl', 'switch');
  once(
    `${family}_ssl_name ${family}_ssl_trusted_certificate ${family}_ssl_certificate ${family}_ssl_certificate_key`,
    'hsl',
    1,
  );
  many(`${family}_ignore_headers`, 'hsl', [1, ANY]);
  accept('tls', `${family}_ssl_protocols`, 'hsl', [1, ANY]);
  accept('tls', `${family}_ssl_ciphers ${family}_ssl_verify_depth`, 'hsl', 1);
  accept('tls', `${family}_ssl_session_reuse`, 'hsl', 'switch');
  accept('tls', `${family}_ssl_conf_command`, 'hsl', 2);
  accept('connections', `${family}_socket_keepalive`, 'hsl', 'switch');
  accept('buffers', `${family}_buffer_size`, 'hsl', 1);
  refuse(
    `${family}_ssl_crl ${family}_ssl_password_file`,
    'lists of revoked certificates and passwords of keys are not read',
    'take it away, or write a key without a password',
  );
  refuse(
    `${family}_bind`,
    'requests go out from the address that the system chooses',
    'take it away',
    /^off$/,
  );
}
many('proxy_redirect proxy_cookie_path proxy_cookie_domain', 'hsl', [1, 2]);
many('proxy_cookie_flags', 'hsl', [1, 4]);
once('proxy_method', 'hsl', 1);
once('proxy_pass_request_headers proxy_pass_request_body', 'hsl', 'switch');
accept('protocols', 'proxy_http_version', 'hsl', 1);
accept('buffers', 'proxy_buffering proxy_request_buffering', 'hsl', 'switch');
accept('buffers', 'proxy_buffers', 'hsl', 2);
accept('buffers', 'proxy_busy_buffers_size proxy_max_temp_file_size proxy_temp_file_write_size', 'hsl', 1);
accept('buffers', 'proxy_temp_path client_body_temp_path', 'hsl', [1, 4]);
accept('tables', 'proxy_headers_hash_max_size proxy_headers_hash_bucket_size', 'hsl', 1);
accept('minor', 'proxy_ignore_client_abort proxy_force_ranges proxy_pass_trailers', 'hsl', 'switch');
accept('minor', 'proxy_send_lowat', 'hsl', 1);
accept('cache', 'proxy_cache', 'hsl', 1, /^off$/);
accept('cache', 'proxy_cache_path', 'h', [2, ANY], /./);
accept(
  'cache',
  'proxy_cache_key proxy_cache_min_uses proxy_cache_lock_timeout proxy_cache_lock_age',
  'hsl',
  1,
  /./,
);
accept('cache', 'proxy_cache_max_range_offset', 'hsl', 1, /./);
accept(
  'cache',
  'proxy_cache_valid proxy_cache_bypass proxy_no_cache proxy_cache_methods',
  'hsl',
  [1, ANY],
  /./,
);
accept(
  'cache',
  'proxy_cache_lock proxy_cache_revalidate proxy_cache_background_update',
  'hsl',
  'switch',
  /./,
);
accept('cache', 'proxy_cache_convert_head', 'hsl', 'switch', /./);
accept('stale', 'proxy_cache_use_stale', 'hsl', [1, ANY], /^off$/);
accept('rate', 'proxy_limit_rate', 'hsl', 1, /^0$/);
accept('rate', 'limit_rate limit_rate_after', 'hslL', 1, /^0$/);
accept('connections', 'keepalive', 'u', 1);
accept('tables', 'zone', 'u', [1, 2]);
accept('resolver', 'resolver', 'hslu', [1, ANY]);
accept('resolver', 'resolver_timeout', 'hslu', 1);

// Access and limits
many('allow deny', 'hslE', 1);
once('satisfy', 'hsl', 1);
once('auth_basic auth_basic_user_file', 'hslE', 1);
once('auth_request', 'hsl', 1);
many('auth_request_set', 'hsl', 2);
many('limit_req_zone', 'h', 3);
many('limit_req', 'hsl', [1, 3]);
many('limit_conn_zone', 'h', 2);
many('limit_conn', 'hsl', 2);
once('limit_req_status limit_conn_status', 'hsl', 1);
once('limit_req_dry_run limit_conn_dry_run', 'hsl', 'switch');
accept('logs', 'limit_req_log_level limit_conn_log_level', 'hsl', 1);
accept('minor', 'auth_delay', 'hsl', 1);
many('set_real_ip_from', 'hsl', 1);
once('real_ip_header', 'hsl', 1);
once('real_ip_recursive', 'hsl', 'switch');

// Replies
many('add_header', 'hslL', [2, 3]);
once('expires', 'hslL', [1, 2]);
once('gzip', 'hslL', 'switch');
many('gzip_types gzip_proxied', 'hsl', [1, ANY]);
once('gzip_min_length gzip_comp_level', 'hsl', 1);
once('gzip_vary', 'hsl', 'switch');
accept('minor', 'gzip_disable', 'hsl', [1, ANY]);
accept('buffers', 'gzip_buffers', 'hsl', 2);
once('gzip_http_version', 'hsl', 1);
accept('precompressed', 'gzip_static', 'hsl', 1, /^off$/);
accept('minor', 'gunzip', 'hsl', 'switch');
many('access_log', 'hslLE', [1, ANY]);
many('log_format', 'h', [2, ANY]);
accept('logs', 'error_log', 'hsl', [1, 2]);
accept('logs', 'open_log_file_cache', 'hsl', [1, 4]);
accept('logs', 'log_not_found log_subrequest rewrite_log uninitialized_variable_warn', 'hslSL', 'switch');

// Listening, TLS and connections
accept('protocols', 'http2 http3 http3_hq quic_retry quic_gso', 'hs', 'switch');
accept(
  'protocols',
  'http2_max_concurrent_streams http2_recv_timeout http2_idle_timeout http2_max_requests http2_max_field_size http2_max_header_size http2_chunk_size http2_body_preread_size http3_max_concurrent_streams',
  'hsl',
  1,
);
accept(
  'tls',
  'ssl_certificate ssl_certificate_key ssl_ciphers ssl_dhparam ssl_ecdh_curve ssl_session_timeout ssl_session_ticket_key ssl_trusted_certificate ssl_stapling_file ssl_stapling_responder ssl_buffer_size ssl_password_file',
  'hs',
  1,
);
accept('tls', 'ssl_protocols', 'hs', [1, ANY]);
accept('tls', 'ssl_session_cache ssl_conf_command', 'hs', [1, 2]);
accept(
  'tls',
  'ssl ssl_prefer_server_ciphers ssl_session_tickets ssl_stapling ssl_stapling_verify ssl_early_data',
  'hs',
  'switch',
);
accept('connections', 'keepalive_timeout', 'hslu', [1, 2]);
accept('connections', 'keepalive_requests keepalive_time keepalive_min_timeout', 'hslu', 1);
accept('connections', 'keepalive_disable', 'hsl', [1, 2]);
accept('connections', 'tcp_nodelay tcp_nopush reset_timedout_connection', 'hsl', 'switch');
accept('connections', 'lingering_close lingering_time lingering_timeout', 'hsl', 1);
accept('clients', 'send_timeout client_body_timeout', 'hsl', 1);
accept('clients', 'client_header_timeout client_header_buffer_size', 'hs', 1);
accept('clients', 'large_client_header_buffers', 'hs', 2);
accept('buffers', 'client_body_buffer_size client_body_in_file_only', 'hsl', 1);
accept('buffers', 'client_body_in_single_buffer', 'hsl', 'switch');
accept('buffers', 'chunked_transfer_encoding', 'hsl', 'switch');
accept('buffers', 'sendfile', 'hslL', 'switch');
accept(
  'buffers',
  'aio aio_write sendfile_max_chunk directio directio_alignment read_ahead postpone_output',
  'hsl',
  1,
);
accept('buffers', 'output_buffers', 'hsl', 2);
accept('minor', 'server_tokens if_modified_since max_ranges', 'hsl', 1);
accept('minor', 'msie_padding msie_refresh', 'hsl', 'switch');
accept('minor', 'charset_types', 'hsl', [1, ANY]);
accept('minor', 'override_charset', 'hslL', 'switch');
accept('minor', 'autoindex_exact_size autoindex_localtime', 'hsl', 'switch');
accept('minor', 'autoindex_format', 'hsl', 1, /^html$/);
accept('minor', 'disable_symlinks', 'hsl', [1, 2]);
accept('tables', 'open_file_cache', 'hsl', [1, 2]);
accept('tables', 'open_file_cache_valid open_file_cache_min_uses', 'hsl', 1);
accept('tables', 'open_file_cache_errors', 'hsl', 'switch');
accept(
  'tables',
  'server_names_hash_max_size server_names_hash_bucket_size map_hash_max_size map_hash_bucket_size variables_hash_max_size variables_hash_bucket_size',
  'h',
  1,
);
accept('tables', 'types_hash_max_size types_hash_bucket_size', 'hsl', 1);
accept('tables', 'connection_pool_size request_pool_size', 'hs', 1);
accept('tables', 'subrequest_output_buffer_size', 'hsl', 1);

// Refused
refuse(
  'http events',
  'files of this folder stand inside of nginx.conf, which has these blocks',
  'remove the wrapper and keep what is in it: server, upstream and map blocks',
);
refuse(
  'stream',
  'raw TCP is not said in these files',
  'write the domain with a tcp:// upstream into ROUTING_MAP',
);
refuse('mail', 'mail is not proxied', 'take the block away');
refuse(
  'user worker_processes worker_cpu_affinity worker_connections worker_rlimit_nofile worker_shutdown_timeout pid daemon env load_module master_process multi_accept use pcre_jit',
  'it belongs to nginx.conf, and nginx refuses it here as well',
  'take it away; WORKERS says how many processes serve',
);
refuse(
  'fastcgi_pass uwsgi_pass scgi_pass memcached_pass',
  'only HTTP and gRPC are spoken to upstreams',
  'run a web server in front of the app, and proxy_pass to it',
);
refuse(
  'ssi ssi_types ssi_silent_errors ssi_last_modified',
  'server-side includes are not run',
  'let the app include',
  /^off$/,
);
refuse(
  'sub_filter sub_filter_once sub_filter_types sub_filter_last_modified',
  'bodies pass as they are',
  'let the app write its links; many have a setting for the base URL or path prefix',
);
refuse('mirror mirror_request_body', 'requests are not sent twice', 'take it away', /^off$/);
refuse('slice', 'replies are not cut into slices, as none are cached', 'take it away', /^0$/);
refuse('geo', 'addresses are not looked up in tables', 'use allow and deny, or a map of $remote_addr');
refuse('split_clients', 'shares of clients are said in the routes file', 'write `canary` there');
once('ssl_verify_client ssl_client_certificate ssl_crl ssl_verify_depth', 'hs', 1);
refuse(
  'ssl_ocsp',
  'nobody is asked whether a certificate has been revoked',
  'write ssl_crl with a list of them',
  /^off$/,
);
refuse(
  'ssl_reject_handshake',
  'a name without a certificate is refused in any case',
  'take the server away, if it holds nothing else',
  /^off$/,
);
refuse('proxy_store proxy_store_access', 'replies are not stored', 'take it away', /^off$/);
refuse('proxy_set_body', 'bodies pass as they are', 'let the app take what the client sent');
refuse('add_trailer', 'trailers pass as they are', 'let the app send it');
refuse(
  'proxy_protocol proxy_protocol_timeout',
  'this is of stream blocks',
  'set PROXY_PROTOCOL for the listener',
);
refuse('source_charset charset_map', 'bodies pass as they are', 'let the app convert them');
refuse('limit_zone', 'nginx itself knows it no longer', 'write limit_conn_zone and limit_conn');
refuse('stub_status', 'these numbers are not kept', 'set ADMIN_ADDRESS, which serves metrics');
refuse('valid_referers', 'there is no $invalid_referer', 'write a map of $http_referer');
refuse(
  'secure_link secure_link_md5 secure_link_secret',
  'links are not checked',
  'let the app check them, by auth_request say',
);
refuse('random_index empty_gif flv mp4 hls f4f', 'this module is not here', 'let the app serve it');
refuse('add_before_body add_after_body addition_types', 'bodies pass as they are', 'let the app add it');
refuse('userid', 'cookies of this module are not set', 'let the app set one', /^off$/);

/** Modules that are not here: all that begin so. */
const families: readonly (readonly [RegExp, why: string, cure: string])[] = [
  [
    /^(fastcgi|uwsgi|scgi|memcached)_/,
    'only HTTP and gRPC are spoken to upstreams',
    'run a web server in front of the app, and proxy_pass to it',
  ],
  [
    /(^lua_|_by_lua(_block|_file)?$|^init_by_lua|^opm)/,
    'Lua is not run',
    'let the app or a sub-request (auth_request) decide',
  ],
  [/^(js|perl)(_|$)/, 'scripts are not run', 'let the app or a sub-request (auth_request) decide'],
  [
    /^(geoip2?|maxmind)(_|$)/,
    'places of addresses are not known',
    'let the app look them up, from X-Forwarded-For',
  ],
  [
    /^(dav|create_full_put_path|min_delete_depth)(_|$)/,
    'files are served, not written',
    'let the app take uploads',
  ],
  [
    /^brotli(_|$)/,
    "nginx's image does not have this module either",
    'write `compress` into the routes file, or gzip on',
  ],
  [
    /^(zstd|pagespeed|modsecurity|naxsi|vhost_traffic_status|more_(set|clear))(_|$)/i,
    "nginx's image does not have this module either",
    'take it away; for headers use add_header and proxy_hide_header',
  ],
  [
    /^(xslt|image_filter|userid|ancient_browser|modern_browser)(_|$)/,
    'this module is not here',
    'let the app do it',
  ],
  [
    /^(auth_jwt|api|status_zone|health_check|session_log|keyval|sticky|ntlm|queue|state|match|otel|zone_sync)(_|$)/,
    'this belongs to NGINX Plus or to a module that is not here',
    'write health, balance or forward_auth into the routes file',
  ],
];

/** The word `server` means another thing within an upstream. */
export function directiveRule(name: string, context?: Context): DirectiveRule | undefined {
  const known = rules.get(name === 'server' && context === 'upstream' ? 'upstream/server' : name);
  if (known !== undefined) return known;
  const family = families.find(([pattern]) => pattern.test(name));
  if (family === undefined) return undefined;
  const [, why, cure] = family;
  return {
    contexts: Object.values(letters),
    args: [0, ANY],
    isSwitch: false,
    hasBlock: false,
    many: true,
    handling: { do: 'refuse', why, cure },
  };
}

export function directiveNames(): Iterable<string> {
  return rules.keys();
}
