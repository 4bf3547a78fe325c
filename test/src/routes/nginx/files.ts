// Files as people mount them: written here, after what self-hosted apps and TEE deployments have.

const proxied = `
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;`;

const tls = `
    listen 443 ssl http2;
    listen [::]:443 ssl http2;
    ssl_certificate /etc/letsencrypt/live/app.example.com/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/app.example.com/privkey.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:SSL:10m;`;

const upgrade = `
map $http_upgrade $connection_upgrade {
    default upgrade;
    ''      close;
}
`;

/** By the name of what they are for. Each is a whole folder. */
export const realFiles: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'the single-domain file of 1.x images': {
    'default.conf': `
server {
    listen 443 ssl;
    http2 on;
    server_name app.example.com;
    ssl_certificate /etc/letsencrypt/live/app.example.com/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/app.example.com/privkey.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256;
    ssl_prefer_server_ciphers on;
    ssl_session_cache shared:SSL:10m;
    ssl_session_timeout 1d;
    ssl_stapling on;
    ssl_stapling_verify on;
    resolver 8.8.8.8 8.8.4.4 valid=300s;
    resolver_timeout 5s;
    location / {
        proxy_pass http://app:8080;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
    }
    location /evidences/ {
        alias /evidences/;
        autoindex on;
    }
}
`,
  },
  'several domains with backups and limits': {
    '00-maps.conf': `${upgrade}
map $host $backend {
    hostnames;
    default         web_pool;
    api.example.com api_pool;
}
upstream web_pool { server web-a:3000 max_fails=3 fail_timeout=30s; server web-b:3000 backup; keepalive 32; }
upstream api_pool { hash $http_authorization consistent; server api-a:8000; server api-b:8000; }
limit_req_zone $binary_remote_addr zone=perip:10m rate=20r/s;
limit_conn_zone $binary_remote_addr zone=conns:10m;
log_format json escape=json '{"time":"$time_iso8601","status":"$status","uri":"$request_uri"}';
`,
    '10-web.conf': `
server {${tls}
    server_name app.example.com ~^app-i\\d+\\.example\\.com$;
    access_log /var/log/nginx/access.log json;
    client_max_body_size 100m;
    keepalive_timeout 1h;
    keepalive_requests 1000000;
    error_page 502 503 504 @down;
    location / {
        limit_req zone=perip burst=40 nodelay;
        limit_req_status 429;
        limit_conn conns 20;
        proxy_pass http://$backend;${proxied}
        proxy_read_timeout 3600s;
        proxy_send_timeout 3600s;
        proxy_buffering off;
        proxy_cache off;
        proxy_next_upstream error timeout http_502 http_503;
    }
    location = /health { return 200 'ok'; }
    location ~ /\\.(git|env) { deny all; return 404; }
    location @down {
        default_type application/json;
        return 503 '{"error":"down"}';
    }
}
server {
    listen 80 default_server;
    server_name _;
    location /.well-known/acme-challenge/ { root /var/www/certbot; }
    location / { return 301 https://$host$request_uri; }
}
`,
    '20-default.conf': `
server {${tls}
    server_name _;
    return 444;
}
`,
  },
  'gRPC and HTTP of one name': {
    'grpc.conf': `
server {
    listen 443 ssl http2;
    server_name grpc.example.com;
    client_body_timeout 1h;
    location /my.package.Service/ {
        grpc_pass grpc://grpc:50051;
        grpc_read_timeout 1h;
        grpc_set_header X-Real-IP $remote_addr;
    }
    location / { proxy_pass http://rest:8080; }
}
`,
  },
  'a cloud of files with PHP behind a web server of its own': {
    'cloud.conf': `${upgrade}
server {${tls}
    server_name cloud.example.com;
    client_max_body_size 10G;
    client_body_timeout 300s;
    add_header Strict-Transport-Security "max-age=15768000; includeSubDomains" always;
    add_header X-Content-Type-Options "nosniff" always;
    gzip on;
    gzip_vary on;
    gzip_comp_level 4;
    gzip_min_length 256;
    gzip_proxied expired no-cache no-store private no_last_modified no_etag auth;
    gzip_types application/json text/css text/plain image/svg+xml;
    location = /robots.txt { allow all; log_not_found off; access_log off; return 200 "User-agent: *\\nDisallow: /\\n"; }
    location ^~ /.well-known {
        location = /.well-known/carddav { return 301 /remote.php/dav/; }
        location = /.well-known/caldav  { return 301 /remote.php/dav/; }
        return 301 /index.php$request_uri;
    }
    location ~ ^/(?:build|tests|config|lib|3rdparty|templates|data)(?:$|/) { return 404; }
    location ~ \\.(?:css|js|svg|gif|png|jpg|ico|wasm|tflite|map)$ {
        proxy_pass http://cloud:80;${proxied}
        expires 6M;
        access_log off;
    }
    location / {
        if ( $http_user_agent ~ ^DavClnt ) { return 302 /remote.php/webdav/$is_args$args; }
        rewrite ^/old/(.*)$ /new/$1 permanent;
        proxy_pass http://cloud:80;${proxied}
        proxy_request_buffering off;
        proxy_max_temp_file_size 0;
    }
}
`,
  },
  'a chat server with federation': {
    'matrix.conf': `
server {${tls}
    listen 8448 ssl default_server;
    server_name matrix.example.com;
    location ~ ^(/_matrix|/_synapse/client) {
        proxy_pass http://synapse:8008;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header Host $host:$server_port;
        client_max_body_size 50M;
        proxy_http_version 1.1;
    }
    location /.well-known/matrix/server {
        default_type application/json;
        add_header Access-Control-Allow-Origin *;
        return 200 '{"m.server": "matrix.example.com:443"}';
    }
}
`,
  },
  'a media server': {
    'media.conf': `
server {${tls}
    server_name media.example.com;
    set $jellyfin media;
    resolver 127.0.0.11 valid=30;
    client_max_body_size 20M;
    add_header X-Frame-Options "SAMEORIGIN";
    add_header Content-Security-Policy "default-src https: data: blob: http://image.tmdb.org; style-src 'self' 'unsafe-inline'";
    location = / { return 302 http://$host/web/; }
    location / {
        proxy_pass http://$jellyfin:8096;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-Protocol $scheme;
        proxy_buffering off;
    }
    location = /web/ {
        proxy_pass http://$jellyfin:8096/web/index.html;
    }
    location /socket {
        proxy_pass http://$jellyfin:8096;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
    }
}
`,
  },
  'single sign-on by sub-requests': {
    'auth.conf': `
server {${tls}
    server_name secure.example.com;
    set $upstream_authelia http://authelia:9091/api/authz/auth-request;
    include /etc/nginx/conf.d/snippets/location.inc;
    location / {
        include /etc/nginx/conf.d/snippets/request.inc;
        proxy_pass http://app:8080;
    }
}
`,
    'snippets/location.inc': `
location /internal/auth {
    internal;
    proxy_pass $upstream_authelia;
    proxy_set_header X-Original-Method $request_method;
    proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
    proxy_set_header Content-Length "";
    proxy_set_header Connection "";
    proxy_pass_request_body off;
    proxy_next_upstream error timeout invalid_header http_500 http_502 http_503;
    proxy_redirect http:// $scheme://;
    proxy_cache_bypass $cookie_session;
    proxy_no_cache $cookie_session;
    proxy_buffers 4 32k;
    client_body_buffer_size 128k;
}
`,
    'snippets/request.inc': `
auth_request /internal/auth;
auth_request_set $user $upstream_http_remote_user;
auth_request_set $groups $upstream_http_remote_groups;
auth_request_set $redirection_url $upstream_http_location;
proxy_set_header Remote-User $user;
proxy_set_header Remote-Groups $groups;
error_page 401 =302 $redirection_url;
`,
  },
  'a single-page app beside its API': {
    'spa.conf': `
server {
    listen 80;
    server_name spa.example.com;
    root /usr/share/nginx/html;
    index index.html;
    location / { try_files $uri $uri/ /index.html; }
    location /assets/ { expires 1y; add_header Cache-Control "public, immutable"; }
    location /api/ {
        if ($request_method = 'OPTIONS') {
            add_header 'Access-Control-Allow-Origin' '*';
            add_header 'Access-Control-Max-Age' 1728000;
            add_header 'Content-Length' 0;
            return 204;
        }
        proxy_pass http://api:3000/;
        proxy_redirect off;
    }
    location /admin {
        auth_basic "Admin";
        auth_basic_user_file /etc/nginx/conf.d/admin.htpasswd;
        satisfy any;
        allow 10.0.0.0/8;
        deny all;
        proxy_pass http://api:3000;
    }
}
`,
    'admin.htpasswd':
      'admin:$apr1$abcdefgh$abcdefghijklmnopqrstu.\n# nobody\nother:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n',
  },
  'a proxy behind a load balancer': {
    'lb.conf': `
set_real_ip_from 10.0.0.0/8;
real_ip_header X-Forwarded-For;
real_ip_recursive on;
server {${tls}
    server_name api.example.com;
    proxy_ssl_server_name on;
    location /v1/ { rewrite ^/v1/(.*)$ /$1 break; proxy_pass https://backend.example.net; proxy_set_header Host backend.example.net; }
    location /v2/ { proxy_pass https://backend.example.net/; proxy_cookie_path / "/; Secure; HttpOnly"; }
    location /only-get { limit_except GET { deny all; } proxy_pass http://app:8080; }
}
`,
  },
};
