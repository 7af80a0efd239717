import { describe, expect, expectTypeOf, it } from 'vitest';
import type { SpatialTransform } from '../formats/transform-file.ts';
import type { Vec3 } from '../geometry/affine.ts';
import type { Volume } from '../volume.ts';
import { checkDeclaration, defineApp, type NumericVolume } from './define-app.ts';
import { inputSchema, outputSchema } from './elements.ts';

const manifest = {
  inputs: {
    ct: inputSchema.parse({ type: 'volume', label: 'CT' }),
    prior: inputSchema.parse({ type: 'volume', optional: true }),
    level: inputSchema.parse({ type: 'slider', minimum: 0, maximum: 9 }),
    fast: inputSchema.parse({ type: 'checkbox' }),
    organ: inputSchema.parse({ type: 'radiobutton', options: ['liver', 'spleen'] }),
    seeds: inputSchema.parse({ type: 'fiducials' }),
    warp: inputSchema.parse({ type: 'transform' }),
  },
  outputs: {
    segmentation: outputSchema.parse({ type: 'LabelVolume' }),
    mesh: outputSchema.parse({ type: 'VTKMesh' }),
    text: outputSchema.parse({ type: 'PlainText' }),
  },
};

const inputs = {
  ct: { type: 'volume' },
  prior: { type: 'volume', optional: true },
  level: { type: 'slider' },
  fast: { type: 'checkbox' },
  organ: { type: 'radiobutton', options: ['liver', 'spleen'] },
  seeds: { type: 'fiducials' },
  warp: { type: 'transform' },
} as const;
const outputs = { segmentation: { type: 'LabelVolume' }, text: { type: 'PlainText' } } as const;

describe('defineApp()', () => {
  // `npm run types` checks what these lines claim.
  it('types what infer() is called with by the declared inputs', () => {
    const app = defineApp({
      inputs,
      outputs,
      infer(given, { parameters, progress }) {
        expectTypeOf(given.ct).toEqualTypeOf<NumericVolume>();
        expectTypeOf(given.prior).toEqualTypeOf<NumericVolume | undefined>();
        expectTypeOf(given.level).toEqualTypeOf<number>();
        expectTypeOf(given.fast).toEqualTypeOf<boolean>();
        expectTypeOf(given.organ).toEqualTypeOf<'liver' | 'spleen'>();
        expectTypeOf(given.seeds).toEqualTypeOf<readonly Vec3[]>();
        expectTypeOf(given.warp).toEqualTypeOf<SpatialTransform>();
        expectTypeOf(parameters).toEqualTypeOf<{
          readonly level: number;
          readonly fast: boolean;
          readonly organ: 'liver' | 'spleen';
          readonly seeds: readonly Vec3[];
        }>();
        expectTypeOf(progress).toEqualTypeOf<(fraction: number, note?: string) => void>();
        return { segmentation: given.ct, text: given.organ };
      },
    });
    expect(app.inputs).toBe(inputs);
  });

  it('types literals without as const, and what infer() returns', () => {
    const volume = {} as Volume;
    defineApp({
      inputs: { mode: { type: 'radiobutton', options: ['a', 'b'] } },
      outputs,
      infer({ mode }) {
        expectTypeOf(mode).toEqualTypeOf<'a' | 'b'>();
        return { segmentation: volume };
      },
    });
    // @ts-expect-error: the label map is missing
    defineApp({ inputs: {}, outputs, infer: () => ({ text: 'a' }) });
    // @ts-expect-error: a text is not a label map
    defineApp({ inputs: {}, outputs, infer: () => ({ segmentation: 'a' }) });
    // @ts-expect-error: there is no such type of input
    defineApp({ inputs: { ct: { type: 'image' } }, outputs, infer: () => ({ segmentation: volume }) });
    defineApp({
      inputs: { ct: { type: 'volume' } },
      outputs,
      // @ts-expect-error: no such input is declared
      infer: ({ mri }) => ({ segmentation: mri }),
    });
  });
});

