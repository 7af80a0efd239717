/** Readers of what requests contain: JSON, parameters, headers. */
import {
  announcementSchema,
  claimSchema,
  completeSchema,
  failSchema,
  handBackSchema,
  touchSchema,
} from '@tomaat/client';
import {
  formatPoints,
  type Input,
  measurementsToCsv,
  parseMeasurementsCsv,
  parseParameters,
  parsePoints,
  TomaatError,
} from '@tomaat/core';
import type { FastifyRequest } from 'fastify';
import { fitBodySchema } from '../../packages/server/src/http/fit.ts';
import { idempotencyKeyOf, urgencyOf, waitOf } from '../../packages/server/src/http/jobs.ts';
import { namedInputsSchema } from '../../packages/server/src/http/named-inputs.ts';
import { requestedFormat } from '../../packages/server/src/http/outputs.ts';
import { parseMetadata } from '../../packages/server/src/http/uploads.ts';
import { checkJson, maxJsonDepth, parseJson } from '../../packages/server/src/intake/read-json.ts';
import type { OutputFile } from '../../packages/server/src/store/jobs/job-records.ts';
import { bytesOf, must, type Target, textOf } from '../target.ts';

const inputs: Record<string, Input> = {
  volume: { type: 'volume', frames: 'one', optional: false } as Input,
  factor: { type: 'slider', minimum: 0, maximum: 5, default: 1 } as Input,
  mode: { type: 'radiobutton', options: ['fast', 'exact'] } as Input,
  flag: { type: 'checkbox', default: false } as Input,
  points: { type: 'fiducials', optional: true } as Input,
};

const bodySchemas = {
  prediction: namedInputsSchema,
  fit: fitBodySchema,
  announcement: announcementSchema,
  claim: claimSchema,
  touch: touchSchema,
  complete: completeSchema,
  fail: failSchema,
  handBack: handBackSchema,
};
const bodySeeds = [
  {
    inputs: { volume: { upload: 'abc' } },
    parameters: { factor: 2, points: [[1, 2, 3]] },
    frame: 0,
    format: 'nii',
  },
  {
    inputs: { volume: [{ blob: `sha256:${'0a'.repeat(32)}`, fileName: 'a.nii' }] },
    parameters: { mode: 'fast' },
  },
  {
    inputs: { volume: { size: [5, 6, 7], spacing: [1, 2, 3], components: 1, frames: 1, voxelType: 'int16' } },
  },
  {
    name: 'A service',
    modality: 'CT',
    anatomy: 'lung',
    task: 'segmentation',
    description: 'It does.',
    predictionUrl: 'http://127.0.0.1:9000/predict',
    interfaceUrl: 'http://127.0.0.1:9000/interface',
    serverUrl: 'http://127.0.0.1:9000',
    serviceId: 'a',
    version: '1.0.0',
    default: true,
    volumes: 1,
  },
  { worker: 'w', services: [{ id: 'a', version: '1' }], waitSeconds: 5 },
  { attempt: 1, stage: 'infer', fraction: 0.5 },
];

const request = (headers: Record<string, string>) => ({ headers }) as unknown as FastifyRequest;

const tokens = [
  'wait=5',
  'u=3, i',
  'text/html;q=0.5, application/gzip',
  'respond-async; wait="10"',
  'a-key-1',
];

