import { type ChosenSeries, type Client, type JobIn, openDicomInput, type Service } from '@tomaat/client';
import { belongingOf, collectBytes, parseDicom, sourceFromBytes, writeVolume } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { asymmetricLabels, madeFiles, madeSource } from '../../../core/test/dicom-source.ts';
import { nodePlatform } from '../node-platform.ts';
import { buildResults } from './build-results.ts';
import type { FetchedSeries } from './fetch-series.ts';
import type { OpenService } from './service.ts';

const { grid } = madeSource();
const labelMap = await collectBytes(writeVolume(asymmetricLabels(grid), 'nii.gz', nodePlatform));

/** A series of a patient; all else is equal, UIDs too. */
async function fetchedOf(patient: string, shearMm = 0): Promise<FetchedSeries> {
  const made = { patientName: new TextEncoder().encode(patient), shearMm };
  const files = await madeFiles(made, new Int16Array(13 * 7 * 5));
  const sources = files.map((bytes, i) => sourceFromBytes(`${i}.dcm`, bytes));
  const belongings = files.map((bytes) => belongingOf(parseDicom(bytes)!));
  return {
    chosen: (await openDicomInput(sources, nodePlatform)).choose(),
    image: belongings[0],
    instances: new Set(belongings.map(({ sopInstanceUid }) => sopInstanceUid)),
    digest: 'a digest',
  };
}

const opened = {
  client: { output: async () => ({ bytes: async () => labelMap }) } as unknown as Client,
  service: {
    ...{ id: 'an-app', name: 'An app', version: '1.2.0', labels: [] },
    outputs: [{ name: 'labels', type: 'LabelVolume', primary: true }],
  } as unknown as Service,
  results: [{ format: 'seg.dcm', output: 'labels' }],
} as unknown as OpenService;
const job = {
  ...{ id: 'a job', state: 'succeeded', parameters: {} },
  outputs: [{ name: 'labels', format: 'nii.gz' }],
} as unknown as JobIn<'succeeded'>;
const options = {
  row: { study: '1.2.3', seenAt: 0 },
  seed: 'a seed',
  earlier: [],
  signal: new AbortController().signal,
};

describe('buildResults()', () => {
  it('makes an object of the patient and series that were fetched', async () => {
    const fetched = await fetchedOf('Doe^Jane');
    const [result, ...others] = await buildResults(fetched, job, opened, options);
    expect(others).toEqual([]);
    const found = belongingOf(parseDicom(result.bytes)!);
    expect(found.patient).toEqual(fetched.image.patient);
    expect(found.studyUid).toBe('1.2.3');
    expect(result).toMatchObject({ series: found.seriesUid, sopInstance: found.sopInstanceUid });
  });

  it.each([
    ['of another patient', 'Roe^John', 0],
    ['at another place', 'Doe^Jane', 0.7],
  ])('refuses an object %s', async (_, patient, shearMm) => {
    const fetched = await fetchedOf('Doe^Jane');
    const { chosen: other } = await fetchedOf(patient, shearMm);
    const sheared = asymmetricLabels(madeSource({ shearMm }).grid);
    const onOther = await collectBytes(writeVolume(sheared, 'nii.gz', nodePlatform));
    const createResult: ChosenSeries['createResult'] = (_output, ...rest) =>
      other.createResult(onOther, ...rest);
    const wrong = { ...fetched, chosen: { ...fetched.chosen, createResult } };
    await expect(buildResults(wrong, job, opened, options)).rejects.toMatchObject({ code: 'CONFLICT' });
  });
});
