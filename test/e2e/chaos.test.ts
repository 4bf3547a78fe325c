// Load that goes on while parts are killed, swapped and reloaded: only what was in flight on the killed part may fail.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startDemoUpstream } from '../../src/demo/upstream.ts';
import { type Load, startLoad } from '../support/load.ts';
import { startNginx } from '../support/nginx.ts';
import { freePort } from '../support/ports.ts';
import { createWorld, servedSerial, type World } from '../support/world.ts';

const domain = 'app.example.com';

interface Stage {
  readonly world: World;
  readonly ingress: ReturnType<World['start']>;
  readonly target: { port: number; servername: string; ca: string };
  readonly routes: string;
  readonly nginxPort: number;
  restartNginx(): Promise<void>;
}

async function staged(act: (stage: Stage) => Promise<void>): Promise<void> {
  await using world = await createWorld({ nonceRejectPercent: 0 });
  const apps = await startDemoUpstream();
  const nginxPort = await freePort();
  const serveNginx = () =>
    startNginx({ port: nginxPort, server: 'location = / { return 200 "from nginx"; }' });
  let nginx = await serveNginx();
  const routes = join(world.folder, 'routes.yaml');
  await writeFile(routes, routesText(apps.grpcPort, apps.httpPort, nginxPort));
  const ingress = world.start({
    ROUTES_FILE: routes,
    CHALLENGE_TYPE: 'tls-alpn-01',
    DNS_SETUP_MODE: 'print',
  });
  try {
    await ingress.waitFor('ready');
    await act({
      world,
      ingress,
      routes,
      nginxPort,
      target: { port: world.port, servername: domain, ca: await world.roots() },
      async restartNginx() {
        await nginx.stop();
        await new Promise((resolve) => setTimeout(resolve, 300));
        nginx = await serveNginx();
      },
    });
  } finally {
    await ingress.stop();
    await nginx.stop();
    await apps.stop();
  }
}

function routesText(grpc: number, web: number, nginx: number): string {
  return `routes:
  - host: ${domain}
    paths:
      - prefix: /demo.Echo/
        upstream: grpc://127.0.0.1:${grpc}
      - prefix: /ws
        upstream: http://127.0.0.1:${web}
      - prefix: /
        upstream: http://127.0.0.1:${nginx}
`;
}

/** Pids of the worker processes: children of the program. */
function workersOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((entry) => {
      try {
        const stat = readFileSync(`/proc/${entry}/stat`, 'latin1');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === pid;
      } catch {
        return false;
      }
    })
    .map(Number);
}

async function during(
  stage: Stage,
  act: () => Promise<void>,
  kinds?: Parameters<typeof startLoad>[0]['kinds'],
): Promise<Load> {
  const load = startLoad({ ...stage.target, expected: 'from nginx', ...(kinds && { kinds }) });
  await load.more(30);
  await act();
  await load.more(30);
  await load.stop();
  return load;
}

test('a worker killed under load costs only what it was carrying, and is replaced', async () => {
  await staged(async (stage) => {
    const [victim] = workersOf(stage.ingress.pid);
    const load = await during(stage, async () => {
      process.kill(victim!, 'SIGKILL');
      await stage.ingress.waitFor('worker died, replacing it');
    }, ['h1', 'h2', 'grpc']);
    // Four lanes of each kind: no lane can have lost more than what it had in flight, and a connect to a dead queue.
    assert.ok(load.failures.length <= 24, load.failures.join('\n'));
    // The line comes before the process: on a busy machine the load may be over in between.
    const replaced = () => workersOf(stage.ingress.pid).length === 2;
    for (let look = 0; look < 100 && !replaced(); look++) await sleep(50);
    assert.ok(replaced());
    assert.ok(!workersOf(stage.ingress.pid).includes(victim!));
  });
});

test('an upstream that restarts is answered for with 502 while it is gone, and found again at once', async () => {
  await staged(async (stage) => {
    const load = await during(stage, stage.restartNginx);
    for (const failure of load.failures) assert.match(failure, /^h[12]: status 50[234]/);
    assert.ok(load.failures.length > 0, 'the restart was seen');
  });
});

test('swapped certificates and reloaded routes cost nothing', async () => {
  await staged(async (stage) => {
    const before = await servedSerial(stage.target);
    const load = await during(stage, async () => {
      const known = stage.ingress.log.length;
      stage.ingress.kill('SIGUSR2');
      const { routes } = stage;
      for (let i = 0; i < 3; i++) {
        await writeFile(routes, `${readFileSync(routes, 'utf8')}# ${i}\n`);
        stage.ingress.kill('SIGHUP');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      await stage.ingress.waitFor('certificate obtained', (line) => stage.ingress.log.indexOf(line) >= known);
    });
    assert.deepEqual(load.failures, []);
    assert.notEqual(await servedSerial(stage.target), before);
  });
});

test('SIGTERM under load lets every answer finish, then refuses connections', async () => {
  await staged(async (stage) => {
    const load = startLoad({ ...stage.target, expected: 'from nginx' });
    await load.more(30);
    stage.ingress.kill('SIGTERM');
    const { code } = await stage.ingress.exited;
    await load.stop();
    assert.equal(code, 0);
    // Nothing that was accepted may be cut short: what fails afterwards fails to connect, or was told to go away.
    const cut = load.failures.filter(
      (failure) =>
        !/ECONNREFUSED|ECONNRESET|socket disconnected|UNAVAILABLE|WebSocket|session|GOAWAY/i.test(failure),
    );
    assert.deepEqual(cut, []);
  });
});
