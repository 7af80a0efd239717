import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isSettled, type Job, type Service } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeCertificate, type OwnCertificate } from './certificate-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { writeServedApp } from './oip-fixture.ts';
import { identity, type PeerModel, startGrpcPeer } from './oip-peer.ts';
import { encode, phantom } from './phantom.ts';
import { startServing } from './serving.ts';
import { temporaryFolder } from './test-server.ts';

/* Commands with apps whose models are on a model server: what they permit, what they say, and that keys stay where they belong. */

let folder: string;
let scan: string;
let certificate: OwnCertificate;
beforeAll(async () => {
  folder = await temporaryFolder();
  scan = join(folder, 'scan.nii');
  await writeFile(scan, await encode(phantom(), 'nii'));
  certificate = await makeCertificate(folder, { names: ['localhost', '127.0.0.1'] });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const threshold = {
  preprocess: [{ scaleIntensityRange: { aMin: 0, aMax: 1000, bMin: 0, bMax: 1 } }],
  postprocess: [{ threshold: { above: 0.2 } }, 'restore'],
};
const secret = 'k3y-Of-The-Model-Server';

/** Everything that other users of the machine can read of processes: their arguments. */
async function argumentsOfProcesses(): Promise<string> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name)))
    found.push(await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''));
  return found.join('\n');
}

async function textsBelow(path: string): Promise<string> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return (await Promise.all(files.map((file) => readFile(file, 'latin1')))).join('\n');
}

async function predict(server: string, service: string): Promise<Job> {
  const form = new FormData();
  form.append('volume', new File([await readFile(scan)], 'scan.nii'));
  const body = { method: 'POST', body: form };
  const response = await fetch(`${server}/api/services/${service}/predictions`, body);
  let job = (await response.json()) as Job;
  await expect
    .poll(
      async () => {
        job = (await (await fetch(`${server}/api/jobs/${job.id}`)).json()) as Job;
        return isSettled(job);
      },
      { timeout: 60_000 },
    )
    .toBe(true);
  return job;
}

