import { describe, expect, it } from 'vitest';
import { asymmetricLabels, madeSource } from '../../test/dicom-source.ts';
import { TomaatError } from '../errors.ts';
import { collectBytes } from '../formats/volume-file.ts';
import { measureLabels } from '../labels/measure.ts';
import type { Belonging } from './belonging.ts';
import { ascii, bytesElement } from './build.ts';
import { checkResult, isSameResult, type ResultOrigin } from './check-result.ts';
import type { Dataset, DicomElement } from './dataset.ts';
import { buildMeasurementReport } from './measurement-report.ts';
import { buildSegmentation } from './segmentation.ts';
import { identifySegmentation } from './segmentation-identity.ts';
import { buildStructureSet } from './structure-set.ts';
import { type DicomObject, writeDicomFile } from './write-file.ts';

const options = {
  labels: [],
  maker: { id: 'an-app', name: 'An app', version: '1.2.0' },
  description: 'Labels',
  role: 'labels',
  seed: 'a job',
  time: new Date(0),
};
const { source, grid } = madeSource();
const labelMap = asymmetricLabels(grid);
/** By hand, as madeSource() writes it. */
const image: Belonging = {
  sopClassUid: '1.2.840.10008.5.1.4.1.1.4',
  sopInstanceUid: '1.2.3.1',
  studyUid: '1.2.3',
  seriesUid: '1.2.3.0',
  patient: ['P-1', '', 'Doe^Jane', '', ''],
};
const origin: ResultOrigin = {
  image,
  source,
  instances: new Set(['1.2.3.1', '1.2.3.2', '1.2.3.3', '1.2.3.4', '1.2.3.5']),
  others: [],
};

const segmentation = () => buildSegmentation(labelMap, source, options);
const structureSet = () => buildStructureSet(labelMap, source, options);
const measured = identifySegmentation(labelMap, options);
const report = () =>
  buildMeasurementReport(measureLabels(labelMap, []), source, { ...options, segmentation: measured });
const bytesOf = (object: DicomObject) => collectBytes(writeDicomFile(object));
const set = (object: DicomObject, ...elements: readonly DicomElement[]): DicomObject => ({
  ...object,
  dataset: new Map([...object.dataset, ...elements.map((element) => [element.tag, element] as const)]),
});
/** The object with an element of the items that it finds in replaced. */
function replaced(
  object: DicomObject,
  tag: number,
  change: (element: DicomElement) => DicomElement,
): DicomObject {
  let isDone = false;
  const walk = (dataset: Dataset): Dataset =>
    new Map(
      [...dataset].map(([key, element]) => {
        if (key === tag && !isDone) {
          isDone = true;
          return [key, change(element)];
        }
        return [
          key,
          element.kind === 'sequence'
            ? { ...element, items: element.items.map((item) => walk(item)) }
            : element,
        ];
      }),
    );
  const dataset = walk(object.dataset);
  expect(isDone).toBe(true);
  return { ...object, dataset };
}
async function refusalOf(object: DicomObject, from: Partial<ResultOrigin> = {}): Promise<string> {
  const bytes = await bytesOf(object);
  try {
    checkResult(bytes, { ...origin, ...from });
  } catch (error) {
    if (!(error instanceof TomaatError)) throw error;
    expect(error.code).toBe('CONFLICT');
    return error.message;
  }
  return '';
}

