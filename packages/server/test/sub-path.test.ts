import { readdirSync, readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createClient, createRegistryClient } from '@tomaat/client';
import { readSegmentationFile, readVolume, sourceFromBytes } from '@tomaat/core';
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { codeBlocks, readText } from '../../../test/documents.ts';
import { findNginx } from '../../../test/programs.ts';
import { freePort, type RunningProxy, startNginx } from '../../../test/proxies.ts';
import { writeSeries } from '../../../test/write-series.ts';
import { zipOf } from '../../core/test/zip-files.ts';
import { trustEverywhere } from '../src/cli/connect.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { startAnnouncer } from '../src/registry/announcer.ts';
import { type RunningRegistry, startRegistry } from '../src/registry/start.ts';
import { openCertificate } from '../src/tls.ts';
import { remoteSource } from '../src/worker/remote-source.ts';
import { makeKey } from './access-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { openLoginApp, settingsOf } from './login-app.ts';
import { openOidcProvider } from './oidc-provider.ts';
import { encode, phantom } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

const logger = pino({ level: process.env.TEST_LOG ?? 'silent' });
/** The block of the guide. */
const inGuide = codeBlocks(readText('docs/guides/run-a-server.md')).find(
  ({ language }) => language === 'nginx',
)!.text;

/** One certificate for all: what Node trusts besides its own list counts from before its first connection. */
let certificates: string;
let pem: string;
beforeAll(async () => {
  certificates = await temporaryFolder();
  pem = (await openCertificate(certificates, { host: '127.0.0.1' })).certFile;
  await trustEverywhere(pem);
});
afterAll(() => rm(certificates, { recursive: true, force: true }));

