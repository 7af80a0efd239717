import { execFile } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, request as requestOf } from 'node:http';
import type { AddressInfo } from 'node:net';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findPython } from '../../../test/programs.ts';
import { writeSeries } from '../../../test/write-series.ts';
import { startAnnouncer } from '../src/registry/announcer.ts';
import { addPin, findPins, knownHostsFile } from '../src/trust/known-hosts.ts';
import { makeKey } from './access-fixture.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { type RecordingProxy, startRecordingProxy } from './recording-proxy.ts';
import { certificateOf, createCleanup, openServer, openTestRegistry } from './registry-helpers.ts';
import { repository, startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* The client for Python: its wheel, its types, its tests against real servers, its notebook. */

const run = promisify(execFile);
const folderOfClient = join(repository, 'python');
/** With pip and an empty environment. PyPI has to be reachable. */
const pip = findPython('ensurepip', 'pip', 'venv');
const libraries = ['httpx', 'numpy', 'nibabel', 'SimpleITK', 'pandas', 'tqdm', 'cryptography'];
const python = findPython('pip', 'pytest', 'mypy', 'hatchling', ...libraries);

const cleanup = createCleanup();
let folder: string;
let server: TestServer;
/** Where the wheel lies unpacked, for the Python that has the libraries. */
let unpacked: string;
let cutting: RecordingProxy;
let recording: RecordingProxy;

const onCleanup = <T extends AsyncDisposable>(it: T): T => {
  cleanup.add(() => it[Symbol.asyncDispose]());
  return it;
};

beforeAll(async () => {
  if (!pip && !python) return;
  folder = await temporaryFolder();
  cleanup.add(() => rm(folder, { recursive: true, force: true }));
  server = onCleanup(await startTestServer(['threshold', ...(await writeApps(join(folder, 'apps')))]));
});
afterAll(() => cleanup.run());

const volume = { type: 'volume' };
async function writeApps(apps: string): Promise<string[]> {
  const labels = [
    { value: 1, name: 'glow', when: { mode: 'light' } },
    { value: 1, name: 'shadow', when: { mode: 'dark' } },
    { value: 2, name: 'both' },
  ];
  const mode = { type: 'radiobutton', options: ['light', 'dark'] };
  const text = { text: { type: 'PlainText' } };
  const seeds = { type: 'fiducials' };
  const size = { type: 'slider', minimum: 0, maximum: 9 };
  return Promise.all([
    writeApp(apps, 'bright', {
      infer: inferBright,
      task: 'segmentation',
      anatomy: 'any',
      inputs: { volume, mode },
      labels,
    }),
    writeApp(apps, 'any', {
      infer:
        'return { segmentation: { ...volume, voxels: Uint8Array.from(volume.voxels, (v) => (v > 0 ? 1 : 0)) } };',
    }),
    writeApp(apps, 'nap', { infer: `await sleep(400); ${inferBright}` }),
    writeApp(apps, 'slow', { infer: `await sleep(600000); ${inferBright}` }),
    writeApp(apps, 'fails', { infer: "throw new Error('no such organ');" }),
    writeApp(apps, 'marks', {
      infer: 'return { text: JSON.stringify({ seeds: inputs.seeds, size: inputs.size }) };',
      inputs: { volume, seeds, size },
      outputs: text,
    }),
    writeApp(apps, 'pair', {
      infer: `const { fixed, moving } = inputs;
return { segmentation: { ...fixed, voxels: Uint8Array.from(fixed.voxels, (v, i) => (v - moving.voxels[i] > 100 ? 1 : 0)) } };`,
      inputs: { fixed: volume, moving: volume },
    }),
  ]);
}

/** A proxy that refuses connections for a second, once a request names the word. */
async function startFlaky(target: string): Promise<string> {
  let port = 0;
  const listener = createServer((incoming, answer) => {
    const { method, url: path = '/', headers } = incoming;
    const outgoing = requestOf(new URL(path, target), { method, headers }, (response) => {
      answer.writeHead(response.statusCode ?? 502, response.headers);
      response.pipe(answer);
      if (path.includes('away')) response.once('end', () => setTimeout(goAway, 50));
    });
    outgoing.on('error', () => answer.destroy());
    incoming.pipe(outgoing);
  });
  const goAway = () => {
    listener.closeAllConnections();
    listener.close(() => setTimeout(() => listener.listen(port, '127.0.0.1'), 1000));
  };
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  port = (listener.address() as AddressInfo).port;
  cleanup.add(() => {
    listener.closeAllConnections();
    listener.close();
  });
  return `http://127.0.0.1:${port}`;
}

/** All servers that the tests in Python need; they read the addresses from a file. */
async function startStand(): Promise<string> {
  const apps = join(folder, 'apps');
  const some = (...names: string[]) => names.map((name) => join(apps, name));
  const locked = onCleanup(await startTestServer(some('bright', 'slow'), { login: true }));
  const small = onCleanup(await startTestServer(some('nap'), { workers: 1, maxQueued: 1 }));
  const registry = await openTestRegistry(cleanup, { now: Date.now });
  const registryUrl = await registry.app.listen({ port: 0, host: '127.0.0.1' });
  const announcer = startAnnouncer({
    registryUrl,
    apiKey: await registry.key(),
    services: () => server.announcements(),
    signer: server.signer,
    logger: pino({ level: 'silent' }),
  });
  cleanup.add(() => announcer.close());
  await announcer.firstRound;

  let cuts = 0;
  const isPart = (request: IncomingMessage) => request.method === 'PATCH' && ++cuts <= 3;
  cutting = onCleanup(
    await startRecordingProxy(server.url, (request) => (isPart(request) ? 1_000_000 : undefined)),
  );
  recording = onCleanup(await startRecordingProxy(server.url));
  const eventless = onCleanup(
    await startRecordingProxy(server.url, undefined, (path) => path.endsWith('/events')),
  );
  const stranger = await openServer(cleanup, (_, answer) => void answer.end('<html>Welcome</html>'));

  const secure = server.tlsUrl!;
  const host = new URL(secure).host;
  const pins = { pinned: '', pinnedByKey: '', pinnedOther: '' };
  const { fingerprint } = server.certificate;
  for (const name of Object.keys(pins) as (keyof typeof pins)[]) pins[name] = join(folder, name);
  const { publicKey } = new X509Certificate(await readFile(join(server.dataFolder, 'tomaat.pem')));
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  await addPin(knownHostsFile(pins.pinned), host, fingerprint);
  await addPin(knownHostsFile(pins.pinnedOther), host, certificateOf(0xa5));
  await addPin(knownHostsFile(pins.pinnedByKey), host, certificateOf(0xa5), {
    keyFingerprint: createHash('sha256').update(spki).digest('base64url'),
  });
  expect(await findPins(knownHostsFile(pins.pinnedByKey), host)).toHaveLength(1);

  const scan = join(folder, 'scan.nii.gz');
  await writeFile(
    scan,
    await encode(phantom([-1.5, 0, 0, 30, 0, 2, 0, -40, 0, 0, 2.75, 12, 0, 0, 0, 1]), 'nii.gz'),
  );
  const series = join(folder, 'series');
  await writeSeries(scan, series, [1]);
  const stand = join(folder, 'stand.json');
  await writeFile(
    stand,
    JSON.stringify({
      server: server.url,
      serverData: server.dataFolder,
      identity: server.identity,
      certificate: join(server.dataFolder, 'tomaat.pem'),
      fingerprint,
      secure,
      otherSecure: locked.tlsUrl,
      locked: locked.url,
      key: (await makeKey(locked.dataFolder, ['predict'])).key,
      limitedKey: (await makeKey(locked.dataFolder, ['predict'], { limits: { maxJobs: 1 } })).key,
      small: small.url,
      registry: registryUrl,
      cutting: cutting.url,
      recording: recording.url,
      eventless: eventless.url,
      flaky: await startFlaky(server.url),
      stranger: stranger.url,
      series,
      seriesAs: scan,
      slice: (await readdir(series))[0],
      ...pins,
    }),
  );
  return stand;
}

/** The sources without what tests and tools leave there. */
async function copyClient(): Promise<string> {
  const copy = join(folder, 'client');
  await mkdir(copy, { recursive: true });
  for (const name of ['pyproject.toml', 'README.md', 'LICENSE', 'src'])
    await cp(join(folderOfClient, name), join(copy, name), { recursive: true, dereference: true });
  return copy;
}

/** The tests in Python take half a minute where nothing else runs. */
const testsMs = 480_000;
const quiet = ['--quiet', '--disable-pip-version-check'];

describe.skipIf(!pip)('the wheel of tomaat-client', () => {
  it('works in an empty environment with httpx alone, and names the extra that a feature needs', async (context) => {
    const environment = join(folder, 'environment');
    await run(pip!, ['-m', 'venv', environment]);
    const inside = join(environment, 'bin', 'python');
    try {
      await run(inside, ['-m', 'pip', 'install', ...quiet, await copyClient()]);
    } catch (error) {
      if (process.env.REQUIRE_ALL) throw error;
      console.log(
        `Skipped: the wheel cannot be built and installed, perhaps because PyPI is out of reach: ${error}`,
      );
      return context.skip();
    }
    await writeFile(join(folder, 'scan.nii'), await encode(phantom(), 'nii'));
    const script = `
import sys
from importlib.metadata import files
from tomaat_client import Client, __version__, verify_receipt
client = Client(sys.argv[1])
result = client.predict("threshold", "scan.nii", factor=1.5)
print(__version__, {name: round(ml, 1) for name, ml in result.volumes.items()}, result.save("labels.nii.gz").stat().st_size > 100)
def missing(call):
    try:
        call()
    except ImportError as error:
        print(error)
print(sorted({file.name for file in files("tomaat-client")} & {"LICENSE", "py.typed"}))
missing(lambda: result.label_map)
missing(lambda: client.predict_many("threshold", ["scan.nii"]))
missing(lambda: verify_receipt(result.receipt))
missing(lambda: client.predict("threshold", "scan.nii", progress=True))
`;
    const { stdout } = await run(inside, ['-c', script, server.url], { cwd: folder });
    const { version } = JSON.parse(await readFile(join(repository, 'packages/client/package.json'), 'utf8'));
    expect(stdout.trim().split('\n')).toEqual([
      `${version} {'bright': 1.4} True`,
      "['LICENSE', 'py.typed']",
      'This needs the package numpy: pip install "tomaat-client[numpy]"',
      'This needs the package pandas: pip install "tomaat-client[pandas]"',
      'This needs the package cryptography: pip install "tomaat-client[receipts]"',
      'This needs the package tqdm: pip install "tomaat-client[progress]"',
    ]);
  });
});

describe.skipIf(!python)('tomaat-client with all extras', () => {
  let env: NodeJS.ProcessEnv;
  beforeAll(async () => {
    unpacked = join(folder, 'unpacked');
    const options = ['--no-deps', '--no-build-isolation', '--target', unpacked];
    await run(python!, ['-m', 'pip', 'install', ...quiet, ...options, await copyClient()]);
    env = {
      ...process.env,
      PYTHONPATH: [unpacked, join(folderOfClient, 'tests')].join(delimiter),
      PYTHONDONTWRITEBYTECODE: '1',
      TOMAAT_STAND: await startStand(),
    };
  });

  it('has types that mypy checks strictly, in the package and in its tests', async () => {
    const options = [
      '--config-file',
      join(folderOfClient, 'pyproject.toml'),
      '--cache-dir',
      join(folder, 'mypy'),
    ];
    const files = [join(folderOfClient, 'tests'), '-p', 'tomaat_client'];
    for (const what of [files.slice(0, 1), files.slice(1)]) {
      const checked = await run(python!, ['-m', 'mypy', ...options, ...what], { env, cwd: folder }).catch(
        (error: { stdout: string }) => error,
      );
      expect(checked.stdout).toMatch(/^Success: no issues found in \d+ source files\n$/);
    }
  });

  it(
    'passes its tests against real servers',
    async () => {
      const ended = await run(
        python!,
        ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--durations=8', join(folderOfClient, 'tests')],
        { env, cwd: folder, maxBuffer: 2 ** 24, timeout: testsMs },
      ).catch((error: { stdout: string; stderr: string }) => error);
      if (process.env.TEST_LOG) console.log(ended.stdout);
      expect(ended.stdout, ended.stderr).toMatch(/^\d+ passed(, \d+ warnings?)? in /m);

      // The proxy cut three parts: each request continued at what the server had, and the file was not sent a second time.
      // A request that is cut is recorded for each chunk that comes after the cut.
      const patches = cutting.requests.filter(({ method }) => method === 'PATCH');
      const offsets = [...new Set(patches.map(({ headers }) => headers))].map((headers) =>
        Number(headers['upload-offset']),
      );
      expect(offsets.length).toBeGreaterThanOrEqual(2);
      expect(offsets.length).toBeLessThanOrEqual(4);
      expect(offsets[0]).toBe(0);
      for (const [i, offset] of offsets.slice(1).entries()) expect(offset).toBeGreaterThan(offsets[i]);
      const begun = cutting.requests.filter(
        ({ method, path }) => method === 'POST' && path === '/api/uploads',
      );
      expect(begun).toHaveLength(1);

      expect(recording.requests.length).toBeGreaterThan(10);
      expect(recording.sent().includes('Canary')).toBe(false);
      expect(recording.sent().includes('DICM')).toBe(false);
    },
    testsMs + 30_000,
  );
});
