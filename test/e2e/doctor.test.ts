// The doctor as the image runs it: its exit codes, its JSON, and the demo's set-up, in which it finds nothing.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { examine } from '../../src/commands/doctor.ts';
import { thisDisk } from '../../src/commands/doctor-folders.ts';
import { thisMachine } from '../../src/commands/doctor-machine.ts';
import type { Report } from '../../src/commands/doctor-report.ts';
import { readConfig } from '../../src/config/config.ts';
import { startCertificateAuthority } from '../../src/demo/certificate-authority.ts';
import { routesTo, settingsOf } from '../../src/demo/demo.ts';
import { startSimulatedAgent } from '../../src/demo/simulated-agent.ts';
import { startDemoUpstream } from '../../src/demo/upstream.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { createDoctorWorld } from '../support/doctor-world.ts';
import { runProgram } from '../support/ingress-process.ts';

test('it ends with 0 if nothing is wrong, with 1 if anything is, and with 2 for wrong arguments', async () => {
  await using world = await createDoctorWorld();
  const sound = await runProgram(['doctor', '--json'], world.env);
  const report = JSON.parse(sound.stdout) as Report;
  assert.deepEqual(
    report.findings.filter(({ level }) => level === 'fail'),
    [],
  );
  assert.equal(sound.code, 0);
  const broken = await runProgram(['doctor'], { ...world.env, TARGET_ENDPOINT: 'http://app.invalid:80' });
  assert.equal(broken.code, 1);
  assert.match(broken.stdout, /^fail {2}upstreams {6}http:\/\/app\.invalid:80: /m);
  const mistaken = await runProgram(['doctor', '--json'], { ...world.env, PORT: '0' });
  assert.equal(mistaken.code, 1);
  assert.equal((JSON.parse(mistaken.stdout) as Report).findings[0]?.subject, 'PORT');
  const misused = await runProgram(['doctor', '--wirte'], world.env);
  assert.equal(misused.code, 2);
  assert.match(misused.stderr, /was --write meant\?/);
});

test("in the demo's set-up it finds nothing", async () => {
  await using parts = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'doctor-demo-'));
  parts.defer(() => rm(folder, { recursive: true, force: true }));
  const authority = await startCertificateAuthority({ tlsAlpnPort: 1, folder });
  parts.defer(authority.stop);
  const socketPath = join(folder, 'dstack.sock');
  const agent = await startSimulatedAgent({ socketPath });
  parts.defer(() => agent.close());
  const upstream = await startDemoUpstream();
  parts.defer(upstream.stop);
  const routesFile = join(folder, 'routes.yaml');
  await writeFile(routesFile, routesTo(upstream));
  await mkdir(join(folder, 'state'), { mode: 0o700 });
  const scene = { folder, routesFile, port: 8443, adminPort: 9180, authority, socketPath };
  const config = readConfig(settingsOf(scene));
  const findings = await examine(config, false, {
    machine: thisMachine,
    // The demo keeps nothing, and so needs no volume.
    disk: { ...thisDisk, mounts: async () => '' },
    clock: systemClock,
    timeoutMs: 20_000,
  });
  assert.deepEqual(
    findings.filter(({ level }) => level !== 'ok'),
    [],
  );
});
