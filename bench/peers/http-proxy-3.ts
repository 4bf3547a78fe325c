// A proxy made of http-proxy-3, with connections to the upstream kept.

import { Agent } from 'node:http';
import { createProxyServer } from 'http-proxy-3';
import { listen, readSettings } from './node-server.ts';

const settings = readSettings();
const agent = new Agent({ keepAlive: true, maxFreeSockets: 512 });
const proxy = createProxyServer({
  target: { host: '127.0.0.1', port: settings.target },
  xfwd: true,
  agent,
});
proxy.on('error', (error, _request, response) => {
  process.stderr.write(`${error.message}\n`);
  response.destroy();
});

const server = listen(settings);
server.on('request', (request, response) => proxy.web(request as never, response as never));
server.on('upgrade', (request, socket, head) => proxy.ws(request, socket, head));
