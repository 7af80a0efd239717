/**
 * What is fuzzed: every reader of bytes and texts that strangers send. `run` reads an input; it may refuse it with a
 * TomaatError and nothing else, and what it takes has to keep what is said of it here (`must`).
 */
import { gunzipSync, gzipSync, inflateSync } from 'node:zlib';
import {
  announcementSchema,
  claimSchema,
  completeSchema,
  failSchema,
  handBackSchema,
  touchSchema,
} from '@tomaat/client';
import {
  collectBytes,
  decodeBase64Text,
  encodeBase64,
  fileGeometrySchema,
  formatPoints,
  type Input,
  inspectVolume,
  measurementsToCsv,
  type Platform,
  parseManifest,
  parseMeasurementsCsv,
  parseParameters,
  parsePoints,
  readTransform,
  readVolume,
  sourceFromBytes,
  TomaatError,
  type Volume,
  type VolumeExtension,
  type VolumeHeader,
  webPlatform,
  writeTransform,
  writeVolume,
} from '@tomaat/core';
import type { FastifyRequest } from 'fastify';
import { inflatePrefix } from '../packages/core/src/formats/inflate-prefix.ts';
import { bytesPerVoxel, voxelTypeOf } from '../packages/core/src/volume.ts';
import { goodFile } from '../packages/core/test/bad-files.ts';
import { decodeV1Transform } from '../packages/server/src/faces/v1-transform.ts';
import { fitBodySchema } from '../packages/server/src/http/fit.ts';
import { idempotencyKeyOf, urgencyOf, waitOf } from '../packages/server/src/http/jobs.ts';
import { namedInputsSchema } from '../packages/server/src/http/named-inputs.ts';
import { requestedFormat } from '../packages/server/src/http/outputs.ts';
import { contentDisposition } from '../packages/server/src/http/send.ts';
import { parseMetadata } from '../packages/server/src/http/uploads.ts';
import { decodeBase64, isRawVolume } from '../packages/server/src/intake/base64.ts';
import type { BodyPart } from '../packages/server/src/intake/body-part.ts';
import { readMultipart, toDisplayName } from '../packages/server/src/intake/multipart.ts';
import { checkJson, maxJsonDepth, parseJson } from '../packages/server/src/intake/read-json.ts';
import { readUrlencoded } from '../packages/server/src/intake/urlencoded.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { inspectGraph, withLabelOutput } from '../packages/server/src/runtimes/onnx-graph.ts';
import type { OutputFile } from '../packages/server/src/store/job-records.ts';
import { encodeModel, labelNetwork, thresholdNetwork } from '../packages/server/test/onnx-fixture.ts';
import { dicomWebTargets } from './dicomweb-targets.ts';
import type { LongRuns } from './long-runs.ts';
import { bytesOf, equal, inPieces, must, type Target, textOf } from './target.ts';
import { headerRuns, textTargets } from './text-targets.ts';

const rawBytes = ({ voxels }: Volume) => new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength);

/**
 * zlib in one call: the thread pool that the server's streams use takes longer than a small file does. Every 16th
 * input goes through those.
 */
const atOnce: Platform = {
  async *inflate(source, compression) {
    const bytes = await collectBytes(source);
    const unpack = compression === 'gzip' ? gunzipSync : inflateSync;
    const options = { info: true, chunkSize: 4096, maxOutputLength: 2 ** 24 };
    const { buffer, engine } = unpack(bytes, options) as unknown as {
      buffer: Buffer;
      engine: { bytesWritten: number };
    };
    if (engine.bytesWritten !== bytes.length) throw new Error('bytes follow the compressed data');
    yield buffer;
  },
  deflate: nodePlatform.deflate,
};
const sumOf = (bytes: Uint8Array) => {
  let sum = 0;
  for (let i = 0; i < bytes.length; i++) sum += bytes[i];
  return sum;
};
const platformFor = (input: Uint8Array) => ((sumOf(input) >> 3) % 16 === 0 ? nodePlatform : atOnce);

// Volumes

const limits = { maxVoxels: 2 ** 14 };