describe('checkResult()', () => {
  it('accepts the results of their images, and says whose they are', async () => {
    const seg = checkResult(await bytesOf(await segmentation()), origin);
    expect(seg).toMatchObject({ studyUid: '1.2.3', sopInstanceUid: measured.sopInstanceUid });
    expect(seg.patient).toEqual(image.patient);
    expect(checkResult(await bytesOf(await structureSet()), origin).sopClassUid).toMatch(/481\.3$/);
    const others = [{ sopInstanceUid: measured.sopInstanceUid, seriesUid: measured.seriesInstanceUid }];
    expect(checkResult(await bytesOf(report()), { ...origin, others }).sopClassUid).toMatch(/88\.33$/);
  });

  it('accepts the results of a tilted series and of a multi-frame image', async () => {
    for (const made of [{ shearMm: 0.7 }, { frames: true }]) {
      const other = madeSource(made);
      const from = {
        source: other.source,
        instances: new Set(other.source.slices.map(({ sopInstanceUid }) => sopInstanceUid)),
      };
      const labels = asymmetricLabels(other.grid);
      expect(await refusalOf(await buildSegmentation(labels, other.source, options), from)).toBe('');
      expect(await refusalOf(await buildStructureSet(labels, other.source, options), from)).toBe('');
    }
  });

  it('refuses another patient, study or series, without a name in the message', async () => {
    const seg = await segmentation();
    const text = (value: string) => new TextEncoder().encode(value);
    for (const patient of [
      bytesElement(0x00100010, 'PN', text('Roe^Jane')),
      bytesElement(0x00100020, 'LO', text('P-2')),
      ascii(0x00100030, 'DA', '19700101'),
    ]) {
      const message = await refusalOf(set(seg, patient));
      expect(message).toContain('another patient');
      expect(message).not.toMatch(/Roe|P-2|1970/);
    }
    expect(await refusalOf(set(seg, ascii(0x0020000d, 'UI', '1.2.4')))).toContain('another study');
    expect(await refusalOf(set(seg, ascii(0x0020000e, 'UI', '1.2.3.0')))).toContain('series of the images');
  });

  it('refuses references to what is not of the series', async () => {
    const foreign = (element: DicomElement) => ascii(element.tag, 'UI', '1.2.77');
    for (const object of [await segmentation(), await structureSet()]) {
      expect(await refusalOf(replaced(object, 0x00081155, foreign))).toContain('names an object');
      expect(await refusalOf(replaced(object, 0x00200052, foreign))).toContain('frame of reference');
    }
    expect(await refusalOf(replaced(await structureSet(), 0x30060024, foreign))).toContain(
      'frame of reference',
    );
    // The segmentation of the report is not among those that it may name.
    const { seriesInstanceUid: seriesUid } = measured;
    const stranger = [{ sopInstanceUid: '1.2.78', seriesUid }];
    expect(await refusalOf(report(), { others: stranger })).toContain('names an object');
  });

  it('refuses frames and contours that lie elsewhere than their images', async () => {
    const moved = (element: DicomElement) => {
      if (element.kind !== 'value') throw new Error('no value');
      const [x, ...rest] = new TextDecoder().decode(element.bytes).split('\\');
      return ascii(
        element.tag,
        'DS',
        Number((Number(x) + 0.02).toFixed(6)),
        ...rest.map((part) => part.trim()),
      );
    };
    expect(await refusalOf(replaced(await segmentation(), 0x00200032, moved))).toContain('a frame elsewhere');
    const next = (element: DicomElement) => ascii(element.tag, 'UI', '1.2.3.5');
    const seg = await segmentation();
    const swapped = replaced(seg, 0x52009230, (frames) => ({
      ...(replaced({ ...seg, dataset: new Map([[frames.tag, frames]]) }, 0x00081155, next).dataset.get(
        frames.tag,
      ) as DicomElement),
    }));
    expect(await refusalOf(swapped)).toContain('a frame elsewhere');
    const contours = await structureSet();
    const other = replaced(contours, 0x30060039, (structures) => ({
      ...(replaced(
        { ...contours, dataset: new Map([[structures.tag, structures]]) },
        0x00081155,
        next,
      ).dataset.get(structures.tag) as DicomElement),
    }));
    expect(await refusalOf(other)).toContain('a contour outside');
  });

  it('refuses a segmentation on the grid of another series', async () => {
    const turned = madeSource({ shearMm: 0.7 });
    const object = await buildSegmentation(asymmetricLabels(turned.grid), turned.source, options);
    expect(await refusalOf(object)).toContain('the grid of the images');
  });
});

describe('isSameResult()', () => {
  it('does not see when a result was made, and sees all else', async () => {
    const bytes = await bytesOf(await segmentation());
    const later = { ...options, time: new Date(864e5 * 400) };
    const again = await bytesOf(await buildSegmentation(labelMap, source, later));
    expect(again).not.toEqual(bytes);
    expect(isSameResult(bytes, again)).toBe(true);
    const voxels = Uint8Array.from(labelMap.voxels as Uint8Array);
    voxels[0] = voxels[0] === 1 ? 3 : 1;
    const changed = await buildSegmentation({ ...labelMap, voxels }, source, options);
    expect(isSameResult(bytes, await bytesOf(changed))).toBe(false);
    const other = set(await segmentation(), ascii(0x00100030, 'DA', '19700101'));
    expect(isSameResult(bytes, await bytesOf(other))).toBe(false);
  });
});
