import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import type { Entry } from '@tomaat/client';
import { collectBytes, readVolume, sourceFromBytes, type Volume, writeVolume } from '@tomaat/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodePlatform } from '../src/node-platform.ts';
import {
  type Course,
  deadAddress,
  type FakeServer,
  fakeServer,
  label,
  service,
  temporaryFolder,
  tomaat,
} from './cli-fixture.ts';

let folder: { path: string; remove(): void };
let servers: FakeServer[];
const file = (name: string, content: string | Uint8Array = 'a volume') => {
  const path = join(folder.path, name);
  writeFileSync(path, content);
  return path;
};
const start = async (options: Parameters<typeof fakeServer>[0] = {}) => {
  const made = await fakeServer(options);
  servers.push(made);
  return made;
};

beforeEach(() => {
  folder = temporaryFolder();
  servers = [];
});
afterEach(async () => {
  for (const server of servers) await server.close();
  folder.remove();
});

describe('tomaat predict', () => {
  it('writes the primary output beside the input and says what came back', async () => {
    const server = await start();
    const volume = file('case.one.nii.gz');
    const args = [
      'predict',
      `${server.url}/services/prostate-net`,
      '--volume',
      volume,
      '--param',
      'threshold=0.25',
      '--param',
      'clean=on',
      '--frame',
      '3',
    ];
    const { code, stdout, stderr } = await tomaat([...args, '--api-key', 'tmt_k']);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    const target = join(folder.path, 'case.one_segmentation.nii.gz');
    expect(readFileSync(target)).toEqual(label);
    expect(stdout.split('\n')[0]).toBe(target);
    expect(stdout).toMatch(/prostate {2}41\.2 ml/);
    expect(stdout).toContain('not found: cyst');
    expect(stdout).toMatch(/Prostate 1\.2\.0 · (?:under )?\d/);
    expect(stderr).toContain('Waiting, 1 ahead');
    expect(stderr).toContain('Running: infer · 50 %');
    expect(server.received[0]).toMatchObject({
      fields: { threshold: '0.25', clean: 'true' },
      frame: '3',
      authorization: 'Bearer tmt_k',
      files: [{ input: 'volume', name: 'volume.nii.gz', bytes: Buffer.from('a volume') }],
    });
    expect(readdirSync(folder.path).sort()).toEqual(['case.one.nii.gz', 'case.one_segmentation.nii.gz']);
  });

  it('never overwrites without --force, and refuses before the upload', async () => {
    const server = await start();
    const volume = file('a.nii.gz');
    const target = file('a_segmentation.nii.gz', 'mine');
    const refused = await tomaat(['predict', server.url, '--volume', volume]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('already exists. Use --force');
    expect(server.received).toHaveLength(0);
    expect(readFileSync(target, 'utf8')).toBe('mine');
    expect((await tomaat(['predict', server.url, '--volume', volume, '--force'])).code).toBe(0);
    expect(readFileSync(target)).toEqual(label);
  });

  it('-o takes a file name or a folder; --all and --json give everything', async () => {
    const server = await start();
    const volume = file('a.nii.gz');
    const asked: string[] = [];
    server.server.on('request', (request) => asked.push(request.url ?? ''));
    expect(
      (await tomaat(['predict', server.url, '--volume', volume, '-o', join(folder.path, 'out.mha')])).code,
    ).toBe(0);
    expect(existsSync(join(folder.path, 'out.mha'))).toBe(true);
    expect(asked).toContain('/api/jobs/job-1/outputs/segmentation?format=mha');
    const { stdout, code } = await tomaat([
      'predict',
      server.url,
      '--volume',
      volume,
      '-o',
      `${folder.path}/new/`,
      '--all',
      '--json',
      '--delete',
    ]);
    expect(code).toBe(0);
    const line = JSON.parse(stdout);
    expect(line).toMatchObject({ input: volume, service: 'prostate-net', version: '1.2.0', job: 'job-2' });
    expect(line.files.map((one: { file: string }) => one.file)).toEqual([
      `${folder.path}/new/a_segmentation.nii.gz`,
      `${folder.path}/new/a_volumes.json`,
    ]);
    expect(line.labels[0].volumeMl).toBe(41.234);
    expect(server.deleted).toEqual(['job-2']);
  });

  it.each([
    [['-o', 'out.xyz'], 'has no known file extension'],
    [['-o', 'none/out.nii.gz'], 'There is no folder'],
    [['-o', 'out.json'], 'cannot be written as json'],
    [['--format', 'pdf'], 'cannot be written as pdf. Available: nii.gz, nii'],
    [['--output', 'nothing'], 'no output nothing. Available outputs: segmentation, volumes'],
    [['--param', 'threshold=7'], 'a number from 0 to 1'],
    [['--param', 'mode=slow'], 'one of: fast, exact'],
    [['--param', 'clean=perhaps'], 'true or false'],
    [['--param', 'clena=true'], 'no parameter clena. Available parameters: threshold, mode, clean'],
    [['--param', 'threshold'], 'Write --param NAME=VALUE'],
    [['--param', 'volume=x'], 'Give it with --input volume=FILE'],
    [['--input', 'flair=x.nii'], 'no input flair. Available files: volume'],
    [['--frame', '-1'], 'whole number'],
    [['--bogus'], 'unknown option'],
  ])('%s is refused with what would be right, and nothing is sent', async (extra, message) => {
    const server = await start();
    const { code, stderr } = await tomaat(['predict', server.url, '--volume', file('a.nii.gz'), ...extra], {
      cwd: folder.path,
    });
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/\n {4}at /);
    expect(code).toBe(2);
    expect(server.received).toHaveLength(0);
  });

  it('brings the data of .mhd, .nhdr and .hdr along', async () => {
    const server = await start();
    mkdirSync(join(folder.path, 'sub'));
    file('a.mhd', 'NDims = 3\nElementDataFile = C:\\scans\\a.zraw\n');
    file('a.zraw', 'meta');
    file('b.HDR', 'header');
    file('b.img.gz', 'pair');
    file('c.nhdr', 'NRRD0004\ndata file: ../elsewhere/c.raw\n\n');
    file('c.raw', 'nrrd');
    file('d.mhd', 'ElementDataFile = d%03d.raw 1 3 2\n');
    file('d001.raw', '1');
    file('d003.raw', '3');
    for (const name of ['a.mhd', 'b.HDR', 'c.nhdr', 'd.mhd']) {
      const { code, stderr } = await tomaat([
        'predict',
        server.url,
        '-q',
        '--volume',
        join(folder.path, name),
        '-o',
        `${folder.path}/sub/`,
      ]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    }
    expect(server.received.map((one) => one.files.map((sent) => sent.name))).toEqual([
      ['volume.mhd', 'volume.zraw'],
      ['volume.hdr', 'volume.img.gz'],
      ['volume.nhdr', 'volume.raw'],
      ['volume.mhd', 'volume.raw', 'volume-2.raw'],
    ]);
    file('e.mhd', 'ElementDataFile = ../../etc/passwd\n');
    const { code, stderr } = await tomaat(['predict', server.url, '--volume', join(folder.path, 'e.mhd')]);
    expect(code).toBe(2);
    expect(stderr).toContain('has its voxels in passwd, which is missing');
    file('f.img', 'x');
    expect((await tomaat(['predict', server.url, '--volume', join(folder.path, 'f.img')])).stderr).toContain(
      'Put f.hdr next to it',
    );
  });

  it('predicts a folder’s files, continues after faults, skips its results', async () => {
    const problem = {
      type: 'x',
      title: 'x',
      status: 422,
      detail: 'No prostate in it. Send a prostate.',
      code: 'NOT_ACCEPTED',
      retryable: false,
    };
    const course: Course = (_job, index) => [
      index === 1 ? { state: 'failed', error: problem } : { state: 'succeeded' },
    ];
    const server = await start({ course });
    for (const name of ['b.mha', 'a.nii.gz', 'c.nii', 'notes.txt', '.hidden.nii']) file(name);
    const first = await tomaat(['predict', server.url, '--volume', folder.path]);
    const sent = () => server.received.map((one) => one.files[0].name).sort();
    const all = ['volume.mha', 'volume.nii', 'volume.nii.gz'];
    expect(sent()).toEqual(all);
    expect(first.stderr).toMatch(/^ {2}.*: No prostate in it\. Send a prostate\.$/m);
    expect(first.stderr).toContain('3 scans: 2 done, 1 failed.');
    expect(readdirSync(folder.path).filter((name) => name.includes('_')).length).toBe(2);
    expect(first.code).toBe(2);
    const again = await tomaat(['predict', server.url, '--volume', folder.path, '--force', '-q']);
    expect(sent()).toEqual([...all, ...all].sort());
    expect(again.stdout.trim().split('\n')).toHaveLength(3);
  });

  it('asks for a second volume where the service needs one', async () => {
    const two = service({
      inputs: [
        { name: 't1', type: 'volume', optional: false, frames: 'one' },
        { name: 'flair', type: 'volume', label: 'FLAIR', optional: false, frames: 'one' },
      ],
    });
    const server = await start({ services: [two] });
    const volume = file('t1.nii.gz');
    const { code, stderr } = await tomaat(['predict', server.url, '--volume', volume]);
    expect(code).toBe(2);
    expect(stderr).toContain('prostate-net needs FLAIR. Give --input flair=FILE.');
    expect(
      (await tomaat(['predict', server.url, '--volume', volume, '--input', `flair=${file('f.nii')}`])).code,
    ).toBe(0);
    expect(server.received[0].files.map((sent) => [sent.input, sent.name])).toEqual([
      ['flair', 'flair.nii'],
      ['t1', 't1.nii.gz'],
    ]);
  });

  it('a failed job: 1 for the app’s fault, with its message and no stack', async () => {
    const problem = {
      type: 'x',
      title: 'x',
      status: 422,
      detail: 'It needed more than 4 GB. Crop the volume.',
      code: 'OUT_OF_MEMORY',
      retryable: false,
    };
    const server = await start({ course: () => [{ state: 'failed', error: problem }] });
    const { code, stderr } = await tomaat(['predict', server.url, '--volume', file('a.nii')]);
    expect(code).toBe(1);
    expect(stderr).toContain('Error: It needed more than 4 GB. Crop the volume.');
    expect(stderr).not.toMatch(/\n {4}at /);
    expect(
      (
        await tomaat(['predict', server.url, '--volume', join(folder.path, 'a.nii')], {
          env: { TOMAAT_DEBUG: '1' },
        })
      ).stderr,
    ).toMatch(/\n {4}at /);
  });

  it('Ctrl-C cancels the job on the server; two at once are one', async () => {
    const server = await start({ course: () => [{ state: 'running', stage: 'infer', fraction: 0.1 }] });
    let sent = false;
    const { code, stderr } = await tomaat(['predict', server.url, '--volume', file('a.nii')], {
      onStderr(text, kill) {
        if (!text.includes('Running') || sent) return;
        sent = true;
        kill('SIGINT');
        kill('SIGINT');
      },
    });
    expect(stderr).toContain('Cancelling the job');
    expect(stderr).toContain('The job is cancelled.');
    expect(code).toBe(130);
    expect(server.jobs.get('job-1')?.state).toBe('canceled');
    expect(server.deleted).toEqual([]);
    expect(readdirSync(folder.path)).toEqual(['a.nii']);
  });

  it('a second Ctrl-C leaves at once', async () => {
    const server = await start({ course: () => [{ state: 'running' }] });
    server.server.prependListener('request', (request, response) => {
      // The server does not answer the cancel.
      if (request.url?.endsWith('/cancel')) response.writeHead = () => response;
    });
    let sent = false;
    const startTime = Date.now();
    const { code } = await tomaat(['predict', server.url, '--volume', file('a.nii')], {
      onStderr(text, kill) {
        if (sent || !text.includes('Running')) return;
        sent = true;
        kill('SIGINT');
        setTimeout(() => kill('SIGINT'), 600);
      },
    });
    expect(code).toBe(130);
    expect(Date.now() - startTime).toBeLessThan(20_000);
  });

  it('a damaged result is not kept', async () => {
    const server = await start({
      course: () => [{ state: 'succeeded' }],
    });
    server.server.prependListener('request', (request, response) => {
      if (!request.url?.includes('/outputs/segmentation')) return;
      const end = response.end.bind(response);
      response.end = (() => end(Buffer.from('LABEL MAP'))) as typeof response.end;
    });
    const { code, stderr } = await tomaat(['predict', server.url, '--volume', file('a.nii.gz')]);
    expect(stderr).toContain('damaged in transit');
    expect(code).toBe(1);
    expect(readdirSync(folder.path)).toEqual(['a.nii.gz']);
  });

  it('a name, an id or task/anatomy is looked up at the registry', async () => {
    const server = await start();
    const entry: Entry = {
      sid: 's1',
      name: 'Prostate MRI',
      modality: 'MRI',
      anatomy: 'prostate',
      task: 'segmentation',
      description: '',
      predictionUrl: 'https://127.0.0.1:1/predict',
      interfaceUrl: 'https://127.0.0.1:1/interface',
      serverUrl: server.url,
      serviceId: 'prostate-net',
      face: 'api',
      live: true,
      announcedTime: '',
      expiresTime: '',
    };
    const registry = await start({ entries: [entry] });
    for (const [index, name] of [
      'prostate-net',
      'prostate mri',
      'segmentation/prostate',
      's1',
      `${registry.url}/segmentation/prostate`,
    ].entries()) {
      const { code, stderr } = await tomaat([
        'predict',
        name,
        '-q',
        '--volume',
        file(`${index}.nii`),
        '--registry',
        registry.url,
      ]);
      expect({ name, code, stderr }).toEqual({ name, code: 0, stderr: '' });
    }
    expect(server.received).toHaveLength(5);
    const { code, stderr } = await tomaat([
      'predict',
      'liver',
      '--volume',
      file('a.nii'),
      '--registry',
      registry.url,
    ]);
    expect(code).toBe(2);
    expect(stderr).toMatch(
      /has no live service “liver”\. Available:\n {2}prostate-net {2}\(segmentation\/prostate, Prostate MRI\)/,
    );
  });

  it('addresses of all kinds reach the service; wrong ones list what exists', async () => {
    const server = await start({
      services: [service(), service({ id: 'liver-net', anatomy: 'liver', name: 'Liver', default: false })],
    });
    const volume = file('a.nii.gz');
    for (const path of [
      '/services/liver-net',
      '/api/services/liver-net',
      '/api/services/liver-net/predictions',
      '/services/liver-net/predict',
      '/segmentation/liver',
    ]) {
      const { code, stderr } = await tomaat([
        'predict',
        server.url + path,
        '-q',
        '--force',
        '--volume',
        volume,
      ]);
      expect({ path, code, stderr }).toEqual({ path, code: 0, stderr: '' });
    }
    expect(server.received.map((one) => one.service)).toEqual(Array(5).fill('liver-net'));
    const many = await tomaat(['predict', server.url, '--volume', volume]);
    expect(many).toMatchObject({ code: 2 });
    expect(many.stderr).toContain('has 2 services. Name one');
    expect(many.stderr).toContain('liver-net  (segmentation/liver, Liver)');
    expect((await tomaat(['predict', `${server.url}/services/nope`, '--volume', volume])).stderr).toContain(
      'There is no service nope',
    );
    expect(
      (await tomaat(['predict', server.url.slice('http://'.length), '--volume', volume])).stderr,
    ).toContain(`Did you mean ${server.url}?`);
  });

  it('does not send a key to another machine in the clear', async () => {
    const { code, stderr } = await tomaat([
      'predict',
      'http://192.0.2.1:9000/services/x',
      '--volume',
      file('a.nii'),
      '--api-key',
      'tmt_secret',
    ]);
    expect(code).toBe(2);
    expect(stderr).toContain('unencrypted');
    expect(stderr).not.toContain('tmt_secret');
  });

  it('sends the key to this machine, but not to registry-named servers', async () => {
    const server = await start();
    const one: Entry = {
      sid: 's1',
      name: 'Prostate',
      modality: 'MRI',
      anatomy: 'prostate',
      task: 'whole-segmentation',
      description: '',
      predictionUrl: `${server.url}/services/prostate-net/predict`,
      interfaceUrl: `${server.url}/services/prostate-net/interface`,
      serverUrl: server.url,
      serviceId: 'prostate-net',
      face: 'api',
      live: true,
      announcedTime: '',
      expiresTime: '',
    };
    // It leads here, but is no address that always means this machine.
    const elsewhere = server.url.replace('127.0.0.1', '0.0.0.0');
    const near = await start({ entries: [one] });
    const far = await start({ entries: [{ ...one, serverUrl: elsewhere }] });
    const volume = file('a.nii');
    const by = (registry: FakeServer, ...more: string[]) =>
      tomaat(
        [
          'predict',
          'whole-segmentation/prostate',
          ...['--volume', volume, '--registry', registry.url, '--force', ...more],
        ],
        { env: { TOMAAT_API_KEY: 'tmt_secret' } },
      );
    expect((await by(near)).stderr).not.toContain('API key');
    const made = await by(far);
    expect(made.code).toBe(0);
    expect(made.stderr).toContain(`The API key is not sent to ${elsewhere.slice(7)}`);
    expect(made.stderr).toContain(`name the server: ${elsewhere}/services/prostate-net`);
    expect(made.stderr).not.toContain('tmt_secret');
    expect((await by(far, '-q')).stderr).toBe('');
    // The registry that was named as the address of the service counts no more than one that was looked up.
    const pair = `${far.url}/whole-segmentation/prostate`;
    const named = await tomaat(['predict', pair, '--volume', volume, '--force', '--api-key', 'tmt_secret']);
    expect(named.code).toBe(0);
    expect(server.received.map(({ authorization }) => authorization)).toEqual([
      'Bearer tmt_secret',
      undefined,
      undefined,
      undefined,
    ]);
  });

  it('says what to do when nothing listens there', async () => {
    const address = await deadAddress();
    const { code, stderr } = await tomaat(['predict', `${address}/services/x`, '--volume', file('a.nii')]);
    expect(stderr).toContain(`Nothing listens at ${address.slice(7)}`);
    expect(stderr).not.toMatch(/\n {4}at /);
    expect(code).toBe(1);
  });

  it('ends at once when the server refuses before it has read the upload', async () => {
    const server = await start();
    server.server.removeAllListeners('request');
    server.server.on('request', (request, response) => {
      if (request.method === 'GET') return response.end(JSON.stringify(service()));
      const body = { status: 413, code: 'UPLOAD_TOO_LARGE', detail: 'Too large. Send less.' };
      return response
        .writeHead(413, { 'content-type': 'application/problem+json' })
        .end(JSON.stringify(body));
    });
    const startTime = Date.now();
    const args = ['--volume', file('a.nii', new Uint8Array(3_000_000))];
    const { code, stderr } = await tomaat(['predict', `${server.url}/services/x`, ...args]);
    expect(stderr).toContain('Error: Too large. Send less.');
    expect(code).toBe(2);
    expect(Date.now() - startTime).toBeLessThan(20_000);
  });

  it('a missing file is a fault of the call', async () => {
    const server = await start();
    const { code, stderr } = await tomaat(['predict', server.url, '--volume', join(folder.path, 'none.nii')]);
    expect(stderr).toContain('does not exist. Check the spelling');
    expect(code).toBe(2);
  });
});

/** Small, of three sizes, anisotropic, rotated. */
const volume: Volume = {
  voxels: Int16Array.from({ length: 60 }, (_, i) => i * 3 - 20),
  size: [3, 4, 5],
  components: 1,
  affine: [0, -2, 0, 11, 0.8, 0, 0, -7, 0, 0, 3, 5, 0, 0, 0, 1],
};

describe('tomaat predict with a server of TOMAAT v1', () => {
  it('converts to MetaImage in base64 and back to the format of the input', async () => {
    const seen: { fields?: Record<string, string>; asked: number; voxels?: number[]; fileNames?: boolean } = {
      asked: 0,
    };
    let answer: Buffer = Buffer.alloc(0);
    const server = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const body = Buffer.concat(chunks);
      const json = (value: unknown) =>
        response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
      if (request.url === '/interface') {
        return json([
          { type: 'volume', destination: 'images' },
          { type: 'slider', destination: 'threshold', minimum: 0, maximum: 1 },
          { type: 'slider', destination: 'stated', minimum: -950, maximum: 150, default: -350 },
          { type: 'slider', destination: 'half', minimum: 0, maximum: 10 },
          { type: 'slider', destination: 'clamped', minimum: -200, maximum: 150 },
          { type: 'checkbox', destination: 'fast', text: 'Fast' },
          { type: 'checkbox', destination: 'clean', text: 'Clean', default: true },
          { type: 'radiobutton', destination: 'mode', text: 'Mode', options: ['a', 'b'] },
          { type: 'radiobutton', destination: 'size', text: 'Size', options: ['s', 'm'], default: 'm' },
          { type: 'hologram', destination: 'unknown' },
        ]);
      }
      if (request.url === '/predict') {
        seen.fileNames = body.includes('filename=');
        const form = await new Response(new Uint8Array(body), {
          headers: { 'content-type': request.headers['content-type'] ?? '' },
        }).formData();
        seen.fields = Object.fromEntries([...form].map(([name, value]) => [name, String(value)]));
        const lines = seen.fields.images.split('\n');
        expect(lines.slice(0, -2).every((line) => line.length === 76)).toBe(true);
        answer = Buffer.from(seen.fields.images, 'base64');
        return json([{ type: 'DelayedResponse', request_id: 'r 1' }]);
      }
      if (request.url === '/responses' && body.toString() === 'request_id=r+1') {
        if (seen.asked++ === 0) return json([{ type: 'DelayedResponse', request_id: 'r 1' }]);
        return json([
          { type: 'PlainText', content: 'Result of r 1', label: 'Info' },
          { type: 'LabelVolume', content: answer.toString('base64').replace(/.{76}/g, '$&\n'), label: 'seg' },
        ]);
      }
      return response.writeHead(404).end('<h1>404</h1>');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/predict`;
      const scan = Buffer.from(await collectBytes(writeVolume(volume, 'nii', nodePlatform)));
      // An sform of MNI (code 4), 20 mm beside the qform.
      scan.writeInt16LE(4, 254);
      scan.writeFloatLE(scan.readFloatLE(268) + 20, 268);
      const path = file('a.nii.gz', gzipSync(scan));
      const { code, stderr, stdout } = await tomaat([
        'predict',
        url,
        '--volume',
        path,
        '--param',
        'threshold=0.75',
      ]);
      expect({ code, stderr: stderr.includes('Error') ? stderr : '' }).toEqual({ code: 0, stderr: '' });
      expect(seen).toMatchObject({
        fileNames: false,
        fields: {
          threshold: '0.75',
          stated: '-350',
          half: '5',
          clamped: '150',
          fast: 'False',
          clean: 'True',
          mode: 'a',
          size: 'm',
        },
        asked: 2,
      });
      expect(stderr).toContain(
        'Parameters: threshold=0.75, stated=-350 (default), half=5 (default), clamped=150 (default), ' +
          'fast=False (default), clean=True (default), mode=a (default), size=m (default)\n',
      );
      const target = join(folder.path, 'a_segmentation.nii.gz');
      expect(stdout).toContain(target);
      const back = await readVolume([sourceFromBytes('a.nii.gz', readFileSync(target))], nodePlatform);
      expect(gunzipSync(readFileSync(target)).subarray(252, 328)).toEqual(scan.subarray(252, 328));
      expect([...back.volume.voxels]).toEqual([...volume.voxels]);
      expect(back.volume.affine.map((x) => Math.round(x * 1e4) / 1e4)).toEqual([...volume.affine]);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  it('an error element is an error', async () => {
    const server = createServer((request, response) => {
      request.resume();
      if (request.url === '/interface') return response.end('[]');
      if (request.url === '/predict')
        return response.end(JSON.stringify([{ type: 'PlainText', content: 'out of luck', label: 'Error!' }]));
      return response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const { code, stderr } = await tomaat([
        'predict',
        `http://127.0.0.1:${(server.address() as AddressInfo).port}/predict`,
      ]);
      expect(stderr).toContain('The service says: out of luck');
      expect(code).toBe(1);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});
