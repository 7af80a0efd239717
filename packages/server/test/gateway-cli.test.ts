import { spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { parseDicom } from '@tomaat/core';
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { word } from '../../core/src/dicom/dataset.ts';
import { tags } from '../../core/src/dicom/tags.ts';
import { madeFiles } from '../../core/test/dicom-source.ts';
import type { SeriesRow } from '../src/gateway/series.ts';
import { startRegistry } from '../src/registry/start.ts';
import { writeApp } from './app-fixture.ts';
import { makeCertificate } from './certificate-fixture.ts';
import { bin, deadAddress, endsWithTest, temporaryFolder, tomaat } from './cli-fixture.ts';
import { startTestServer } from './test-server.ts';

const folder = temporaryFolder();
const inFolder = (...names: string[]) => join(folder.path, ...names);
const [data, file] = [inFolder('data'), inFolder('gateway.yaml')];
let server: Awaited<ReturnType<typeof startTestServer>>;

const rules = (url: string, more = '') => `schemaVersion: 1
sources:
  inbox: { type: folder, path: inbox, poll: 1s, quiet: 0s }
services:
  threshold: { url: ${url}, service: threshold }
destinations:
  kept: { type: folder, path: results }
rules:
  - id: bright
    when: { modality: MR, description: 'not this' }
    service: threshold
    destinations: [kept]
  - id: all
    when: { modality: MR${more} }
    service: threshold
    destinations: [kept]
`;

beforeAll(async () => {
  const slow = await writeApp(folder.path, 'slow', {
    infer: `await sleep(60_000);
      return { segmentation: { ...volume, voxels: new Uint8Array(volume.voxels.length) } };`,
    outputs: { segmentation: { type: 'LabelVolume', label: 'None' } },
    labels: [{ value: 1, name: 'none', color: '#3cb44b' }],
  });
  server = await startTestServer(['threshold', slow]);
  for (const name of ['inbox', 'results']) mkdirSync(inFolder(name));
  writeFileSync(file, rules(server.url));
}, 60_000);
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  folder.remove();
}, 30_000);

/** An archive over HTTPS that has nothing. */
async function startOwnPacs(options: { key: string; cert: string }) {
  let asked = 0;
  const pacs = createServer(options, (_request, response) => {
    asked++;
    response.writeHead(204).end();
  });
  await once(pacs.listen(0, '127.0.0.1'), 'listening');
  return {
    url: `https://127.0.0.1:${(pacs.address() as AddressInfo).port}`,
    get asked() {
      return asked;
    },
    async [Symbol.asyncDispose]() {
      pacs.closeAllConnections();
      await once(pacs.close(), 'close');
    },
  };
}

