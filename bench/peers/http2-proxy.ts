// A proxy made of http2-proxy, with connections to the upstream kept.

import { Agent, request as httpRequest } from 'node:http';
import proxy from 'http2-proxy';
import { listen, readSettings } from './node-server.ts';

const settings = readSettings();
const agent = new Agent({ keepAlive: true, maxFreeSockets: 512 });
const upstream = {
  hostname: '127.0.0.1',
  port: settings.target,
  onReq: (_request: unknown, options: object) => httpRequest({ ...options, agent }),
};
const report = (error: Error | null) => {
  if (error) process.stderr.write(`${error.message}\n`);
};

const server = listen(settings);
server.on('request', (request, response) => {
  proxy.web(request as never, response as never, upstream as never, (error: Error | null) => {
    report(error);
    if (error) response.destroy();
  });
});
server.on('upgrade', (request, socket, head) => {
  proxy.ws(
    request as never,
    socket as never,
    head,
    { hostname: '127.0.0.1', port: settings.target } as never,
    (error: Error | null) => {
      report(error);
      if (error) socket.destroy();
    },
  );
});
