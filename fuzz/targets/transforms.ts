/** Readers and writers of spatial transforms. */
import { collectBytes, readTransform, sourceFromBytes, writeTransform } from '@tomaat/core';
import { nodePlatform } from '../../packages/server/src/node-platform.ts';
import type { LongRuns } from '../long-runs.ts';
import { bytesOf, equal, must, type Target } from '../target.ts';
import { heads, limits, platformFor, smallFile } from './inputs.ts';

const linear = {
  kind: 'linear',
  matrix: [1, 0.1, 0, 5, 0, 2, 0.3, -6, 0.2, 0, 0.5, 7, 0, 0, 0, 1],
} as const;

function transformTarget(
  description: string,
  seeds: () => Promise<Uint8Array[]>,
  words: readonly string[],
  longRuns?: LongRuns,
): Target {
  return {
    description,
    seeds,
    words,
    longRuns,
    maxBytes: 8192,
    async run(input) {
      const platform = platformFor(input);
      const transform = await readTransform(sourceFromBytes('a', input), platform, limits);
      if (transform.kind === 'bspline') {
        must(equal(transform.bytes, input), 'a B-spline is passed on as it is');
      } else if (transform.kind === 'linear') {
        must(transform.matrix.length === 16 && transform.matrix.every(Number.isFinite), 'finite');
        const file = await collectBytes(writeTransform(transform, 'mat', nodePlatform));
        const back = await readTransform(sourceFromBytes('b', file), nodePlatform, limits);
        must(
          back.kind === 'linear' && back.matrix.every((v, i) => v === transform.matrix[i]),
          'the matrix survives',
        );
      } else {
        const { displacement } = transform;
        must(displacement.components === 3, 'three components');
        must([...(displacement.voxels as Float32Array)].every(Number.isFinite), 'displacements are finite');
      }
    },
  };
}

export const transformTargets = {
  mat: transformTarget('Linear transforms in MATLAB v4 files', async () => {
    const one = await collectBytes(writeTransform(linear, 'mat', nodePlatform));
    return [one, new Uint8Array(Buffer.concat([one, one]))];
  }, [
    'AffineTransform_double_3_3\0',
    'fixed\0',
    'Euler3DTransform_double_3_3\0',
    '\0\0\0\0',
    '\xe8\x03\0\0',
  ]),
  tfm: transformTarget(
    'Linear transforms as text',
    async () => [
      await collectBytes(writeTransform(linear, 'txt', nodePlatform)),
      bytesOf(
        '#Insight Transform File V1.0\nTransform: CompositeTransform_double_3_3\nTransform: Euler3DTransform_double_3_3\nParameters: 0.1 0.2 0.3 1 2 3\nFixedParameters: 4 5 6 1\nTransform: VersorRigid3DTransform_double_3_3\nParameters: 0.1 0.2 0.3 1 2 3\nFixedParameters: 4 5 6\n',
      ),
    ],
    [
      'Transform: AffineTransform_double_3_3\n',
      'Transform: Similarity3DTransform_double_3_3\n',
      'Transform: TranslationTransform_double_3_3\n',
      'Transform: IdentityTransform_double_3_3\n',
      'Parameters: 1 0 0 0 1 0 0 0 1 0 0 0\n',
      'FixedParameters: 0 0 0\n',
      '#Insight Transform File V1.0\n',
      '\n',
      ' ',
    ],
    {
      texts: [
        '#Insight Transform File V1.0…\n…#Transform 0…\n…Transform…:…AffineTransform_double_3_3…\n…Parameters…:…1…0 0 0 1 0 0 0 1 0 0 0…\n…FixedParameters…:…0…0 0…\n…',
      ],
    },
  ),
  displacement: transformTarget('Displacement grids, and B-splines that are passed on', async () => {
    const vectors = { components: 3, voxels: Float32Array.from({ length: 36 }, (_, i) => i / 9) };
    return [
      await smallFile('nii', vectors),
      await smallFile('nrrd', vectors),
      await smallFile('mha', vectors),
      new Uint8Array(Buffer.concat([Buffer.from('\x89HDF\r\n\x1a\n', 'latin1'), Buffer.alloc(40, 7)])),
    ];
  }, [...heads, '\x89HDF\r\n\x1a\n', '\xee\x03', '\xef\x03']),
} satisfies Record<string, Target>;