describe.skipIf(!findNginx()).each([
  { what: 'leaves it on', slash: '' },
  { what: 'takes it off', slash: '/' },
])('below a path of https://…, with an nginx that $what', ({ slash }) => {
  let folder: string;
  let nginx: RunningProxy;
  let server: TestServer;
  let registry: RunningRegistry;
  /** Public addresses of both. */
  let base: string;
  let registryBase: string;
  let scan: Buffer<ArrayBuffer>;
  const closers: (() => Promise<unknown>)[] = [];

  beforeAll(async () => {
    folder = await temporaryFolder();
    const [port, registryPort] = [await freePort(), await freePort()];
    nginx = await startNginx((place) => {
      const block = inGuide
        .replace('listen 443 ssl', `listen 127.0.0.1:${place.port} ssl`)
        .replace('/etc/ssl/hospital.pem', pem)
        .replace('/etc/ssl/hospital.key', join(certificates, 'tomaat.key'));
      const location = (path: string, to: number) =>
        /location [\s\S]*?\n {4}\}/
          .exec(block)![0]
          .replace('/tomaat/', path)
          .replace('http://127.0.0.1:9000', `http://127.0.0.1:${to}${slash}`);
      return block.replace(
        /location [\s\S]*?\n {4}\}/,
        location('/tomaat/', port) + location('/find/', registryPort),
      );
    }, 'https');
    base = `${nginx.url}/tomaat`;
    registryBase = `${nginx.url}/find`;
    server = await startTestServer(['threshold', 'ct-lung'], { port, strictPort: true, publicUrl: base });
    registry = await startRegistry({
      host: '127.0.0.1',
      port: registryPort,
      strictPort: true,
      dataFolder: join(folder, 'registry'),
      publicUrl: registryBase,
      logger: false,
    });
    const announcer = startAnnouncer({
      registryUrl: registryBase,
      apiKey: await registry.apiKey('test'),
      services: () => server.announcements(),
      signer: server.signer,
      logger,
    });
    closers.push(() => announcer.close());
    await announcer.firstRound;
    scan = Buffer.from(await encode(phantom(), 'nii.gz'));
    await writeFile(join(folder, 'scan.nii.gz'), scan);
  });
  afterAll(async () => {
    for (const close of closers) await close();
    await registry?.close();
    await server?.[Symbol.asyncDispose]();
    await nginx?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  const send = (address: string, init: RequestInit = {}) =>
    fetch(address, {
      method: 'POST',
      body: scan,
      ...init,
      headers: { 'content-type': 'application/octet-stream', ...init.headers },
    });
  /** Where a browser or client goes to by what an answer names. */
  const follow = (from: Response, address: string | null | undefined) =>
    new URL(address ?? '-', from.url).href;

  it('jobs, their outputs and samples are where the answers say', async () => {
    const created = await send(`${base}/api/services/threshold/predictions`, {
      headers: { prefer: 'wait=60' },
    });
    expect(created.status, await created.clone().text()).toBe(200);
    const location = follow(created, created.headers.get('location'));
    expect(location.startsWith(`${base}/api/jobs/`)).toBe(true);
    const job = await (await fetch(location)).json();
    expect(job.state).toBe('succeeded');
    for (const output of job.outputs)
      expect((await fetch(follow(created, output.url))).status, output.url).toBe(200);
    const lung = await fetch(`${base}/api/services/ct-lung`);
    const sample = await fetch(follow(lung, (await lung.json()).sample));
    expect(sample.status).toBe(200);
    await sample.body?.cancel();
  });

  it('an upload continues at its Location, even if a client prefixes the base', async () => {
    const tus = { 'tus-resumable': '1.0.0' };
    for (const join of [
      (answer: Response, location: string) => follow(answer, location),
      (_answer: Response, location: string) => base + location,
    ]) {
      const begun = await fetch(`${base}/api/uploads`, {
        method: 'POST',
        headers: { ...tus, 'upload-length': String(scan.length) },
      });
      const address = join(begun, begun.headers.get('location')!);
      const sent = await fetch(address, {
        method: 'PATCH',
        body: scan,
        headers: { ...tus, 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' },
      });
      expect(sent.status).toBe(204);
      const head = await fetch(address, { method: 'HEAD', headers: tus });
      expect(head.headers.get('upload-offset')).toBe(String(scan.length));
    }
  });

  it('our client uploads, follows the events and fetches the result', async () => {
    const client = createClient({ baseUrl: base });
    expect((await client.services()).map(({ id }) => id)).toEqual(['threshold', 'ct-lung']);
    const upload = await client.upload(new File([scan], 'scan.nii.gz'));
    const job = await client.predict('threshold', { volumes: { volume: upload! } });
    const settled = await client.wait(job.id);
    expect(settled.state).toBe('succeeded');
    expect((await client.output(job.id, 'segmentation')).sizeBytes).toBeGreaterThan(0);
  });

  it('the command line predicts by the address, and by name through the registry', async () => {
    const volume = ['--volume', join(folder, 'scan.nii.gz'), '--ca', pem, '--data', join(folder, 'user')];
    const direct = await tomaat([
      'predict',
      `${base}/services/threshold`,
      ...volume,
      '-o',
      join(folder, 'direct.nii.gz'),
    ]);
    expect(direct.code, direct.stderr).toBe(0);
    const named = await tomaat([
      'predict',
      'threshold/any',
      '--registry',
      registryBase,
      ...volume,
      '-o',
      join(folder, 'named.nii.gz'),
    ]);
    expect(named.code, named.stderr).toBe(0);
  });

  it('a worker elsewhere finds it', async () => {
    const source = remoteSource({
      serverUrl: base,
      token: (await makeKey(server.dataFolder, ['worker'])).key,
      name: 'worker-1',
      versions: new Map(),
      logger,
    });
    const { services } = await source.greet(AbortSignal.timeout(10_000));
    expect(services.map(({ id }) => id)).toEqual(['threshold', 'ct-lung']);
  });

  it('the registry lists the public addresses and passes predictions on', async () => {
    const entries = await createRegistryClient({ baseUrl: registryBase }).discover();
    expect(entries.map(({ serverUrl }) => serverUrl)).toEqual([base, base]);
    const [listed] = await (await fetch(`${registryBase}/discover`)).json();
    expect(listed.prediction_url.startsWith(`${base}/services/`)).toBe(true);
    const relayed = await send(`${registryBase}/threshold/any`);
    expect(relayed.status, await relayed.clone().text()).toBe(200);
    expect(relayed.headers.get('tomaat-server')).toBe(base);
  });

  it('the registry passes a zip of a DICOM series on, and a segmentation back', async () => {
    const app = fileURLToPath(new URL('../../../apps/ct-lung/', import.meta.url));
    const series = join(folder, 'series');
    await writeSeries(join(app, 'sample.nii.gz'), series, [7]);
    const entries = readdirSync(series).map((name) => ({
      name: `DICOM/${name}`,
      data: readFileSync(join(series, name)),
      method: 0,
    }));
    const answer = await send(`${registryBase}/segmentation/lung`, {
      body: Uint8Array.from(zipOf(entries)),
      headers: { 'content-type': 'application/zip' },
    });
    expect(answer.status, answer.ok ? '' : await answer.text()).toBe(200);
    expect(answer.headers.get('content-disposition')).toContain('.seg.dcm');
    const { labelMap } = readSegmentationFile(new Uint8Array(await answer.arrayBuffer()));
    const expected = sourceFromBytes('a.nii.gz', readFileSync(join(app, 'sample-expected.nii.gz')));
    const { volume } = await readVolume([expected], nodePlatform);
    expect(labelMap.size).toEqual(volume.size);
    expect([...labelMap.affine]).toEqual([...volume.affine].map((value) => expect.closeTo(value, 3)));
    const [found, wanted] = [labelMap.voxels, volume.voxels];
    let [both, sum] = [0, 0];
    for (let i = 0; i < found.length; i++) {
      both += Number(found[i] === 1 && wanted[i] === 1);
      sum += Number(found[i] === 1) + Number(wanted[i] === 1);
    }
    expect((2 * both) / sum).toBeGreaterThan(0.97);
  });

  it('TOMAAT v1 answers at the announced addresses', async () => {
    const [{ interfaceUrl, predictionUrl }] = server.announcements();
    const elements = await (await fetch(interfaceUrl)).json();
    expect(elements[0]).toMatchObject({ type: 'volume' });
    const body = new URLSearchParams({
      volume: Buffer.from(await encode(phantom(), 'mha')).toString('base64'),
    });
    const answer = await (await fetch(predictionUrl, { method: 'POST', body })).json();
    expect(answer.map(({ type }: { type: string }) => type)).toContain('LabelVolume');
  });

  it('OpenAPI names the public address as its server', async () => {
    for (const address of [base, registryBase]) {
      const document = await (await fetch(`${address}/api/openapi.json`)).json();
      expect(document.servers).toEqual([{ url: address }]);
    }
  });

  it('the same answers come at the port itself, without the path and with it', async () => {
    for (const address of [server.url, `${server.url}/tomaat`]) {
      expect((await fetch(`${address}/api/services`)).status).toBe(200);
      expect((await send(`${address}/threshold/any`)).status).toBe(200);
    }
  });

  it('a task that is called as the path is found', async () => {
    const unknown = await send(`${server.url}/tomaat/lung`);
    expect((await unknown.json()).detail).toContain('No service here offers tomaat/lung');
    expect((await fetch(`${server.url}/tomaat/discoverx`)).status).toBe(404);
  });
});

describe('--public-url with a path', () => {
  it('is refused where it hides addresses of the server', async () => {
    for (const word of ['api', 'services', 'assets', 'auth'])
      await expect(
        startTestServer(['threshold'], { publicUrl: `https://hospital.example/${word}/tomaat` }),
      ).rejects.toMatchObject({ code: 'BAD_REQUEST', message: expect.stringContaining(`/${word}`) });
  });

  it('sessions have cookies limited to that path of the host', async () => {
    await using server = await startTestServer(['threshold'], {
      login: true,
      workers: 0,
      publicUrl: 'https://hospital.example/tomaat',
    });
    const { key } = await makeKey(server.dataFolder, ['predict']);
    const logIn = (headers: Record<string, string>) =>
      server.app.inject({
        method: 'POST',
        url: '/auth/session',
        headers: { 'content-type': 'application/json', ...headers },
        payload: JSON.stringify({ key }),
      });
    const shown = (line: unknown) => String(line).replace(/-\d+=[\w-]{43}/, '-PORT=TOKEN');
    const origin = 'https://hospital.example';
    // The second proxy does not pass the name on.
    for (const host of ['hospital.example', '127.0.0.1:9000']) {
      const answer = await logIn({ host, origin });
      expect(answer.statusCode, answer.body).toBe(204);
      const cookie = String(answer.headers['set-cookie']);
      expect(shown(cookie)).toBe(
        '__Secure-tomaat-PORT=TOKEN; Path=/tomaat; HttpOnly; SameSite=Strict; Secure',
      );
      const listed = await server.app.inject({
        url: '/api/services',
        headers: { host, cookie: cookie.split(';')[0], 'sec-fetch-site': 'same-origin' },
      });
      expect(listed.statusCode, listed.body).toBe(200);
    }
    // At the port itself the host is the server's alone.
    const local = await logIn({ host: 'localhost', origin: 'http://localhost' });
    expect(shown(local.headers['set-cookie'])).toBe('tomaat-PORT=TOKEN; Path=/; HttpOnly; SameSite=Strict');
  });

  it('a login by the issuer comes back below the path', async () => {
    await using provider = await openOidcProvider();
    await using site = await openLoginApp({
      oidc: settingsOf(provider),
      publicUrl: 'https://hospital.example/tomaat',
    });
    const ask = (url: string, headers: Record<string, string> = {}) =>
      site.app.inject({ url, headers: { host: 'hospital.example', accept: 'text/html', ...headers } });
    const { ways } = (await ask('/auth/me')).json();
    expect(ways.oidc.address).toBe('/tomaat/auth/oidc/login');
    const begun = await ask('/tomaat/auth/oidc/login?return=/jobs/1');
    const issuer = new URL(String(begun.headers.location));
    expect(issuer.searchParams.get('redirect_uri')).toBe(
      'https://hospital.example/tomaat/auth/oidc/callback',
    );
    expect(begun.headers['set-cookie']).toContain('Path=/tomaat;');
    const back = await ask('/auth/oidc/callback?code=x&state=y', {
      cookie: String(begun.headers['set-cookie']).split(';')[0],
    });
    expect(back.statusCode).toBe(303);
    expect(back.headers.location).toMatch(/^\/tomaat\/jobs\/1\?login-fault=/);
  });
});
