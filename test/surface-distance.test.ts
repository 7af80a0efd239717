import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  collectBytes,
  compareLabelMaps,
  readVolume,
  reorient,
  sourceFromBytes,
  type Volume,
  writeVolume,
} from '@tomaat/core';
import { afterAll, describe, expect, it } from 'vitest';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { findPython } from './programs.ts';

/* Surface distances against those that scipy and SimpleITK compute, on the labels of the bundled app's own sample. */

const python = findPython('scipy', 'nibabel', 'SimpleITK');
const folder = mkdtempSync(join(tmpdir(), 'tomaat-distance-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Surfaces by erosion (scipy) and by contour (SimpleITK); distances by either's own transform. */
const script = `
import json, sys, numpy as np, nibabel, SimpleITK as sitk
from scipy import ndimage
found, expected = sys.argv[1:]
a, b = (np.asarray(nibabel.load(f).dataobj) for f in (found, expected))
spacing = nibabel.load(expected).header.get_zooms()[:3]
def with_scipy(p, q):
    surface = [m & ~ndimage.binary_erosion(m, ndimage.generate_binary_structure(3, 1)) for m in (p, q)]
    maps = [ndimage.distance_transform_edt(~s, sampling=spacing) for s in surface]
    return maps[1][surface[0]], maps[0][surface[1]]
def with_itk(p, q):
    out = []
    for m, n in ((p, q), (q, p)):
        images = []
        for mask in (m, n):
            image = sitk.GetImageFromArray(np.pad(mask.astype(np.uint8), 1).T)
            image.SetSpacing([float(s) for s in spacing])
            images.append(sitk.LabelContour(image, False))
        distance = sitk.SignedMaurerDistanceMap(images[1], squaredDistance=False, useImageSpacing=True)
        # Inside a surface of one voxel the map is 0 or negative.
        values = np.abs(sitk.GetArrayFromImage(distance))[sitk.GetArrayFromImage(images[0]) > 0]
        out.append(values)
    return out
def numbers(ways):
    return [float((ways[0].sum() + ways[1].sum()) / (len(ways[0]) + len(ways[1]))),
            float(max(np.percentile(w, 95) for w in ways)), float(max(w.max() for w in ways))]
labels = sorted((set(np.unique(a)) & set(np.unique(b))) - {0})
print(json.dumps({int(v): {"scipy": numbers(with_scipy(a == v, b == v)), "itk": numbers(with_itk(a == v, b == v))} for v in labels}))
`;

async function save(name: string, volume: Volume): Promise<string> {
  const path = join(folder, name);
  writeFileSync(path, await collectBytes(writeVolume(volume, 'nii.gz', nodePlatform, { intent: 'label' })));
  return path;
}

describe.skipIf(!python)('surface distances', () => {
  it('are those of scipy and SimpleITK to 1e-6', async () => {
    const bytes = readFileSync(new URL('../apps/ct-lung/sample-expected.nii.gz', import.meta.url));
    const { volume: expected } = await readVolume([sourceFromBytes('expected.nii.gz', bytes)], nodePlatform);
    const [nx, ny] = expected.size;
    // The result: every label three voxels further along x and one along y, and a hole in it.
    const found: Volume = { ...expected, voxels: expected.voxels.slice() as Volume['voxels'] };
    found.voxels.fill(0 as never);
    for (let i = 0; i < expected.voxels.length; i++) {
      const [x, y, z] = [i % nx, Math.floor(i / nx) % ny, Math.floor(i / (nx * ny))];
      if (x + 3 < nx && y + 1 < ny && !(z % 7 === 3 && x % 9 < 2))
        found.voxels[i + 3 + nx] = expected.voxels[i];
    }
    const paths = [await save('found.nii.gz', found), await save('expected.nii.gz', expected)];
    const { stdout, stderr, status } = spawnSync(python!, ['-c', script, ...paths], { encoding: 'utf8' });
    expect(status, stderr).toBe(0);
    const right = JSON.parse(stdout) as Record<string, { scipy: number[]; itk: number[] }>;
    const files = { found: 'found', expected: 'expected' };
    const { labels } = compareLabelMaps(reorient(found, 'PIL'), expected, files);
    expect(Object.keys(right).length).toBeGreaterThan(0);
    for (const { value, surface } of labels) {
      const { mean, hausdorff95, hausdorff } = surface!;
      expect(mean).toBeGreaterThan(0.5);
      for (const [i, mm] of [mean, hausdorff95, hausdorff].entries()) {
        expect(Math.abs(mm - right[value].scipy[i]), `scipy ${value} ${i}`).toBeLessThan(1e-6);
        // ITK's map is float32.
        expect(Math.abs(mm - right[value].itk[i]) / mm, `SimpleITK ${value} ${i}`).toBeLessThan(1e-6);
      }
    }
  });
});