function checkHeader(header: VolumeHeader): void {
  const { size, components, frames, voxelType, storedBytes, affine } = header;
  const count = size[0] * size[1] * size[2] * components * frames;
  must(
    [...size, components, frames].every((n) => Number.isInteger(n) && n >= 1),
    'sizes are from 1',
  );
  must(count <= limits.maxVoxels, 'no more voxels than are allowed');
  must(storedBytes === count * bytesPerVoxel(voxelType), 'stored bytes = voxels × bytes of the type');
  must(affine.length === 16 && affine.every(Number.isFinite), 'the affine is finite');
}

/** Reads, writes and reads again. */
async function readWhole(input: Uint8Array, written: VolumeExtension): Promise<void> {
  const options = { limits, frame: 'all' } as const;
  const platform = platformFor(input);
  let files = [sourceFromBytes('a', input)];
  let header: VolumeHeader;
  const inspect = () =>
    inspectVolume(
      files.map(({ name, sizeBytes }, i) => ({
        name,
        sizeBytes,
        prefix: i === 0 ? input.subarray(0, 65_536) : beside,
      })),
      platform,
      limits,
    );
  try {
    header = await inspect();
  } catch (error) {
    // A header whose voxels lie in another file: here is one.
    if (!(error instanceof TomaatError && error.code === 'BAD_INPUT')) throw error;
    files = [sourceFromBytes('a.hdr', input), sourceFromBytes('b.raw', beside)];
    if (/\.img/.test(error.message)) files[1] = sourceFromBytes('a.img', beside);
    header = await inspect();
  }
  checkHeader(header);
  const { volume, header: again } = await readVolume(files, platform, options);
  must(JSON.stringify(again) === JSON.stringify(header), 'both readers see the same header');
  const { size, components, voxels } = volume;
  must(components === header.components * header.frames, 'components × frames');
  must(voxels.length === size[0] * size[1] * size[2] * components, 'a value for every voxel');
  must(voxels.byteLength === voxels.length * bytesPerVoxel(voxelTypeOf(voxels)), 'bytes of the type');

  // Writing takes longer than reading: an eighth of what is taken goes round.
  if (sumOf(input) % 8 !== 0) return;
  const { geometry } = header;
  const stated = await collectBytes(
    writeVolume(volume, header.extension === 'nii.gz' ? 'nii' : header.extension, platform, {
      level: 0,
      geometry,
    }),
  );
  const result = (await readVolume([sourceFromBytes('c', stated)], platform, options)).header;
  must(JSON.stringify(result.geometry) === JSON.stringify(geometry), 'a result states the same geometry');
  must(
    fileGeometrySchema.safeParse(JSON.parse(JSON.stringify(geometry))).success,
    'a geometry passes its own check',
  );
  const first = await collectBytes(writeVolume(volume, written, platform, { level: 0 }));
  const back = (await readVolume([sourceFromBytes('b', first)], platform, options)).volume;
  must(back.size.join() === size.join() && back.components === components, 'sizes survive');
  must(equal(rawBytes(back), rawBytes(volume)), 'voxels survive to the bit');
  const scale = Math.max(...volume.affine.map(Math.abs));
  must(
    back.affine.every((v, i) => Math.abs(v - volume.affine[i]) <= 1e-6 * scale),
    'the affine survives',
  );
  if (written !== 'nrrd') return;
  const second = await collectBytes(writeVolume(back, written, platform, { level: 0 }));
  must(equal(first, second), 'writing what was read gives the same file');
}

/** Voxels in a file of their own, as many as a small file has. */
const beside = Uint8Array.from({ length: 24 }, (_, i) => (i * 7) & 255);
const asPair = (file: Uint8Array, from: RegExp, to: string) => bytesOf(textOf(file).replace(from, to));

const volumeTarget = (
  description: string,
  written: VolumeExtension,
  seeds: () => Promise<Uint8Array[]>,
  words: readonly string[],
  longRuns?: LongRuns,
): Target => ({
  description,
  seeds,
  words,
  longRuns,
  maxBytes: 4096,
  run: (input) => readWhole(input, written),
});