describe('checkDeclaration()', () => {
  const check = (more: { inputs?: unknown; outputs?: unknown }) =>
    checkDeclaration('app.ts', { inputs, outputs, ...more }, manifest);

  it('takes what agrees with the manifest, with derived outputs left out', () => {
    expect(() => check({})).not.toThrow();
    expect(() => check({ inputs: { ...inputs, level: { type: 'slider', minimum: 0 } } })).not.toThrow();
  });

  it.each<[{ inputs?: unknown; outputs?: unknown }, RegExp]>([
    [
      { inputs: { ...inputs, level: { type: 'checkbox' } } },
      /inputs\.level\.type is "checkbox" in defineApp\(\), "slider" in/,
    ],
    [
      { inputs: { ...inputs, organ: { type: 'radiobutton', options: ['liver'] } } },
      /inputs\.organ\.options is \["liver"\] in defineApp\(\), \["liver","spleen"\]/,
    ],
    [{ inputs: { ...inputs, extra: { type: 'volume' } } }, /inputs\.extra is only in defineApp\(\)/],
    [
      { inputs: { ct: { type: 'volume' } } },
      /inputs\.prior is only in tomaat\.yaml\n.*inputs\.level is only in/,
    ],
    [
      { inputs: { ...inputs, prior: { type: 'volume' } } },
      /inputs\.prior\.optional is missing in defineApp\(\), true/,
    ],
    [
      { inputs: { ...inputs, ct: { type: 'volume', optinal: true } } },
      /inputs\.ct\.optinal is true in defineApp\(\), missing/,
    ],
    [{ inputs: { ...inputs, ct: {} } }, /inputs\.ct\.type is missing in defineApp\(\), "volume"/],
    [{ inputs: { ...inputs, ct: 'volume' } }, /inputs\.ct: defineApp\(\) takes an object/],
    [{ outputs: { text: { type: 'PlainText' } } }, /outputs\.segmentation is only in tomaat\.yaml/],
    [
      { outputs: { ...outputs, toString: { type: 'PlainText' } } },
      /outputs\.toString is only in defineApp\(\)/,
    ],
    [{ outputs: [] }, /outputs: defineApp\(\) takes an object by name/],
  ])('refuses %j', (more, message) => {
    expect(() => check(more)).toThrow(message);
    expect(() => check(more)).toThrow(expect.objectContaining({ code: 'BAD_MANIFEST' }));
  });

  /** The differences that the error lists. */
  const listed = (more: { inputs?: unknown; outputs?: unknown }) => {
    try {
      check(more);
    } catch (error) {
      return (error as Error).message.split('\n').slice(1, -1);
    }
    return [];
  };

  it('leaves alone what a module does not declare', () => {
    expect(() => checkDeclaration('app.ts', {}, manifest)).not.toThrow();
    expect(() => checkDeclaration('app.ts', { inputs }, manifest)).not.toThrow();
    expect(() => checkDeclaration('app.ts', { outputs }, manifest)).not.toThrow();
  });

  it.each(['VTKMesh', 'Fiducials', 'PlainText', 'Measurements'])('lets %s be left out', (type) => {
    const stated = { map: manifest.outputs.segmentation, derived: outputSchema.parse({ type }) };
    const declared = { outputs: { map: { type: 'LabelVolume' } } };
    expect(() => checkDeclaration('app.ts', declared, { inputs: {}, outputs: stated })).not.toThrow();
  });

  it.each(['LabelVolume', 'TransformGrid', 'TransformBSpline', 'TransformLinear'])(
    'requires %s to be declared',
    (type) => {
      const stated = { result: outputSchema.parse({ type }) };
      expect(() => checkDeclaration('app.ts', { outputs: {} }, { inputs: {}, outputs: stated })).toThrow(
        'outputs.result is only in tomaat.yaml',
      );
    },
  );

  it('takes defaults of the manifest as they are filled in', () => {
    const filled = {
      ...inputs,
      ct: { type: 'volume', label: 'CT', optional: false, frames: 'one' },
      seeds: { type: 'fiducials', minimumPoints: 1, maximumPoints: 10_000 },
    };
    expect(listed({ inputs: filled })).toEqual([]);
  });

  it.each([null, undefined, 5, 'volume', []])('takes no %j for an element', (element) => {
    expect(listed({ inputs: { ...inputs, ct: element } })).toEqual([
      '  inputs.ct: defineApp() takes an object with a type',
    ]);
  });

  it.each([null, 5, 'inputs', []])('takes no %j for the inputs', (group) => {
    expect(listed({ inputs: group })).toEqual(['  inputs: defineApp() takes an object by name']);
  });

  it('lists every difference once, of both groups', () => {
    expect(
      listed({
        inputs: {
          ...inputs,
          ct: { type: 'slider', label: 'MRI' },
          prior: { type: 'volume', optional: false },
          warp: { type: 'transform', optional: true },
          extra: { type: 'checkbox' },
        },
        outputs: { text: { type: 'VTKMesh' } },
      }),
    ).toEqual([
      '  inputs.ct.type is "slider" in defineApp(), "volume" in tomaat.yaml',
      '  inputs.ct.label is "MRI" in defineApp(), "CT" in tomaat.yaml',
      '  inputs.prior.optional is false in defineApp(), true in tomaat.yaml',
      '  inputs.warp.optional is true in defineApp(), false in tomaat.yaml',
      '  inputs.extra is only in defineApp()',
      '  outputs.segmentation is only in tomaat.yaml',
      '  outputs.text.type is "VTKMesh" in defineApp(), "PlainText" in tomaat.yaml',
    ]);
  });

  it('names the file in the message, and the field of the manifest', () => {
    expect(() => check({ outputs: {} })).toThrow(
      expect.objectContaining({ field: 'model.file', message: expect.stringMatching(/^app\.ts and/) }),
    );
  });
});
