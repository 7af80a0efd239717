/** Readers of the files of an app: manifests and ONNX graphs. */
import { parseManifest, TomaatError } from '@tomaat/core';
import { inspectGraph, withLabelOutput } from '../../packages/server/src/runtimes/onnx-graph.ts';
import { encodeModel, labelNetwork, thresholdNetwork } from '../../packages/server/test/onnx-fixture.ts';
import { bytesOf, must, type Target } from '../target.ts';

/** As short as manifests can be: YAML takes a microsecond per byte. */
const manifestWith = (inputs: string, model: string, more = '') => `schemaVersion: 1
id: a
name: A
description: D.
version: 1.0.0
modality: CT
anatomy: lung
task: segmentation
authors: [A]
licence: MIT
intendedUse: T.
inputs: {${inputs}}
model: {${model}}
outputs: {o: {type: LabelVolume, label: L}}
${more}`;
const onnx = `runtime: onnx, file: m.onnx, sha256: ${'0a'.repeat(32)}`;
const manifests = [
  manifestWith('v: {type: volume}', onnx),
  manifestWith(
    'v: {type: volume, modality: CT}, f: {type: slider, minimum: 0, maximum: 5, default: 1}',
    onnx,
  ),
  manifestWith(
    'v: {type: volume}',
    `${onnx}, inferer: {type: slidingWindow, roiSize: [32, 32, 32], overlap: 0.25}`,
  ),
  manifestWith(
    'v: {type: volume}',
    onnx,
    'preprocess:\n  - orientation: { axcodes: RAS }\n  - spacing: { pixdim: [1, 1, 2] }\n',
  ),
  manifestWith(
    'v: {type: volume}',
    onnx,
    'labels:\n  - { value: 1, name: left, color: "#ff0000" }\nlimits: { seconds: 60, memoryMb: 2000 }\n',
  ),
  '{schemaVersion: 1, id: a, inputs: {}}',
];

export const appTargets = {
  manifest: {
    description: 'Manifests in YAML',
    // YAML takes a microsecond per byte, and more for opening brackets.
    longRuns: {
      texts: [
        `…${manifests[4].replace('name: A', '…name…:…A…').replace('[A]', '[…A…]').replace('T.', '…T.…')}…`,
      ],
      length: 3000,
    },
    seeds: async () => manifests.map(bytesOf),
    words: [
      'inputs:\n',
      '  - ',
      ': ',
      '{ ',
      ' }',
      '[',
      ']',
      '&a ',
      '*a',
      '<<: *a\n',
      '!!js/function ',
      '!!binary ',
      '---\n',
      '...\n',
      '%YAML 1.1\n',
      '| \n',
      '"',
      "'",
      '#',
      '\t',
      '? ',
      '__proto__: 1\n',
      'type: volume\n',
      'runtime: command\n',
      '.inf',
      '.nan',
      'null',
      '~',
    ],
    maxBytes: 600,
    run(input) {
      const parsed = parseManifest(Buffer.from(input).toString('utf8'));
      must(/^[a-z0-9-]+$/.test(parsed.id), 'an id is a slug');
    },
  },
  onnx: {
    description: 'What an ONNX file refers to, and the output that is added to it',
    async seeds() {
      const subgraph = encodeModel({
        nodes: [
          { op: 'Relu', inputs: ['image'], outputs: ['scores'], attributes: { a: 1, b: [1, 2], c: 'x' } },
        ],
        initializers: [
          { name: 'w', dims: [2], data: new Float32Array(2) },
          { name: 'e', dims: [2], external: { location: 'w.bin', length: 8 } },
        ],
        inputs: [{ name: 'image', dims: [1, 1, 'z', 'y', 'x'] }],
        outputs: [{ name: 'scores', dims: [1, 2, 'z', 'y', 'x'] }],
      });
      return [subgraph, thresholdNetwork(3), labelNetwork(3)];
    },
    words: ['\x3a', '\x0a', '\x2a', '\x32', '\x6a', '\x2a\x04\x32\x02', '\xff\xff\xff\xff\x7f', '\x80', '\0'],
    maxBytes: 65_536,
    run(input) {
      let facts: ReturnType<typeof inspectGraph>;
      try {
        facts = inspectGraph(input);
      } catch (error) {
        if (error instanceof RangeError && /^(the|a) /.test(error.message))
          throw new TomaatError('BAD_MANIFEST', error.message);
        throw error;
      }
      const again = inspectGraph(withLabelOutput(input, 'scores'));
      must(JSON.stringify(again) === JSON.stringify(facts), 'the added output changes no reference');
    },
  },
} satisfies Record<string, Target>;