export const requestTargets = {
  'tus-metadata': {
    description: 'Upload-Metadata',
    longRuns: { texts: ['…filename…YQ==…,…sha256…MGE=…'], length: 15_000 },
    seeds: async () => [
      bytesOf(`filename ${btoa('a.nii.gz')}, sha256 ${btoa('0a'.repeat(32))}`),
      bytesOf('is_confidential,filename YQ=='),
    ],
    words: ['filename ', 'sha256 ', ',', ' ', '=', btoa('../x'), '__proto__ ', '\t'],
    maxBytes: 5000,
    run(input) {
      const { filename, sha256 } = parseMetadata(textOf(input));
      must(filename === undefined || filename.length <= 1000, 'a name of bounded length');
      must(sha256 === undefined || /^sha256:[0-9a-f]{64}$/.test(sha256), 'a digest is one');
    },
  },
  json: {
    description: 'Bodies of JSON, and the parameters in them',
    longRuns: { texts: ['…{…"inputs"…:…{"volume":{"upload":"…abc…"}},"frame":…1…}…'] },
    seeds: async () => bodySeeds.map((seed) => bytesOf(JSON.stringify(seed))),
    words: [
      '{"',
      '":',
      '[',
      ']',
      '{',
      '}',
      ',',
      'null',
      'true',
      '"__proto__":{}',
      '"constructor"',
      '"\\ud800"',
      '"\\u0000"',
      '1e999',
      '-0',
      '"sha256:',
      '"upload":"',
      '"parameters":{',
      '"points":[[',
      '"factor":',
      '[[[[',
      '{"a":',
    ],
    maxBytes: 65_536,
    run(input) {
      const data = parseJson(input, 'Send JSON.');
      must(depthOf(data) <= maxJsonDepth, 'no deeper than is allowed');
      let taken = 0;
      let refusal: unknown;
      for (const schema of Object.values(bodySchemas)) {
        try {
          const body = checkJson(data, schema, 'Send it.');
          if (schema === namedInputsSchema)
            parseParameters(inputs, (body as { parameters: Record<string, unknown> }).parameters);
          taken++;
        } catch (error) {
          if (!(error instanceof TomaatError)) throw error;
          refusal = error;
        }
      }
      must(Object.getPrototypeOf({}).polluted === undefined, 'no prototype is changed');
      if (taken === 0) throw refusal;
    },
  },
  parameters: {
    description: 'Values of parameters and points, as text',
    longRuns: { texts: ['…1…,…2,3…;…4,5,6…', '…[…[…1…,…2,3…]…,…[4,5,6]…]…'] },
    seeds: async () => [
      bytesOf('1,2,3;4,5,6'),
      bytesOf('[[1,2,3],[4.5,-6e2,7]]'),
      bytesOf('fast'),
      bytesOf('1e-3'),
    ],
    words: [',', ';', '[', ']', '[[', '1e999', 'NaN', 'null', '{}', '"', '-', 'true', 'on'],
    maxBytes: 65_536,
    run(input) {
      const text = Buffer.from(input).toString('utf8');
      let refusal: unknown;
      let taken = 0;
      const attempt = (work: () => void) => {
        try {
          work();
          taken++;
        } catch (error) {
          if (!(error instanceof TomaatError)) throw error;
          refusal = error;
        }
      };
      for (const name of ['factor', 'mode', 'flag', 'points'])
        attempt(() => parseParameters(inputs, { mode: 'fast', [name]: text }));
      attempt(() => {
        const points = parsePoints(text);
        must(
          points.every((p) => p.length === 3 && p.every(Number.isFinite)),
          'points are finite',
        );
        must(
          JSON.stringify(parsePoints(formatPoints(points))) ===
            JSON.stringify(points.map((p) => p.map((v) => v + 0))),
          'points survive',
        );
      });
      if (taken === 0) throw refusal;
    },
  },
  measurements: {
    description: 'Measurements as CSV',
    seeds: async () => [
      bytesOf('label,name,voxels,volume_ml\r\n1,"a ""b"", c",2,0.5\r\n'),
      bytesOf("name,label,volume_ml,voxels,centroid_r_mm,centroid_a_mm,centroid_s_mm\n'=1,7,1e-3,4,1,-2,3\n"),
    ],
    words: [',', '"', '""', '"\r\n', '\n', "'=", '＝', '\ufeff', 'box_min_x_voxel', 'voxels', 'NaN', '1e999'],
    maxBytes: 65_536,
    run(input) {
      const measurements = parseMeasurementsCsv(Buffer.from(input).toString('utf8'));
      const again = parseMeasurementsCsv(measurementsToCsv(measurements));
      must(JSON.stringify(again) === JSON.stringify(measurements), 'measurements survive');
    },
  },
  headers: {
    description: 'Prefer, Priority, Idempotency-Key, Accept',
    longRuns: {
      texts: ['…wait…=…5…,…u…=…3…;…i…', '…text/html…;…q…=…0.5…,…application/gzip…'],
      length: 15_000,
    },
    seeds: async () => tokens.map(bytesOf),
    words: [
      'wait=',
      'u=',
      ',',
      ';',
      '"',
      ' ',
      '=',
      '\t',
      '*/*',
      'application/gzip',
      '8',
      '999999999999999999',
    ],
    maxBytes: 16_384,
    run(input) {
      const value = textOf(input).replace(/[\r\n\0]/g, ' ');
      const wait = waitOf(request({ prefer: value }));
      must(Number.isInteger(wait) && wait >= 0 && wait <= 300, 'a wait of 0 to 300 s');
      const urgency = urgencyOf(request({ priority: value }));
      must(urgency === undefined || (urgency >= 0 && urgency <= 7), 'an urgency of 0 to 7');
      const output = { name: 'a', type: 'LabelVolume', format: 'nii.gz' } as unknown as OutputFile;
      requestedFormat({ headers: { accept: value }, query: {} } as unknown as FastifyRequest, output);
      idempotencyKeyOf(request({ 'idempotency-key': value }));
    },
  },
} satisfies Record<string, Target>;

function depthOf(value: unknown): number {
  let depth = 0;
  for (let level: unknown[] = [value]; level.length > 0; depth++) {
    level = level.flatMap((v) => (typeof v === 'object' && v !== null ? Object.values(v) : []));
    if (level.length === 0) break;
  }
  return depth;
}
