import { describe, expect, it } from 'vitest';
import type { Volume } from '../volume.ts';
import { labelTransforms } from './table.ts';

const affine = [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1];
const map: Volume & { voxels: Uint8Array } = {
  voxels: Uint8Array.from('1101000200222000'.split(''), Number),
  size: [16, 1, 1],
  components: 1,
  affine,
};
const context = { parameters: {}, log: () => undefined };

async function run(name: string, parameters: unknown, volume: Volume = map): Promise<Volume> {
  const transform = labelTransforms.find((t) => t.name === name)!;
  return transform.apply(volume, transform.parameters.parse(parameters), context);
}
const show = ({ voxels }: Volume) => Array.from(voxels as Uint8Array).join('');

describe('labelTransforms', () => {
  const cases: [name: string, parameters: unknown, result: string][] = [
    ['keepLargestConnectedComponent', {}, '1100000000222000'],
    ['keepLargestConnectedComponent', { appliedLabels: [1], connectivity: 1 }, '1100000200222000'],
    [
      'keepLargestConnectedComponent',
      { independent: false, connectivity: 6, numComponents: 2 },
      '1100000000222000',
    ],
    ['removeSmallObjects', { minSize: 2 }, '1100000000222000'],
    ['removeSmallObjects', { minVolumeMl: 0.024, appliedLabels: [1] }, '0000000200222000'],
    ['fillHoles', {}, '1101000200222000'],
    ['labelFilter', { appliedLabels: [2] }, '0000000200222000'],
    ['mapLabelValue', { origLabels: [1, 2], targetLabels: [2, 1] }, '2202000100111000'],
    ['mapLabelValue', { origLabels: [2, 0], targetLabels: [0, 5] }, '1151555055000555'],
    ['binaryClosing', { radiusMm: 2, appliedLabels: [1] }, '1111000200222000'],
    ['binaryOpening', { radiusMm: 2 }, '1100000000222000'],
    ['binaryDilation', { radiusMm: 2, appliedLabels: [2] }, '1101002222222200'],
    ['binaryErosion', { radiusMm: 2, appliedLabels: [2] }, '1101000000020000'],
  ];
  it.each(cases)('%s %j', async (name, parameters, result) => {
    expect(show(await run(name, parameters))).toBe(result);
    expect(show(map)).toBe('1101000200222000');
  });

  it('mapLabelValue keeps the type where it can and widens it where it must', async () => {
    expect((await run('mapLabelValue', { origLabels: [1], targetLabels: [255] })).voxels).toBeInstanceOf(
      Uint8Array,
    );
    const wide = (await run('mapLabelValue', { origLabels: [1], targetLabels: [1000] })).voxels;
    expect(wide).toBeInstanceOf(Uint16Array);
    expect([wide[0], wide[7]]).toEqual([1000, 2]);
    expect((await run('mapLabelValue', { origLabels: [1], targetLabels: [-1] })).voxels).toBeInstanceOf(
      Int16Array,
    );
    expect((await run('mapLabelValue', { origLabels: [1], targetLabels: [99999] })).voxels).toBeInstanceOf(
      Int32Array,
    );
  });

  it.each([
    ['keepLargestConnectedComponent', { connectivity: 8 }],
    ['keepLargestConnectedComponent', { applied_labels: [1] }],
    ['removeSmallObjects', { minVolumeMl: 0 }],
    ['fillHoles', { slicewise: 'a' }],
    ['labelFilter', {}],
    ['mapLabelValue', { origLabels: [1, 2], targetLabels: [1] }],
    ['mapLabelValue', { origLabels: [1, 1], targetLabels: [1, 2] }],
    ['binaryClosing', {}],
    ['binaryErosion', { radiusMm: -1 }],
  ])('%s refuses %j', (name, parameters) => {
    expect(labelTransforms.find((t) => t.name === name)!.parameters.safeParse(parameters).success).toBe(
      false,
    );
  });
});