/** Tiny volumes are read a hundred times faster, and a change hits what matters. */
async function smallFile(
  extension: VolumeExtension,
  more: Partial<Volume> = {},
  level = 0,
): Promise<Uint8Array> {
  const volume: Volume = {
    voxels: Int16Array.from({ length: 12 }, (_, i) => (i * 7919) % 4001),
    size: [3, 2, 2],
    components: 1,
    affine: [0, -1.5, 0, 7, 0.7, 0, 0.2, 8, -0.2, 0, 2.5, 9, 0, 0, 0, 1],
    ...more,
  };
  return collectBytes(writeVolume(volume, extension, nodePlatform, { level }));
}
const colours = { components: 3, voxels: Uint8Array.from({ length: 36 }, (_, i) => i) };
const floats = { voxels: Float64Array.from({ length: 12 }, (_, i) => i / 7 - 3) };

function scaled(file: Uint8Array): Uint8Array {
  const copy = file.slice();
  new DataView(copy.buffer).setFloat32(112, 0.25, true);
  new DataView(copy.buffer).setFloat32(116, -3, true);
  return copy;
}

function nifti2Of(file: Uint8Array, from: Uint8Array): Uint8Array {
  // The header of the good NIfTI-2 file with this one's sizes and voxels.
  const copy = new Uint8Array(544 + from.length - 352);
  copy.set(file.subarray(0, 544));
  const to = new DataView(copy.buffer);
  const view = new DataView(from.buffer, from.byteOffset);
  for (let i = 0; i < 8; i++) to.setBigInt64(16 + 8 * i, BigInt(view.getInt16(40 + 2 * i, true)), true);
  copy.set(from.subarray(352), 544);
  return copy;
}

// Bodies

/** The parts with their bytes, or the code of the refusal. */
async function allParts(parts: AsyncIterable<BodyPart>): Promise<(BodyPart & { bytes: Buffer })[] | string> {
  const found: (BodyPart & { bytes: Buffer })[] = [];
  try {
    for await (const part of parts) {
      const chunks: Buffer[] = [];
      for await (const chunk of part.body) chunks.push(Buffer.from(chunk));
      found.push({ ...part, bytes: Buffer.concat(chunks) });
    }
    return found;
  } catch (error) {
    if (error instanceof TomaatError) return error.code;
    throw error;
  }
}

const plain = (parts: Exclude<Awaited<ReturnType<typeof allParts>>, string>) =>
  JSON.stringify(
    parts.map(({ name, fileName, contentType, bytes }) => [
      name,
      fileName,
      contentType,
      bytes.toString('hex'),
    ]),
  );

async function parts(
  input: Uint8Array,
  read: (source: AsyncIterable<Uint8Array>) => AsyncIterable<BodyPart>,
) {
  const whole = await allParts(read(inPieces(input, 0)));
  const pieces = await allParts(read(inPieces(input, input.length + (input[input.length >> 1] ?? 0))));
  if (typeof whole === 'string') {
    must(pieces === whole, 'the refusal does not depend on the pieces');
    throw new TomaatError('BAD_REQUEST', whole);
  }
  must(typeof pieces !== 'string' && plain(pieces) === plain(whole), 'the parts do not depend on the pieces');
  must(whole.length <= 64, 'no more than 64 parts');
  must(
    whole.reduce((n, part) => n + part.bytes.length, 0) <= input.length,
    'no more bytes come out than went in',
  );
  for (const { name, fileName } of whole) {
    must(name.length > 0 && name.length <= 8192, 'a part has a name of bounded length');
    must(fileName === undefined || isPlainName(fileName), 'a file name is no path');
  }
  return whole;
}

/** Whether a name could name nothing but a file in the folder at hand. */
const isPlainName = (name: string) =>
  name !== '' && name.length <= 400 && !/^\.*$/.test(name) && !/[/\\\p{Cc}]/u.test(name);

