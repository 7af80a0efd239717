import { readVolume, sourceFromBytes, type Volume } from '@tomaat/core';
import { nodePlatform } from '../src/node-platform.ts';
import { writeApp } from './app-fixture.ts';

/*
 * An app whose labels have values with gaps, of which one is beyond a byte, other labels with another parameter, and names
 * that a client may stumble over; its result is not symmetric.
 */

export const organLabels = [
  { value: 3, name: 'liver', when: { detail: 'fine' } },
  { value: 7, name: 'left "kidney"; größer', when: { detail: 'fine' } },
  { value: 40, name: '2', when: { detail: 'fine' } },
  { value: 300, name: 'background', when: { detail: 'fine' } },
  // Never in a result.
  { value: 301, name: 'absent', when: { detail: 'fine' } },
  { value: 3, name: 'organ', when: { detail: 'coarse' } },
];

/** The numbers of the voxels, by the names that are published. */
export const fineNames = {
  liver: 1,
  'left "kidney"; größer': 2,
  'label 2': 3,
  'label background': 4,
  absent: 5,
};

/** The values of the app's labels in the voxel of that index, by its place: `detail` is fine. */
export const organAt = (x: number, y: number, z: number): number =>
  [0, 3, 7, 40, 300][(x + 2 * y + 3 * z) % 5];

export const writeOrgans = (folder: string): Promise<string> =>
  writeApp(folder, 'organs', {
    inputs: {
      volume: { type: 'volume' },
      prior: { type: 'volume', optional: true },
      detail: { type: 'radiobutton', options: ['coarse', 'fine'], default: 'fine' },
      flip: { type: 'checkbox', default: false },
      level: { type: 'slider', minimum: -200, maximum: 200, default: 6 },
    },
    labels: organLabels,
    infer: `
      const { size: [nx, ny] } = volume;
      if (inputs.level < -100) await sleep(60_000);
      if (inputs.level === 199) throw new Error('no such level');
      const values = inputs.detail === 'fine' ? [0, 3, 7, 40, 300] : [0, 3, 3, 3, 3];
      const voxels = Uint16Array.from(volume.voxels, (_, i) => {
        const [x, y, z] = [i % nx, Math.floor(i / nx) % ny, Math.floor(i / nx / ny)];
        return values[(x + 2 * y + 3 * z + (inputs.flip ? 1 : 0)) % 5];
      });
      return { segmentation: { ...volume, voxels } };`,
  });

/** What an answer of /infer consists of. */
export interface Inferred {
  params: Record<'label_names' | 'original_values' | 'latencies', Record<string, number>>;
  fileName: string;
  bytes: Uint8Array<ArrayBuffer>;
}

export async function readInferred(response: Response): Promise<Inferred> {
  const form = await response.formData();
  const image = form.get('image') as File;
  return {
    params: JSON.parse(String(form.get('params'))),
    fileName: image.name,
    bytes: new Uint8Array(await image.arrayBuffer()),
  };
}

export const readMap = async (bytes: Uint8Array<ArrayBuffer>): Promise<Volume> =>
  (await readVolume([sourceFromBytes('map', bytes)], nodePlatform)).volume;

/** The header of an NRRD file, without the empty line after it. */
export function nrrdHeader(bytes: Uint8Array): string[] {
  const text = Buffer.from(bytes).toString('latin1');
  return text.slice(0, text.indexOf('\n\n')).split('\n');
}
