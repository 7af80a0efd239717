import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { receiptSchema } from '@tomaat/client';
import { parseManifest } from '@tomaat/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { sha256Of } from '../../test/audit-lines.ts';
import type { App } from '../apps.ts';
import { openIdentity } from '../identity.ts';
import type { Database } from '../store/database/database.ts';
import { openServerDatabase, type ServerSchema } from '../store/database/server-database.ts';
import type { SettledJob } from '../store/jobs/job-records.ts';
import { version } from '../version.ts';
import { type Audit, openAudit } from './audit-log.ts';
import { createWitness, researchNotice } from './receipts.ts';

const digestOf = (text: string) => `sha256:${sha256Of(text)}`;
const manifestOf = (name: string, version: string, rest: string) =>
  parseManifest(
    `schemaVersion: 1
id: two-models
name: ${name}
description: For a test.
version: ${version}
modality: any
anatomy: any
task: test
authors: [Somebody]
licence: Apache-2.0
intendedUse: A test.
inputs:
  volume: { type: volume, label: Volume }
${rest}`,
    'tomaat.yaml',
  );
const manifest = manifestOf(
  'Two models',
  '2.3.4',
  `  factor: { type: slider, label: Factor, minimum: 0, maximum: 10, default: 1 }
  invert: { type: checkbox, label: Invert, default: false }
  side: { type: radiobutton, label: Side, options: [left, right] }
  seeds: { type: fiducials, label: Seeds }
model: { runtime: onnx, file: net.onnx, sha256: ${sha256Of('weights')} }
devices: [cpu, webgpu]
outputs:
  mask: { type: LabelVolume, label: Mask }
labels:
  - { value: 1, name: one, color: '#7fb069' }
`,
);
const app: App = {
  folder: '/none',
  manifest,
  manifestText: 'manifest',
  manifestSha256: sha256Of('manifest'),
};
const output = {
  name: 'mask',
  type: 'LabelVolume',
  label: 'Mask of somebody',
  primary: true,
  format: 'nii.gz' as const,
  digest: digestOf('mask'),
  sizeBytes: 12,
};
const job: SettledJob = {
  id: 'job-1',
  service: 'two-models',
  owner: 'key:a',
  request: { parameters: {}, stem: 'Somebody' },
  state: 'succeeded',
  createdMs: 1_000,
  startedMs: 2_000,
  settledMs: 3_000,
  expiresMs: 4_000,
  inputs: [
    {
      name: 'volume',
      fileName: 'Somebody.nii',
      digest: digestOf('kept'),
      sizeBytes: 7,
      received: digestOf('came'),
    },
    { name: 'other', fileName: 'x.nii', digest: digestOf('other'), sizeBytes: 8 },
  ],
  outputs: [output],
  rewrites: ['sub-pixel'],
  device: 'cuda:1',
};

let folder: string;
let audit: Audit;
let database: Database<ServerSchema>;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-receipts-'));
  database = await openServerDatabase(folder);
  audit = await openAudit(folder, { identity: await openIdentity(folder) });
});
afterEach(async () => {
  await audit.close();
  await database.close();
  await rm(folder, { recursive: true, force: true });
});
const receiptBy = (apps: readonly App[], of: SettledJob) =>
  database.transaction(async (trx) => createWitness(apps, audit).receiptOf?.(of, trx));
