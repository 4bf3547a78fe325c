// What the arguments of directives without effect must be: nginx would not start with others, and a slip may hide another.

interface ArgumentForm {
  readonly pattern: RegExp;
  /** What is wanted. */
  readonly words: string;
}

const time: ArgumentForm = { pattern: /^(\d+(ms|[yMwdhms])?)+$/, words: 'a time as in 60s' };
const size: ArgumentForm = { pattern: /^\d+[kmg]?$/i, words: 'a size as in 16k' };
const count: ArgumentForm = { pattern: /^\d+$/, words: 'a whole number' };

function choice(words: string): ArgumentForm {
  return {
    pattern: new RegExp(`^(${words.replaceAll(' ', '|')})$`),
    words: `some of ${words.replaceAll(' ', ', ')}`,
  };
}

const levels = 'info notice warn error';
const tlsVersions = choice('SSLv2 SSLv3 TLSv1 TLSv1\\.1 TLSv1\\.2 TLSv1\\.3');
const ignored = choice(
  'X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset Expires Cache-Control Set-Cookie Vary',
);
const staleOn = choice(
  'error timeout invalid_header updating http_403 http_404 http_429 http_500 http_502 http_503 http_504 off',
);

const byName = new Map<string, ArgumentForm>();

function wants(type: ArgumentForm, names: string): void {
  for (const name of names.split(' ')) byName.set(name, type);
}

wants(
  time,
  'send_timeout client_body_timeout client_header_timeout resolver_timeout keepalive_timeout keepalive_time',
);
wants(time, 'keepalive_min_timeout lingering_time lingering_timeout open_file_cache_valid auth_delay');
wants(time, 'ssl_session_timeout proxy_cache_lock_timeout proxy_cache_lock_age');
wants(
  size,
  'client_header_buffer_size client_body_buffer_size large_client_header_buffers connection_pool_size',
);
wants(size, 'request_pool_size subrequest_output_buffer_size postpone_output read_ahead sendfile_max_chunk');
wants(
  size,
  'directio_alignment output_buffers gzip_buffers proxy_buffers proxy_buffer_size grpc_buffer_size',
);
wants(size, 'proxy_busy_buffers_size proxy_max_temp_file_size proxy_temp_file_write_size proxy_send_lowat');
wants(size, 'proxy_cache_max_range_offset ssl_buffer_size');
wants(
  { pattern: /^(\d+[kmg]?|\$.*)$/i, words: 'a size as in 1m' },
  'limit_rate limit_rate_after proxy_limit_rate',
);
wants({ pattern: /^(\d+[kmg]?|off)$/i, words: 'a size or off' }, 'directio');
wants(count, 'keepalive keepalive_requests max_ranges open_file_cache_min_uses proxy_cache_min_uses');
wants(
  count,
  'server_names_hash_max_size server_names_hash_bucket_size map_hash_max_size map_hash_bucket_size',
);
wants(count, 'variables_hash_max_size variables_hash_bucket_size types_hash_max_size types_hash_bucket_size');
wants(count, 'proxy_headers_hash_max_size proxy_headers_hash_bucket_size');
wants(count, 'ssl_verify_depth proxy_ssl_verify_depth grpc_ssl_verify_depth');
wants(choice('off on always'), 'lingering_close gzip_static');
wants(choice('off on clean'), 'client_body_in_file_only');
wants(choice('off on'), 'aio_write');
wants(choice('on off threads=?.*'), 'aio');
wants(choice('off on build'), 'server_tokens');
wants(choice('off exact before'), 'if_modified_since');
wants(choice('none msie6 safari'), 'keepalive_disable');
wants(choice('html xml json jsonp'), 'autoindex_format');
wants(choice('1\\.0 1\\.1'), 'gzip_http_version');
wants(choice('1\\.0 1\\.1 2'), 'proxy_http_version');
wants(choice('GET HEAD POST'), 'proxy_cache_methods');
wants(choice(levels), 'limit_req_log_level limit_conn_log_level');
wants(tlsVersions, 'ssl_protocols proxy_ssl_protocols grpc_ssl_protocols');
wants(ignored, 'proxy_ignore_headers grpc_ignore_headers');
wants(staleOn, 'proxy_cache_use_stale');
wants({ pattern: /^(off|max=\d+|inactive=\S+)$/, words: 'off, or max= and inactive=' }, 'open_file_cache');
wants(
  { pattern: /^(on|off|if_not_owner|from=\S+)$/, words: 'on, off, if_not_owner or from=' },
  'disable_symlinks',
);

/** Undefined: any text will do. */
export function argumentForm(directive: string): ArgumentForm | undefined {
  return byName.get(directive);
}