const form = [
  '--XX\r\nContent-Disposition: form-data; name="volume"; filename="a b.nii.gz"\r\nContent-Type: application/gzip\r\n\r\n\x1f\x8b\x08\r\n--X\r\n',
  '\r\n--XX\r\nContent-Disposition: form-data; name="mode"\r\n\r\nfast\r\n',
  "--XX \t\r\ncontent-disposition:form-data;name=points;filename*=UTF-8''%e2%82%ac.nii\r\nContent-Transfer-Encoding: binary\r\n\r\n",
  '\r\n--XX--\r\nepilogue',
].join('');
const latinForm =
  '--XX\r\nContent-Disposition: form-data; name="\xe9t\xe9"; filename="C:\\\\x\\\\y.mha"\r\n\r\n1\r\n--XX--';

// Texts

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

/** As short as manifests can be: YAML takes a microsecond a byte. */
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

const request = (headers: Record<string, string>) => ({ headers }) as unknown as FastifyRequest;

const tokens = [
  'wait=5',
  'u=3, i',
  'text/html;q=0.5, application/gzip',
  'respond-async; wait="10"',
  'a-key-1',
];

const heads = ['\x1f\x8b\x08', 'n+1\0', 'NRRD0004\n', '\r\n', '\0', '\xff\xff\xff\xff'];

