import { describe, expect, it } from 'vitest';
import { asymmetricLabels, madeSource } from '../../test/dicom-source.ts';
import { measureLabels } from '../labels/measure.ts';
import { type Dataset, firstItem, itemsOf, word } from './dataset.ts';
import { buildKeyPicture } from './key-picture.ts';
import { buildMeasurementReport } from './measurement-report.ts';
import { buildSegmentation } from './segmentation.ts';
import { identifySegmentation } from './segmentation-identity.ts';
import { buildStructureSet } from './structure-set.ts';

const { source, grid } = madeSource();
const labelMap = asymmetricLabels(grid);
const options = {
  labels: [],
  maker: { id: 'an-app', name: 'An app', version: '1.2.0' },
  description: 'Labels',
  role: 'labels',
  seed: 'a job',
};
const predecessor = {
  studyUid: '1.2.3',
  seriesUid: '1.2.9',
  sopClassUid: '1.2.840.10008.5.1.4.1.1.7',
  sopInstanceUid: '1.2.9.1',
};
const report = (more: object) => {
  const segmentation = identifySegmentation(labelMap, options);
  return buildMeasurementReport(measureLabels(labelMap, []), source, { ...options, segmentation, ...more });
};
const [nx, ny] = grid.size;
const keyPicture = (more: object) =>
  buildKeyPicture(labelMap, source, {
    ...options,
    readSlice: async () => new Int16Array(nx * ny),
    ...more,
  });
/** Tags by their numbers in PS3.6. */
const at = (dataset: Dataset, ...path: readonly number[]): string | undefined => {
  const [tag, ...rest] = path;
  return rest.length === 0 ? word(dataset, tag) : at(firstItem(dataset, tag) ?? new Map(), ...rest);
};

describe('the predecessor of a result', () => {
  it('is the related series of a segmentation and of a key picture', async () => {
    for (const { dataset } of [
      await buildSegmentation(labelMap, source, { ...options, predecessor }),
      await keyPicture({ predecessor }),
    ]) {
      expect(itemsOf(dataset, 0x00081250)).toHaveLength(1);
      expect(at(dataset, 0x00081250, 0x0020000d)).toBe('1.2.3');
      expect(at(dataset, 0x00081250, 0x0020000e)).toBe('1.2.9');
      expect(at(dataset, 0x00081250, 0x0040a170, 0x00080100)).toBe('122401');
    }
  });

  it('is the predecessor document of a report, in its study and series', () => {
    const { dataset } = report({ predecessor });
    expect(at(dataset, 0x0040a360, 0x0020000d)).toBe('1.2.3');
    expect(at(dataset, 0x0040a360, 0x00081115, 0x0020000e)).toBe('1.2.9');
    const object = [0x0040a360, 0x00081115, 0x00081199];
    expect(at(dataset, ...object, 0x00081150)).toBe('1.2.840.10008.5.1.4.1.1.7');
    expect(at(dataset, ...object, 0x00081155)).toBe('1.2.9.1');
  });

  it('is the predecessor of a structure set', async () => {
    const { dataset } = await buildStructureSet(labelMap, source, { ...options, predecessor });
    expect(at(dataset, 0x30060018, 0x00081150)).toBe('1.2.840.10008.5.1.4.1.1.7');
    expect(at(dataset, 0x30060018, 0x00081155)).toBe('1.2.9.1');
  });

  it('changes nothing else, and is missing where there is none', async () => {
    const time = new Date(0);
    const without = [
      await buildSegmentation(labelMap, source, { ...options, time }),
      report({ time }),
      await buildStructureSet(labelMap, source, { ...options, time }),
      await keyPicture({ time }),
    ];
    const having = [
      await buildSegmentation(labelMap, source, { ...options, time, predecessor }),
      report({ time, predecessor }),
      await buildStructureSet(labelMap, source, { ...options, time, predecessor }),
      await keyPicture({ time, predecessor }),
    ];
    for (const [i, { dataset, sopInstanceUid }] of having.entries()) {
      expect(sopInstanceUid).toBe(without[i].sopInstanceUid);
      const rest = new Map(
        [...dataset].filter(([tag]) => ![0x00081250, 0x0040a360, 0x30060018].includes(tag)),
      );
      expect(rest.size).toBe(dataset.size - 1);
      expect(rest).toEqual(without[i].dataset);
    }
  });
});