describe('tomaat serve', { timeout: 180_000 }, () => {
  it('uses a key from its settings, which is nowhere to be read', async () => {
    const answer: PeerModel = {
      async infer(input) {
        expect(await argumentsOfProcesses()).not.toContain(secret);
        return { ...input, name: 'scores' };
      },
    };
    await using peer = await startGrpcPeer(
      { net: answer },
      { tls: certificate, authorization: `Bearer ${secret}` },
    );
    const name = `localhost:${peer.port}`;
    const app = await writeServedApp(folder, 'keyed', { url: `grpcs://${name}`, model: 'net' }, threshold);
    const data = join(folder, 'data-keyed');
    await using serving = await startServing(
      ['serve', app, '--data', data, '--ca', certificate.cert, '--log-level', 'trace'],
      { env: { TOMAAT_MODEL_SERVER_KEYS: `other.example:8001=zzz\n${name}=${secret}` } },
    );
    const { server } = serving.addresses;
    expect((await predict(server, 'keyed')).state).toBe('succeeded');
    expect(peer.calls.at(-1)?.authorization).toBe(`Bearer ${secret}`);
    await peer.kill();
    const failed = await predict(server, 'keyed');
    expect(failed).toMatchObject({ state: 'failed', error: { code: 'UNREACHABLE' } });
    const card = await (await fetch(`${server}/api/services/keyed`)).text();
    const metrics = await (await fetch(`${server}/metrics`)).text();
    expect(serving.log()).toContain('prediction done');
    for (const text of [serving.log(), card, metrics, JSON.stringify(failed)])
      expect(text).not.toContain(secret);
    await serving.stop();
    expect(await textsBelow(data)).not.toContain(secret);
  });

  it('starts while the model server is away, says so, and its jobs succeed once it is there', async () => {
    const first = await startGrpcPeer({ net: identity });
    const { port } = first;
    await first.kill();
    const app = await writeServedApp(
      folder,
      'early',
      { url: `grpc://127.0.0.1:${port}`, model: 'net' },
      threshold,
    );
    await using serving = await startServing(['serve', app, '--data', join(folder, 'data-early')]);
    const { server } = serving.addresses;
    // The log comes through another pipe than the addresses.
    await expect
      .poll(() => serving.log())
      .toMatch(/"away":"The model net at grpc:\/\/127\.0\.0\.1:\d+ cannot be reached/);
    expect(serving.log()).toContain('app not verified: its model server gave no answer');
    const { processing } = (await (await fetch(`${server}/api/services/early`)).json()) as Service;
    expect(processing).not.toHaveProperty('modelServers');
    expect((await predict(server, 'early')).error?.code).toBe('UNREACHABLE');
    {
      await using _peer = await startGrpcPeer({ net: identity }, { port });
      expect((await predict(server, 'early')).state).toBe('succeeded');
    }
    // The child keeps its model, and has to connect again.
    await using _again = await startGrpcPeer({ net: identity }, { port });
    expect((await predict(server, 'early')).state).toBe('succeeded');
  });

  it('does not start with a model server that is not permitted, and names the flag', async () => {
    const url = 'grpc://192.0.2.7:8001';
    const app = await writeServedApp(folder, 'forbidden', { url, model: 'net' }, threshold);
    const { code, stderr } = await tomaat([
      ...['serve', app, '--port', '0', '--tls-port', '0', '--data', join(folder, 'data-forbidden')],
    ]);
    expect(code).not.toBe(0);
    expect(stderr).toContain('The app forbidden cannot be served');
    expect(stderr).toContain('--allow-net 192.0.2.7/32');
  });

  it('says on the card that another machine gets the voxels', async () => {
    const url = 'grpc://192.0.2.7:8001';
    const app = await writeServedApp(folder, 'distant', { url, model: 'net', timeoutSeconds: 1 }, threshold);
    const data = join(folder, 'data-distant');
    await using serving = await startServing([
      ...['serve', app, '--data', data, '--allow-net', '192.0.2.0/24', '--allow-identity', 'local'],
    ]);
    const card = (await (await fetch(`${serving.addresses.server}/api/services/distant`)).json()) as Service;
    expect(card.processing).toMatchObject({ modelServers: ['192.0.2.7:8001'], identity: 'refused' });
  });
});

describe('tomaat check and run', { timeout: 120_000 }, () => {
  it('try a model server, with the settings that it needs', async () => {
    await using peer = await startGrpcPeer(
      { net: identity },
      { tls: certificate, authorization: `Bearer ${secret}` },
    );
    const name = `localhost:${peer.port}`;
    const app = await writeServedApp(folder, 'tried', { url: `grpcs://${name}`, model: 'net' }, threshold);
    const env = { TOMAAT_MODEL_SERVER_KEYS: `${name}=${secret}` };
    const refused = await tomaat(['check', app, '--ca', certificate.cert]);
    expect(refused.code).toBe(1);
    expect(refused.stdout).toContain(`Add a line ${name}=KEY to the setting modelServerKeys`);
    const checked = await tomaat(['check', app, '--ca', certificate.cert], { env });
    expect(checked.stdout).toMatch(
      /ok +model: net at grpcs:\/\/localhost:\d+: 1 × 1 × 32 × 32 × 32 → 1 class/,
    );
    expect(checked.code).toBe(0);
    const out = join(folder, 'labels.nii');
    const run = await tomaat(['run', app, '--volume', scan, '-o', out, '--ca', certificate.cert], { env });
    expect(run.code).toBe(0);
    for (const { stdout, stderr } of [refused, checked, run]) expect(stdout + stderr).not.toContain(secret);
    await peer.kill();
    const away = await tomaat(['check', app, '--ca', certificate.cert], { env });
    expect(away.code).toBe(1);
    expect(away.stdout).toMatch(/WRONG +model: .*cannot be reached/);
  });

  it('a wrong line of modelServerKeys is refused without repeating it', async () => {
    const app = await writeServedApp(
      folder,
      'bad-line',
      { url: 'grpc://localhost:1', model: 'net' },
      threshold,
    );
    const { code, stderr } = await tomaat(['check', app], { env: { TOMAAT_MODEL_SERVER_KEYS: secret } });
    expect(code).not.toBe(0);
    expect(stderr).toContain('TOMAAT_MODEL_SERVER_KEYS: must be HOST:PORT=KEY');
    expect(stderr).not.toContain(secret);
  });
});
