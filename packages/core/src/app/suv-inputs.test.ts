import { describe, expect, it } from 'vitest';
import { madeFiles } from '../../test/dicom-source.ts';
import { TomaatError } from '../errors.ts';
import { sourceFromBytes } from '../formats/volume-file.ts';
import type { SuvScale } from '../volume.ts';
import { levels, networkOf, program, programOf, run, scanFiles } from './fixtures.ts';
import { acceptSuv, computesSuv } from './suv-inputs.ts';

const suv = { refusal: 'No SUV: a CT' };
const refusalOf = (manifest: ReturnType<typeof programOf>, given?: SuvScale, parameters = {}) => {
  try {
    acceptSuv(manifest, parameters, 'volume', given);
  } catch (error) {
    return error as TomaatError;
  }
  return undefined;
};

describe('acceptSuv()', () => {
  it('refuses by the header, and names the input', () => {
    const manifest = programOf({ preprocess: ['standardUptakeValue'] });
    expect(refusalOf(manifest, suv)).toMatchObject({
      code: 'BAD_INPUT',
      field: 'volume',
      message: 'No SUV: a CT.',
    });
    expect(refusalOf(manifest, { factor: 2 })).toBeUndefined();
    expect(refusalOf(manifest)?.message).toContain('only DICOM files');
  });

  it('follows the steps of the input itself, of several volumes too', () => {
    const own = { type: 'volume', preprocess: ['standardUptakeValue'] };
    const manifest = programOf({ inputs: { volume: own, ct: { type: 'volume' } } });
    expect(refusalOf(manifest, suv)).toMatchObject({ field: 'volume', message: 'No SUV: a CT.' });
    expect(() => acceptSuv(manifest, {}, 'ct', suv)).not.toThrow();
    expect(() =>
      programOf({
        inputs: { volume: { type: 'volume', preprocess: ['scaleIntensity', 'standardUptakeValue'] } },
      }),
    ).toThrow(/must come before scaleIntensity/);
  });

  it('takes every volume where no SUV are computed', () => {
    expect(refusalOf(programOf(), suv)).toBeUndefined();
    const inputs = { volume: { type: 'volume' }, unit: { type: 'radiobutton', options: ['refuse', 'suv'] } };
    const preprocess = [{ standardUptakeValue: { withoutHeader: '$unit' }, when: { unit: 'refuse' } }];
    const manifest = programOf({ inputs, preprocess });
    expect(refusalOf(manifest, suv, { unit: 'suv' })).toBeUndefined();
    expect(refusalOf(manifest, undefined, { unit: 'refuse' })).toBeInstanceOf(TomaatError);
  });

  it('leaves the choice to the caller where a parameter has it', () => {
    const inputs = { volume: { type: 'volume' }, unit: { type: 'radiobutton', options: ['refuse', 'suv'] } };
    const manifest = programOf({ inputs, preprocess: [{ standardUptakeValue: { withoutHeader: '$unit' } }] });
    expect(refusalOf(manifest, undefined, { unit: 'suv' })).toBeUndefined();
    expect(refusalOf(manifest, suv, { unit: 'suv' })).toBeInstanceOf(TomaatError);
  });
});

it('computesSuv() looks at the steps of all inputs, whatever their condition', () => {
  const step = [{ standardUptakeValue: {}, when: { unit: 'suv' } }];
  const unit = { type: 'radiobutton', options: ['suv', 'none'] };
  expect(computesSuv(programOf())).toBe(false);
  expect(computesSuv(programOf({ preprocess: ['scaleIntensity'] }))).toBe(false);
  expect(computesSuv(programOf({ inputs: { volume: { type: 'volume' }, unit }, preprocess: step }))).toBe(
    true,
  );
  const inputs = { ct: { type: 'volume' }, pet: { type: 'volume', preprocess: step }, unit };
  expect(computesSuv(programOf({ inputs }))).toBe(true);
});

describe('predict() of SUV', () => {
  it('refuses a converted file before the model is loaded', async () => {
    let hasLoaded = false;
    const load = async () => {
      hasLoaded = true;
      return program(() => ({}));
    };
    const manifest = programOf({ preprocess: ['standardUptakeValue'] });
    await expect(
      run(
        manifest,
        program(() => ({})),
        { files: await scanFiles(), load },
      ),
    ).rejects.toMatchObject({
      code: 'BAD_INPUT',
      field: 'volume',
    });
    expect(hasLoaded).toBe(false);
  });

  it('refuses several volumes as the channels of one', async () => {
    const series = async () => {
      const all = await madeFiles({ size: [4, 3, 2] }, new Int16Array(24));
      return all.map((bytes, i) => sourceFromBytes(`${i}.dcm`, bytes));
    };
    const manifest = networkOf({
      inputs: { pet: { type: 'volume' }, ct: { type: 'volume' } },
      model: { ...networkOf().model[0], channels: ['pet', 'ct'] },
      preprocess: ['standardUptakeValue'],
    });
    const files = { pet: await series(), ct: await series() };
    await expect(run(manifest, levels, { files })).rejects.toThrow(/several volumes as channels of one/);
  });
});
