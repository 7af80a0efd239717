import { execFileSync } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findPython } from '../../../test/programs.ts';
import { openApp } from '../src/apps.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { runFiles } from './run-files.ts';
import { temporaryFolder } from './test-server.ts';

/* Names of labels in the language of the model's author, in every file and report that has them. */

const simpleItk = findPython('SimpleITK');
const names = ['Läsion', '肺', 'Größe', 'Œdème n°1', 'a\\b', 'शिरा', 'lésion à gauche'];

let folder: string;
let outputs: Record<string, Buffer>;
beforeAll(async () => {
  folder = await temporaryFolder();
  const app = await openApp(
    await writeApp(folder, 'named', {
      infer: inferBright,
      labels: names.map((name, i) => ({ value: i + 1, name })),
      outputs: {
        segmentation: { type: 'LabelVolume' },
        volumes: { type: 'Measurements', from: 'segmentation' },
        report: { type: 'PlainText', from: 'segmentation', report: 'volumes' },
      },
    }),
  );
  const volume = await encode(phantom(), 'nii.gz');
  ({ outputs } = await runFiles(
    app,
    { volume: ['scan.nii.gz', volume] },
    { formats: { segmentation: 'nrrd' } },
  ));
  await writeFile(join(folder, 'labels.nrrd'), outputs.segmentation);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('names of labels that are not ASCII', () => {
  it('are whole in measurements and in the report', () => {
    const { labels } = JSON.parse(outputs.volumes.toString('utf8')) as { labels: { name: string }[] };
    expect(labels.map(({ name }) => name)).toEqual(names);
    const report = outputs.report.toString('utf8');
    for (const name of names) expect(report).toContain(name);
  });

  it('are whole in the segments of an NRRD file', async () => {
    const header = (await readFile(join(folder, 'labels.nrrd'))).toString('utf8').split('\n\n')[0];
    for (const name of names) expect(header).toContain(`_Name:=${name.replace('\\', '\\\\')}\n`);
  });

  it.skipIf(!simpleItk)('are read by SimpleITK as they are', () => {
    const script =
      'import json, sys, SimpleITK as sitk; image = sitk.ReadImage(sys.argv[1]); ' +
      'print(json.dumps([image.GetMetaData("Segment%d_Name" % i) for i in range(int(sys.argv[2]))]))';
    const text = execFileSync(simpleItk!, ['-c', script, join(folder, 'labels.nrrd'), String(names.length)], {
      encoding: 'utf8',
    });
    expect(JSON.parse(text)).toEqual(names);
  });
});
