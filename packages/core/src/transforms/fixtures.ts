import { oblique } from '../geometry/fixtures.ts';
import type { Volume } from '../volume.ts';
import { imageTransforms } from './table.ts';

/** What the tests of transforms share: applying them by name, rows of voxels. */

/** What the transforms have logged. */
export const logged: string[] = [];
const context = { parameters: {}, log: (text: string) => logged.push(text) };

/** The volume after these transforms, with their parameters as a manifest gives them. */
export async function apply(
  volume: Volume,
  ...steps: (readonly [name: string, parameters?: object])[]
): Promise<Volume> {
  let out = volume;
  for (const [name, parameters] of steps) {
    const transform = imageTransforms.find((t) => t.name === name);
    if (!transform) throw new Error(`no transform ${name}`);
    out = await transform.apply(out, transform.parameters.parse(parameters ?? {}), context);
  }
  return out;
}

/** A row of float32 voxels. */
export const row = (...values: number[]): Volume => ({
  voxels: Float32Array.from(values),
  size: [values.length, 1, 1],
  components: 1,
  affine: oblique,
});
/** The voxels after these transforms, rounded to five digits. */
export const values = async (volume: Volume, ...steps: (readonly [string, object?])[]) =>
  Array.from((await apply(volume, ...steps)).voxels as Float32Array, (v) => Number(v.toFixed(5)));