/** Runs `tomaat gateway` until it is disposed of. */
async function startGateway(...args: string[]) {
  const child = spawn(
    process.execPath,
    [...endsWithTest, bin, 'gateway', '--config', file, '--data', data, '--port', '0', ...args],
    {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, NODE_OPTIONS: '' },
    },
  );
  let [out, log] = ['', ''];
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  const ended = once(child, 'close');
  await Promise.race([
    new Promise<void>((resolve) => {
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        out += text;
        if (out.endsWith('\n')) resolve();
      });
    }),
    ended,
  ]);
  if (out === '') throw new Error(`it ended early: ${log}`);
  return {
    out,
    log: () => log,
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

const list = async (...args: string[]): Promise<SeriesRow[]> => {
  const { code, stdout, stderr } = await tomaat(['gateway', 'list', '--json', '--data', data, ...args]);
  expect(code, stderr).toBe(0);
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
};

describe('tomaat gateway', () => {
  it('check counts the parts of a file, and asks them with --connect', async () => {
    const plain = await tomaat(['gateway', 'check', '--config', file]);
    expect(plain).toMatchObject({
      code: 0,
      stdout: `${file} has no faults: 2 rules, 1 source, 1 service, 1 destination.\n`,
      stderr: '',
    });
    const { code, stdout } = await tomaat([
      'gateway',
      'check',
      '--config',
      file,
      '--connect',
      '--data',
      data,
    ]);
    expect(stdout).toMatch(/^ {2}ok {5}source inbox: answers, and has no series/m);
    expect(stdout).toMatch(/^ {2}ok {5}rule all: threshold \S+ gives seg\.dcm of \w+$/m);
    expect(stdout).toMatch(/^ {2}ok {5}destination kept: .*results can be written to$/m);
    expect(code).toBe(0);
  });

  it('check names what does not answer, with exit code 1', async () => {
    const other = inFolder('away.yaml');
    writeFileSync(other, rules(await deadAddress()));
    const args = ['gateway', 'check', '--config', other, '--connect', '--data', data];
    const { code, stdout } = await tomaat(args);
    expect(stdout).toMatch(/^ {2}WRONG {2}rule all: /m);
    expect(stdout).toContain('has no faults, but 2 of 4 parts do not work');
    expect(code).toBe(1);
    const json = await tomaat([...args, '--json']);
    expect(JSON.parse(json.stdout)).toMatchObject({ ok: false, rules: 2, warnings: [] });
  });

  it('an archive with a certificate of its own is refused until it is trusted', async () => {
    const { keyPem, pem } = await makeCertificate(folder.path, { names: ['127.0.0.1'] });
    await using pacs = await startOwnPacs({ key: keyPem, cert: pem });
    const web = `{ type: dicomweb, url: '${pacs.url}' }`;
    const other = inFolder('own-certificate.yaml');
    const entries = [`  inbox: ${web}`, `  kept: ${web}`] as const;
    writeFileSync(
      other,
      rules(server.url)
        .replace(/ {2}inbox: .*/, entries[0])
        .replace(/ {2}kept: .*/, entries[1]),
    );
    const args = ['gateway', 'check', '--config', other, '--connect', '--data', data];
    const unknown = await tomaat(args);
    expect(unknown.stdout).toMatch(/^ {2}WRONG {2}source inbox: .* is not trusted here/m);
    expect(unknown.stdout).toMatch(/^ {2}WRONG {2}destination kept: .* is not trusted here/m);
    expect(pacs.asked).toBe(0);
    const remedy = [
      'trust',
      pacs.url,
      '--fingerprint',
      new X509Certificate(pem).fingerprint256,
      '--data',
      data,
    ];
    expect(unknown.stdout).toContain(`tomaat ${remedy.join(' ')}\n`);
    expect((await tomaat(remedy)).code).toBe(0);
    const { code, stdout } = await tomaat(args);
    expect(stdout).toMatch(/^ {2}ok {5}source inbox: /m);
    expect(stdout).toMatch(/^ {2}ok {5}destination kept: /m);
    expect(code).toBe(0);
  });

  it('check tells a registry from a server', async () => {
    const registry = await startRegistry({
      host: '127.0.0.1',
      dataFolder: inFolder('registry'),
      port: 0,
      logger: pino({ level: 'silent' }),
    });
    try {
      const other = inFolder('registry.yaml');
      writeFileSync(other, rules(registry.url));
      const args = ['gateway', 'check', '--config', other, '--connect', '--data', data];
      const { code, stdout } = await tomaat(args);
      expect(stdout).toContain(
        `WRONG  rule all: ${registry.url} is not the address of a TOMAAT server. Give that of the server itself, not of a registry`,
      );
      expect(code).toBe(1);
    } finally {
      await registry.close();
    }
  });

  it('check and start list the faults of a file, with exit code 2', async () => {
    const other = inFolder('faulty.yaml');
    writeFileSync(other, rules(server.url, ', colour: red').replace('poll: 1s', 'poll: 1'));
    for (const command of [['check'], []]) {
      const { code, stdout, stderr } = await tomaat([
        'gateway',
        ...command,
        '--config',
        other,
        '--data',
        data,
      ]);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).toContain('faulty.yaml has 2 faults. Correct the following:');
      expect(stderr).toMatch(/^ {2}line 3: sources\.inbox\.poll: must be a time with its unit/m);
      expect(stderr).toMatch(/^ {2}line 14: rules\.1\.when: has the unknown key colour\. Available: /m);
    }
  });

  it.each([
    [[], /The file of rules is missing\. Give it with --config/],
    [['--config', 'nowhere.yaml'], /nowhere\.yaml does not exist\. Check --config\./],
    [['check'], /required option '--config <file>' not specified/],
    [['list', '--data', 'nowhere'], /No gateway has run with the data folder nowhere\. Check --data\./],
    [['list', '--state', 'lost'], /Allowed choices are waiting, queued, running, done, failed, dropped/],
    [['retry', '--data', 'nowhere'], /It is not clear what to try again/],
    [['retry', '1', '--failed', '--data', 'nowhere'], /It is not clear what to try again/],
    [['drop'], /missing required argument 'ID'/],
  ])('%j is refused with the remedy and exit code 2', async (args, message) => {
    const { code, stdout, stderr } = await tomaat(['gateway', ...args], { cwd: folder.path });
    expect(stderr).toMatch(message);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  });

  it('takes a series from a folder to its result, which list, drop and retry show', async () => {
    await using gateway = await startGateway('--json');
    const { gateway: url, ...facts } = JSON.parse(gateway.out);
    expect(facts).toEqual({ rules: 2, sources: ['inbox'], data });
    expect((await fetch(`${url}/health/ready`)).status).toBe(200);
    const voxels = new Int16Array(13 * 7 * 5).map((_, i) => (i % 13 > 8 ? 900 : 10));
    for (const [i, bytes] of (await madeFiles({}, voxels)).entries())
      writeFileSync(inFolder('inbox', `${i}.dcm`), bytes);
    await expect
      .poll(async () => (await list()).map(({ state }) => state), { timeout: 30_000, interval: 500 })
      .toEqual(['done']);
    const [row] = await list('--state', 'done', '--rule', 'all');
    expect(row).toMatchObject({
      rule: 'all',
      source: 'inbox',
      study: '1.2.3',
      series: '1.2.3.0',
      modality: 'MR',
      instances: 5,
    });
    expect(row.results).toMatchObject([{ format: 'seg.dcm', storedAt: ['kept'] }]);
    const [name] = readdirSync(inFolder('results', '1.2.3', row.results[0].series));
    const { dataset } = parseDicom(readFileSync(inFolder('results', '1.2.3', row.results[0].series, name)))!;
    expect([tags.modality, tags.patientId, tags.studyInstanceUid].map((tag) => word(dataset, tag))).toEqual([
      'SEG',
      'P-1',
      '1.2.3',
    ]);

    const table = await tomaat(['gateway', 'list', '--data', data]);
    const lines = table.stdout.trim().split('\n');
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatch(/^ID +STATE +RULE +SOURCE +MODALITY +IMAGES +SEEN +WHY$/);
    expect(lines[1]).toMatch(/^\d+ +done +all +inbox +MR +5 +\d{4}-\d\d-\d\d \d\d:\d\d +seg\.dcm$/);
    expect(table.stdout).not.toMatch(/Doe|P-1/);
    const refused = await tomaat(['gateway', 'drop', row.id, '--data', data]);
    expect(refused).toMatchObject({ code: 2, stdout: '' });
    expect(refused.stderr).toMatch(/is done and cannot be dropped/);
    const none = await tomaat(['gateway', 'retry', '--failed', '--data', data]);
    expect(none).toMatchObject({ code: 0, stdout: '0 of 0 failed series are queued again.\n' });
    expect(gateway.log()).not.toMatch(/"level":(50|60)/);
  }, 60_000);

  it('drops and retries a series without a running gateway', async () => {
    writeFileSync(file, rules(server.url, ', slices: { min: 6 }'));
    // The same images as those of another series.
    for (const [i, bytes] of (await madeFiles({}, new Int16Array(13 * 7 * 5))).entries()) {
      const text = Buffer.from(bytes).toString('latin1');
      const other = text.replaceAll('1.2.3.0\0', '1.2.3.7\0').replaceAll(/1\.2\.3\.([1-5])\0/g, '1.2.4.$1\0');
      writeFileSync(inFolder('inbox', `b${i}.dcm`), Buffer.from(other, 'latin1'));
    }
    {
      await using gateway = await startGateway();
      expect(gateway.out).toMatch(
        /^Gateway {3}http:\/\/127\.0\.0\.1:\d+\nRules {5}bright, all\nSources {3}inbox\nData {6}/,
      );
      await expect
        .poll(async () => (await list('--state', 'failed')).length, { timeout: 30_000, interval: 500 })
        .toBe(1);
    }
    const [{ id, reason }] = await list('--state', 'failed');
    expect(reason).toEqual({
      code: 'NOT_ACCEPTED',
      message: 'The rule takes volumes of at least 6 slices, and this one has 5.',
    });
    expect((await tomaat(['gateway', 'retry', '--failed', '--data', data])).stdout).toBe(
      '1 of 1 failed series is queued again.\n',
    );
    expect((await tomaat(['gateway', 'drop', id, '--data', data])).stdout).toBe(`Series ${id} is dropped.\n`);
    expect((await tomaat(['gateway', 'retry', id, '--data', data])).stdout).toBe(
      `Series ${id} is queued again.\n`,
    );
    expect(await list('--limit', '1')).toMatchObject([{ id, state: 'queued' }]);
    const unknown = await tomaat(['gateway', 'drop', '999', '--data', data]);
    expect(unknown).toMatchObject({ code: 2, stdout: '' });
    expect(unknown.stderr).toContain('There is no series with the id 999');
    const verified = await tomaat(['audit', 'verify', '--data', data]);
    expect(verified.code, verified.stderr).toBe(0);
  }, 60_000);

  it('drop has the service delete the job that computes the series', async () => {
    const [slowData, slowFile] = [inFolder('slow-data'), inFolder('slow.yaml')];
    mkdirSync(inFolder('slow-inbox'));
    writeFileSync(
      slowFile,
      rules(server.url)
        .replace('path: inbox', 'path: slow-inbox')
        .replace('service: threshold }', 'service: slow }'),
    );
    for (const [i, bytes] of (await madeFiles({}, new Int16Array(13 * 7 * 5))).entries())
      writeFileSync(inFolder('slow-inbox', `${i}.dcm`), bytes);
    await using _gateway = await startGateway('--config', slowFile, '--data', slowData);
    const rows = () => list('--data', slowData);
    await expect.poll(async () => (await rows())[0]?.job, { timeout: 30_000, interval: 300 }).toBeDefined();
    const blobs = () => readdirSync(join(server.dataFolder, 'blobs/sha256'));
    expect(blobs()).not.toEqual([]);
    const [{ id }] = await rows();
    expect((await tomaat(['gateway', 'drop', id, '--data', slowData])).code).toBe(0);
    await expect.poll(blobs, { timeout: 15_000 }).toEqual([]);
    await expect.poll(async () => (await rows())[0].job, { timeout: 15_000, interval: 300 }).toBeUndefined();
  }, 90_000);
});