/** The lines of the log without what chains them. */
const lines = async () =>
  (await readFile(join(folder, 'audit.jsonl'), 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => {
      const { seq: _seq, time: _time, prev: _prev, hash: _hash, ...rest } = JSON.parse(line);
      return rest;
    });

describe('receiptOf()', () => {
  it('says what came, by what, when, and what became of it', async () => {
    audit.record('server.started');
    const receipt = await receiptBy([app], job);
    const sent = JSON.parse(JSON.stringify(receipt));
    expect(sent).toEqual({
      kind: 'tomaat-receipt/1',
      notice: researchNotice,
      job: 'job-1',
      state: 'succeeded',
      server: { software: 'tomaat', version },
      service: {
        id: 'two-models',
        version: '2.3.4',
        manifest: digestOf('manifest'),
        models: [
          { runtime: 'onnx', digest: digestOf('weights'), device: 'cuda:1', verifiedOn: ['cpu', 'webgpu'] },
        ],
      },
      acceptedTime: '1970-01-01T00:00:01.000Z',
      startedTime: '1970-01-01T00:00:02.000Z',
      settledTime: '1970-01-01T00:00:03.000Z',
      inputs: [
        { name: 'volume', sizeBytes: 7, received: digestOf('came'), stored: digestOf('kept') },
        { name: 'other', sizeBytes: 8, received: digestOf('other'), stored: digestOf('other') },
      ],
      parameters: {},
      rewrites: ['sub-pixel'],
      outputs: [
        {
          name: 'mask',
          type: 'LabelVolume',
          format: 'nii.gz',
          primary: true,
          sizeBytes: 12,
          digest: digestOf('mask'),
        },
      ],
      retention: {
        inputs: expect.stringContaining('deleted'),
        results: expect.stringContaining('deleted'),
        resultsDeletedTime: '1970-01-01T00:00:04.000Z',
      },
      audit: { ...audit.head() },
    });
    expect(sent.audit.sequence).toBe(1);
    expect(receiptSchema.parse(sent)).toEqual(sent);
    expect(JSON.stringify(sent)).not.toContain('Somebody');
  });

  it('shows numbers and choices, and the SHA-256 of what a person may have written', async () => {
    const seeds = [[1, 2, 3]];
    const parameters = { factor: 5, invert: true, side: 'left', seeds, unknown: 'Somebody', volume: 'x' };
    const odd = await receiptBy([app], {
      ...job,
      request: {
        parameters: { ...parameters, factor: [5] as never, side: null },
        frame: 3,
        series: '1.2.3',
        stem: 'x',
      },
    });
    const plain = await receiptBy([app], { ...job, request: { parameters, stem: 'x' } });
    const hashed = (value: unknown) => ({ digest: digestOf(JSON.stringify(value)) });
    const others = { seeds: hashed(seeds), unknown: hashed('Somebody'), volume: hashed('x') };
    expect(plain).toMatchObject({ parameters: { factor: 5, invert: true, side: 'left', ...others } });
    expect(plain).toMatchObject({ frame: undefined, series: undefined });
    expect(odd).toMatchObject({
      frame: 3,
      series: hashed('1.2.3'),
      parameters: { factor: hashed([5]), invert: true, side: hashed(null), ...others },
    });
  });

  it('explains a prediction that never ran, and lists models without weights', async () => {
    const { startedMs: _startedMs, ...waiting } = job;
    const program = manifestOf(
      'A program',
      '1.0.0',
      `model: { runtime: command, command: [python3, app.py] }
outputs:
  text: { type: PlainText, label: Text }
`,
    );
    const receipt = await receiptBy([{ ...app, manifest: program }], {
      ...waiting,
      state: 'canceled',
      error: { code: 'CANCELED', message: 'Somebody did.' },
      outputs: [],
    });
    const sent = JSON.parse(JSON.stringify(receipt));
    expect(sent).toMatchObject({ state: 'canceled', error: 'CANCELED', outputs: [] });
    expect(sent).not.toHaveProperty('startedTime');
    expect(sent.service.models).toEqual([{ runtime: 'command' }]);
    expect(JSON.stringify(sent)).not.toContain('Somebody');
  });

  it('does not exist for a service that is no longer offered', async () => {
    expect(await receiptBy([], job)).toBeUndefined();
  });
});

describe('createWitness()', () => {
  it('writes a line for each step of a job, without file names', async () => {
    const witness = createWitness([app], audit);
    const { id, service, owner } = job;
    await database.transaction(async (trx) => {
      await witness.accepted?.({ id, service, owner, inputs: job.inputs }, trx);
      await witness.accepted?.({ id, service: 'gone', owner, inputs: [] }, trx);
      await witness.settled?.(job, trx);
      const error = { code: 'APP_FAILED', message: 'x' } as const;
      await witness.settled?.({ ...job, state: 'failed', error, outputs: [] }, trx);
      await witness.removed?.({ id, service, owner }, 'deleted', trx);
      await witness.removed?.({ id, service, owner }, 'expired', trx);
      expect(audit.head().sequence).toBe(0);
    });
    const of = { who: 'key:a', service: 'two-models', job: 'job-1' };
    expect(await lines()).toEqual([
      {
        event: 'prediction.accepted',
        ...of,
        version: '2.3.4',
        inputs: [
          { name: 'volume', digest: digestOf('kept'), received: digestOf('came') },
          { name: 'other', digest: digestOf('other') },
        ],
      },
      { event: 'prediction.accepted', ...of, service: 'gone', inputs: [] },
      {
        event: 'prediction.succeeded',
        ...of,
        outcome: 'succeeded',
        outputs: [{ name: 'mask', digest: digestOf('mask') }],
      },
      { event: 'prediction.failed', ...of, outcome: 'APP_FAILED', outputs: [] },
      { event: 'job.deleted', ...of },
      { event: 'job.expired', ...of },
    ]);
  });

  it('writes no line about a change that is rolled back', async () => {
    const witness = createWitness([app], audit);
    const failing = database.transaction(async (trx) => {
      await witness.settled?.(job, trx);
      throw new Error('no commit');
    });
    await expect(failing).rejects.toThrow('no commit');
    expect(audit.head().sequence).toBe(0);
  });
});