export const targets: Readonly<Record<string, Target>> = {
  ...textTargets,
  ...dicomWebTargets,
  nifti1: volumeTarget(
    'NIfTI-1, plain, packed and as a pair',
    'nii',
    async () => [
      await smallFile('nii.gz', {}, 1),
      await smallFile('nii'),
      await smallFile('nii', colours),
      scaled(await smallFile('nii')),
      new Uint8Array(gzipSync(await smallFile('nii', floats))),
      asPair((await smallFile('nii')).subarray(0, 352), /n\+1/, 'ni1').fill(0, 108, 112),
    ],
    heads,
  ),
  nifti2: volumeTarget(
    'NIfTI-2, plain, packed and as a pair',
    'nii',
    async () => {
      const good = await goodFile('nifti2');
      const small = nifti2Of(good, await smallFile('nii'));
      return [small, new Uint8Array(gzipSync(small)), asPair(small.subarray(0, 544), /n\+2/, 'ni2')];
    },
    [...heads, 'n+2\0\r\n\x1a\n'],
  ),
  metaimage: volumeTarget(
    'MetaImage, .mha and .mhd',
    'mha',
    async () => [
      await smallFile('mha', {}, 1),
      await smallFile('mha'),
      await smallFile('mha', colours),
      asPair((await smallFile('mha')).subarray(0, -24), /= LOCAL/, '= b.raw'),
      bytesOf(
        'ObjectType = Image\nNDims = 3\nBinaryData = False\nElementSpacing = 1 2 3\nDimSize = 2 2 1\nElementType = MET_SHORT\nElementDataFile = LOCAL\n1 -2, 3\n4\n',
      ),
    ],
    [
      'ObjectType = Image\n',
      'NDims = 4\n',
      'BinaryData = False\n',
      'BinaryDataByteOrderMSB = True\n',
      'CompressedData = True\n',
      'CompressedDataSize = 10\n',
      'HeaderSize = -1\n',
      'ElementNumberOfChannels = 3\n',
      'ElementSize = 1 1 1\n',
      'DistanceUnits = um\n',
      'MET_UCHAR',
      'MET_FLOAT',
      'MET_ULONG_LONG',
      'LOCAL',
      'LIST',
      'b.raw',
      '../b.raw',
      '%d',
      '\n',
      ' = ',
      '\0',
    ],
    headerRuns.metaimage,
  ),
  nrrd: volumeTarget(
    'NRRD, attached and detached',
    'nrrd',
    async () => [
      await smallFile('nrrd', {}, 1),
      await smallFile('nrrd'),
      await smallFile('nrrd', colours),
      asPair((await smallFile('nrrd')).subarray(0, -24), /encoding/, 'data file: b.raw\nencoding'),
      bytesOf(
        'NRRD0005\ntype: uchar\ndimension: 4\nspace dimension: 4\nsizes: 2 2 1 2\nspace directions: (1,0,0,0) (0,0,0,2) (0,1,0,0) (0,0,3,0)\nspace origin: (1,2,3,4)\nencoding: raw\n\n12345678',
      ),
      bytesOf(
        'NRRD0004\ntype: short\ndimension: 4\nsizes: 2 2 1 2\nspacings: 1 2 3 nan\naxis mins: 0 0 0 nan\ncenterings: cell node cell none\nkinds: space space space time\nencoding: text\n\n1 -2 3 4 5 6 7 8\n',
      ),
    ],
    [
      'NRRD0005\n',
      'dimension: 4\n',
      'type: float\n',
      'type: uint8\n',
      'kinds: vector domain domain domain\n',
      'endian: big\n',
      'encoding: gzip\n',
      'encoding: text\n',
      'byte skip: -1\n',
      'line skip: 2\n',
      'data file: b.raw\n',
      'space: RAS\n',
      'space directions: none (1,0,0) (0,1,0) (0,0,1)\n',
      'spacings: 1 1 1\n',
      'axis mins: 0 0 0\n',
      'space units: "um" "um" "mm"\n',
      'space dimension: 4\n',
      'space: LPST\n',
      'space directions: (1,0,0,0) (0,1,0,0) (0,0,1,0) (0,0,0,1)\n',
      'units: "cm" "cm" "cm"\n',
      'axis maxs: 1 1 1\n',
      'key:=value\n',
      '# comment\n',
      '(',
      ')',
      'none',
      'nan',
      '\n',
      '\n\n',
      ': ',
    ],
    headerRuns.nrrd,
  ),
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
  inflate: {
    description: 'The first bytes of a gzip member',
    async seeds() {
      const text = Buffer.from('hello hello hello, world of volumes '.repeat(20));
      return [
        ...[1, 9].map((level) => new Uint8Array(gzipSync(text, { level }))),
        new Uint8Array(gzipSync(await smallFile('nii'))),
        new Uint8Array(gzipSync(text, { level: 0 })),
        new Uint8Array(
          Buffer.concat([
            Buffer.from('\x1f\x8b\x08\x1c\0\0\0\0\0\x03\x03\0abcname\0comment\0', 'latin1'),
            gzipSync(text).subarray(10),
          ]),
        ),
      ];
    },
    words: ['\x1f\x8b\x08', '\x00', '\xff', '\x04', '\x08'],
    maxBytes: 4096,
    run(input) {
      const out = inflatePrefix(input, 4096);
      must(out.length <= 4096, 'no more bytes than were asked for');
      let whole: Buffer;
      try {
        whole = gunzipSync(input, { maxOutputLength: 1 << 16 });
      } catch {
        throw new TomaatError('BAD_VOXELS', 'no gzip');
      }
      // Node's zlib ends at zeros; the prefix goes on to a member behind them.
      must(equal(out.subarray(0, whole.length), whole.subarray(0, out.length)), 'zlib unpacks the same');
    },
  },
  members: {
    description: 'gzip members in a row, by every inflater',
    async seeds() {
      const text = Buffer.from('hello hello hello, world of volumes '.repeat(20));
      const [one, two] = [gzipSync(text.subarray(0, 300)), gzipSync(text.subarray(300))];
      const adorned = Buffer.from('\x1f\x8b\x08\x1c\0\0\0\0\0\x03\x03\0abcname\0comment\0', 'latin1');
      return [
        new Uint8Array(Buffer.concat([one, two])),
        new Uint8Array(Buffer.concat([gzipSync(''), one, Buffer.alloc(40), two, Buffer.alloc(40)])),
        new Uint8Array(Buffer.concat([adorned, one.subarray(10), Buffer.from('\r\n')])),
        new Uint8Array(gzipSync(text, { level: 0 })),
      ];
    },
    words: ['\x1f\x8b\x08\0\0\0\0\0\0\x03', '\x1f\x8b', '\0\0\0\0', '\xff', '\x1c', '\x02'],
    maxBytes: 2048,
    async run(input) {
      const source = {
        async *[Symbol.asyncIterator]() {
          yield* inPieces(input, input.length);
        },
      };
      const outcomes = await Promise.all(
        [
          nodePlatform.inflate(source, 'gzip'),
          nodePlatform.inflate(inPieces(input, 7), 'gzip'),
          webPlatform.inflate(inPieces(input, 3), 'gzip'),
        ].map((unpacked) => collectBytes(copied(unpacked)).catch((error: unknown) => error as Error)),
      );
      const [first, ...others] = outcomes;
      for (const other of others) {
        must(first instanceof Error === other instanceof Error, 'all take it or none');
        must(first instanceof Error || equal(first, other as Uint8Array), 'all unpack the same');
      }
      if (first instanceof Error) throw new TomaatError('BAD_VOXELS', 'no gzip');
    },
  },
  multipart: {
    description: 'multipart/form-data, in any pieces',
    longRuns: {
      texts: [
        '…--XX…\r\n…Content-Disposition…:…form-data…;…name…=…"…a…"…;…filename*…=…UTF-8\'\'…x…\r\nContent-Type:…a/b…\r\n…\r\n1…\r\n…--XX--…',
      ],
      length: 7000,
    },
    seeds: async () => [bytesOf(form), bytesOf(latinForm), bytesOf('preamble\r\n--XX\r\n\r\n1\r\n--XX--')],
    words: [
      '--XX',
      '--XX--',
      '\r\n--XX\r\n',
      '\r\n\r\n',
      '\r\n',
      '\r',
      'Content-Disposition: form-data; name="a"\r\n',
      'Content-Transfer-Encoding: base64\r\n',
      "name*=UTF-8''x",
      'filename="',
      "filename*=iso-8859-1''%2e%2e%2fx",
      '"',
      '\\',
      ';',
      '%22',
      '%0D%0A',
      '../',
      '\0',
      '\xc0\xaf',
    ],
    maxBytes: 8192,
    async run(input) {
      await parts(input, (source) => readMultipart(source, 'multipart/form-data; boundary=XX'));
    },
  },
  'form-header': {
    description: 'Content-Type of a form, and names of files to show',
    longRuns: { texts: ['…multipart/form-data…;…boundary…=…"…XX…"…', '…a/…b…\\…c.nii.gz…'], length: 15_000 },
    seeds: async () => [
      bytesOf('multipart/form-data; boundary=XX'),
      bytesOf('Multipart/Form-Data;charset=utf-8 ; boundary="a b\\"c"'),
      bytesOf('..\\..\\C:\\con.nii.gz'),
    ],
    words: ['boundary=', ';', '"', '\\', ' ', '\t', '=', 'multipart/form-data', '/', '..', ':', '\u00a0'],
    maxBytes: 2048,
    async run(input) {
      const text = textOf(input);
      const name = toDisplayName(Buffer.from(input).toString('utf8'));
      must(name === undefined || isPlainName(name), 'a name to show is no path');
      must(/^[\x20-\x7e]+$/.test(contentDisposition(name ?? 'x')), 'a Content-Disposition is plain ASCII');
      for await (const part of readMultipart(inPieces(bytesOf(form), 0), text))
        must(part.name !== '', 'a name');
    },
  },
  urlencoded: {
    description: 'application/x-www-form-urlencoded, in any pieces',
    longRuns: { texts: ['…volume…=…AAAA…%2B…&…mode=…fast…'] },
    seeds: async () => [
      bytesOf('volume=AAAA%2B%2F%3D&mode=fast+one&&empty=&x'),
      bytesOf('a%20b=%E2%82%AC&c=%ff'),
    ],
    words: ['&', '=', '%', '%2', '%zz', '+', '%00', '%F0%9F', '&&', '=='],
    maxBytes: 4096,
    async run(input) {
      const found = await parts(input, readUrlencoded);
      // The standard's own parser, where the values are text.
      const oracle = [...new URLSearchParams(textOf(input).replace(/[\x80-\xff]/g, '?'))].filter(
        ([name]) => name !== '',
      );
      if (input.some((byte) => byte > 127) || /%[89a-f]/i.test(textOf(input)) || input[0] === 63) return;
      must(
        JSON.stringify(found.map(({ name, bytes }) => [name, bytes.toString('latin1')])) ===
          JSON.stringify(oracle),
        'the same as URLSearchParams',
      );
    },
  },
  base64: {
    description: 'base64, streamed and at once, and what is a raw file instead',
    longRuns: { texts: ['…AAEC…AwQ=…'] },
    async seeds() {
      const some = Uint8Array.from({ length: 60 }, (_, i) => (i * 37) & 255);
      return [
        await collectBytes(encodeBase64([some])),
        bytesOf(Buffer.from(some).toString('base64')),
        bytesOf(Buffer.from(some.subarray(1)).toString('base64').replace(/.{64}/g, '$&\r\n')),
        bytesOf('NRRD0004\n'),
        bytesOf('ObjectType = Image'),
      ];
    },
    words: ['=', '==', '\n', '\r\n', '\r', '-', '_', ' ', 'A', '++++', '\0'],
    maxBytes: 1024,
    async run(input) {
      isRawVolume(input);
      const text = textOf(input);
      const read = async (salt: number) =>
        collectBytes(copied(decodeBase64(inPieces(input, salt)))).catch((error: unknown) => {
          if (error instanceof TomaatError) return error.code;
          throw error;
        });
      const whole = await read(0);
      const pieces = await read(input.length | 1);
      if (typeof whole === 'string') {
        must(pieces === whole, 'the refusal does not depend on the pieces');
        throw new TomaatError('BAD_REQUEST', whole);
      }
      must(typeof pieces !== 'string' && equal(whole, pieces), 'the bytes do not depend on the pieces');
      must(equal(whole, Buffer.from(text, 'base64')), 'the same as Buffer.from');
      must(equal(whole, decodeBase64Text(text)), 'the same as decodeBase64Text()');
    },
  },
  'base64-text': {
    description: 'base64 at once, as clients decode it',
    longRuns: { texts: ['…AAEC…AwQ=…'] },
    seeds: async () => [bytesOf('AAEC\nAwQ='), bytesOf('/+8=')],
    words: ['=', '==', '\n', ' ', '\t', '-', 'A', '\xff'],
    maxBytes: 2048,
    async run(input) {
      const bytes = decodeBase64Text(textOf(input));
      const again = await collectBytes(encodeBase64([bytes]));
      must(equal(decodeBase64Text(textOf(again)), bytes), 'encode and decode give the same');
    },
  },
  'v1-transform': {
    description: 'A transform as TOMAAT v1 sends it',
    longRuns: { texts: ['…mat…\n…AAEC…'] },
    seeds: async () => [bytesOf('h5\nAAECAwQ='), bytesOf('nii.gz\r\nH4sIAAAA\n'), bytesOf('mat\nAAAA')],
    words: ['h5\n', 'mat\n', 'nii.gz\n', '\r\n', '=', 'tfm\n', ' '],
    maxBytes: 2048,
    async run(input) {
      const part = { name: 'volume', body: inPieces(input, input.length) };
      const { fileName, body } = await decodeV1Transform(part);
      must(/^volume\.(nii\.gz|h5|mat)$/.test(fileName!), 'the name is ours');
      const bytes = await collectBytes(copied(body));
      must(
        equal(bytes, Buffer.from(textOf(input).slice(textOf(input).indexOf('\n')), 'base64')),
        'the same as Buffer.from',
      );
    },
  },
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
  manifest: {
    description: 'Manifests in YAML',
    // YAML takes a microsecond a byte, and more for what opens.
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
};

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

async function* copied(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) yield Uint8Array.from(chunk);
}

function depthOf(value: unknown): number {
  let depth = 0;
  for (let level: unknown[] = [value]; level.length > 0; depth++) {
    level = level.flatMap((v) => (typeof v === 'object' && v !== null ? Object.values(v) : []));
    if (level.length === 0) break;
  }
  return depth;
}
