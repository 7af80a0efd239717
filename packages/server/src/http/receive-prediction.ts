import { createHash } from 'node:crypto';
import {
  acceptShape,
  extensionOf,
  isFileInput,
  isText,
  neutralNames,
  type OutputFormat,
  parseParameters,
  primaryOutput,
  requestWords,
  TomaatError,
  type VolumeFactsOf,
  type VolumeHeader,
  volumeInputs,
  withField,
} from '@tomaat/core';
import type { FastifyRequest } from 'fastify';
import type { App } from '../apps.ts';
import { type BodyPart, readText } from '../intake/body-part.ts';
import { countBytes } from '../intake/byte-counter.ts';
import type { HeaderReader } from '../intake/header-reader.ts';
import { readMultipart } from '../intake/multipart.ts';
import { queryWord, queryWords } from '../intake/query.ts';
import { type ReceivedInput, receiveInput } from '../intake/receive-input.ts';
import { stripReceived } from '../intake/strip-received.ts';
import { readUrlencoded } from '../intake/urlencoded.ts';
import type { Blobs } from '../store/blobs.ts';
import type { InputFile, JobRequest } from '../store/job-records.ts';
import type { Jobs } from '../store/jobs.ts';
import type { Uploads } from '../store/uploads.ts';
import type { MemoryPolicy } from '../worker/memory-limit.ts';
import type { Admission } from './admission.ts';
import type { ServerContext } from './context.ts';
import { requireMemory } from './memory-need.ts';
import { isJson, readNamedInputs } from './named-inputs.ts';
import { requireFormat } from './outputs.ts';
import type { Pace } from './slow-readers.ts';
import { decodeV1Transform } from './v1-transform.ts';

/** A prediction as it arrived: its files are on disk, its parameters checked, its headers plausible. */
export interface ReceivedPrediction extends AsyncDisposable {
  inputs: InputFile[];
  request: JobRequest;
  /** The same for two requests that ask for the same of the same bytes. */
  fingerprint: string;
}

export interface ReceiveContext {
  audit: ServerContext['audit'];
  blobs: Blobs;
  jobs: Jobs;
  uploads: Uploads;
  admission: Admission;
  headers: HeaderReader;
  ownerOf(request: FastifyRequest): string;
  stripInputs: boolean;
  maxUploadBytes: number;
  pace?: Pace;
  maxVoxels: number;
  memory: MemoryPolicy;
}

/**
 * Reads the body of a request for a prediction of `app`. Everything that can be told without the voxels is
 * checked here: a fault is a 4xx that names the field, and nothing is left on the disk. Until the result is
 * disposed of, what it holds on the disk is kept.
 */
export async function receivePrediction(
  request: FastifyRequest,
  app: App,
  face: 'api' | 'v1',
  context: ReceiveContext,
): Promise<ReceivedPrediction> {
  const { inputs } = app.manifest;
  const held: string[] = [];
  const release = () => context.jobs.release(held.splice(0));
  const keep = ({ digest }: { digest: string }) => {
    context.jobs.hold(digest);
    held.push(digest);
  };
  using _admitted = await context.admission.enter(request);
  try {
    const received: ReceivedInput[] = [];
    // Without a prototype: a field may have any name.
    const raw: Record<string, unknown> = Object.create(null);
    const query: Record<string, string> = face === 'api' ? queryWords(request) : {};
    for (const [name, value] of Object.entries(query)) {
      if (!(requestWords as readonly string[]).includes(name)) raw[name] = value;
    }
    let frame: unknown = queryWord(request, 'frame');
    let format: string | undefined = query.format;
    // Before the body is read, and even where the body has the last word: the answer would be refused at the end.
    wantedFormats(app, format);
    const isNamed = face === 'api' && isJson(request);
    if (isNamed) {
      const named = await readNamedInputs(
        request,
        app,
        context.ownerOf(request),
        context,
        (name) => inputNameOf(name, app),
        (digest) => keep({ digest }),
      );
      received.push(...named.files);
      Object.assign(raw, named.parameters);
      frame = named.frame ?? frame;
      format = named.format ?? format;
    } else {
      const announcedBytes = Number(request.headers['content-length'] ?? 0);
      if (announcedBytes <= context.maxUploadBytes)
        await context.uploads.makeRoom(context.ownerOf(request), announcedBytes);
    }
    for await (const part of isNamed ? [] : partsOf(request, app, face, context)) {
      const name = inputNameOf(part.name, app);
      const input = Object.hasOwn(inputs, name) ? inputs[name] : undefined;
      if (input && isFileInput(input)) {
        const v1Transform = face === 'v1' && input.type === 'transform';
        const file = await receiveInput(v1Transform ? await decodeV1Transform(part) : part, context.blobs, {
          maxBytes: context.maxUploadBytes,
          encoding: face === 'api' || v1Transform ? 'raw' : isUrlencoded(request) ? 'base64-form' : 'base64',
          checkPrefix:
            input.type === 'volume' && !isOneOfSeveral(name, part, received)
              ? (prefix) => checkStart(part, prefix, context, face)
              : undefined,
          keep,
        });
        received.push({ ...file, name });
      } else if (name === 'frame' && face === 'api') {
        frame = await readText(part);
      } else if (part.fileName !== undefined) {
        const known = Object.keys(inputs).filter((key) => isFileInput(inputs[key]));
        throw new TomaatError(
          'BAD_INPUT',
          input
            ? `${name} is a parameter, not a file. Send its value as text; the files are: ${known.join(', ') || 'none'}.`
            : `A file of the request is no input of this service. Its files are: ${known.join(', ') || 'none'}.`,
          { field: input && name },
        );
      } else if (input || (requestWords as readonly string[]).includes(name)) {
        raw[name] = await readText(part, input?.type === 'fiducials' ? longestPoints : undefined);
      } else {
        // It is refused by parseParameters, or passed over for v1; what it says is of no use to either.
        raw[name] = '';
      }
    }
    const parameters = parseParameters(inputs, raw, { ignoreUnknown: face === 'v1' });
    const chosenFrame = parseFrame(frame);
    requireFiles(app, received);
    const { voxels, shapes } = await inspectVolumes(app, received, chosenFrame, context);
    await requireMemory(app, shapes, parameters, context.memory);
    const first = received.find((file) => inputs[file.name].type === 'volume');
    const names = storedNames(received);
    if (context.stripInputs) {
      await stripReceived(received, names, context.blobs, context.headers, {
        keep,
        release: async (digest) => {
          held.splice(held.indexOf(digest), 1);
          await context.jobs.release([digest]);
        },
      });
    }
    const files = received.map((file, i) => ({
      name: file.name,
      fileName: names[i],
      digest: file.digest,
      sizeBytes: file.sizeBytes,
      received: file.received,
    }));
    const jobRequest: JobRequest = {
      parameters,
      frame: chosenFrame,
      formats: face === 'v1' ? v1Formats(app) : wantedFormats(app, format),
      stem: stemOf(first?.fileName),
      voxels,
    };
    const same = JSON.stringify([
      app.manifest.id,
      { ...jobRequest, stem: '' },
      files.map((f) => [f.name, f.digest]),
    ]);
    return {
      inputs: files,
      request: jobRequest,
      fingerprint: createHash('sha256').update(same).digest('hex'),
      [Symbol.asyncDispose]: release,
    };
  } catch (error) {
    await release();
    throw error;
  }
}

/** Bytes of the most points that an input takes unless its manifest says more, 10,000, with all digits. */
const longestPoints = 2 ** 20;

/** Whether a file is, or may be, the voxels of a header that comes in a file of its own. */
function isOneOfSeveral(name: string, part: BodyPart, received: readonly ReceivedInput[]): boolean {
  return received.some((file) => file.name === name) || /\.(img|raw|zraw)(\.gz)?$/i.test(part.fileName ?? '');
}

/** Refuses by its first bytes what cannot become a volume, so that nobody sends gigabytes of it. */
async function checkStart(
  { name, fileName, contentType }: BodyPart,
  prefix: Uint8Array,
  { headers, maxVoxels }: ReceiveContext,
  face: 'api' | 'v1',
): Promise<void> {
  try {
    await headers.inspect([{ name: fileName ?? name, prefix }], { maxVoxels });
  } catch (error) {
    const code = error instanceof TomaatError ? error.code : undefined;
    // What is missing may come in the next part; a file of any name may hold the voxels of a header to come.
    if (code === 'BAD_INPUT') return;
    if (code === 'UNKNOWN_FORMAT' && fileName !== undefined && extensionOf(fileName) === undefined) return;
    // A field of a form without a file name: data={"volume": path} in place of files={"volume": file}.
    const isField = fileName === undefined && !/^application\//i.test(contentType ?? '');
    const isUnread = code === 'UNKNOWN_FORMAT' || code === 'UNSUPPORTED_FORMAT';
    if (face === 'api' && isField && isUnread && prefix.length < 4096 && isText(prefix)) {
      throw new TomaatError(
        'BAD_INPUT',
        `${name} came as text, not as a file. Send the file itself: files={"${name}": open(PATH, "rb")} with requests in Python, -F ${name}=@PATH with curl.`,
        { field: name, cause: error },
      );
    }
    throw error;
  }
}

function isUrlencoded(request: FastifyRequest): boolean {
  return /^application\/x-www-form-urlencoded\b/i.test(request.headers['content-type'] ?? '');
}

/**
 * A form as it comes, which is ASCII without control characters (WHATWG URL, 5.2). Else it is a file: `curl --data-binary`
 * calls everything a form unless a type is given.
 */
async function* refuseFile(body: AsyncIterable<Uint8Array>, { manifest }: App): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    if (chunk.some((byte) => byte < 0x20 || byte > 0x7e)) {
      const volumes = volumeInputs(manifest);
      const name = volumes.length > 1 ? volumes[0] : 'volume';
      throw new TomaatError(
        'BAD_REQUEST',
        `The body is a file, but came as application/x-www-form-urlencoded, which is a form. With curl, add -H 'Content-Type: application/octet-stream', or send the file by -F ${name}=@FILE instead of --data-binary.`,
        { field: 'Content-Type' },
      );
    }
    yield chunk;
  }
}

async function* partsOf(
  request: FastifyRequest,
  app: App,
  face: 'api' | 'v1',
  context: ReceiveContext,
): AsyncGenerator<BodyPart> {
  const type = request.headers['content-type'] ?? '';
  // base64 takes 78 characters for 57 bytes with its newlines, and percent-encoding may triple that.
  const growth = face === 'api' ? 1 : isUrlencoded(request) ? 4.2 : 1.4;
  const limits = { ...context.pace, maxUploadBytes: Math.ceil(context.maxUploadBytes * growth) + 65_536 };
  const body = countBytes(request.raw, limits, request.headers['content-length']);
  if (/^multipart\/form-data\b/i.test(type)) {
    yield* readMultipart(body, type);
  } else if (isUrlencoded(request)) {
    yield* readUrlencoded(face === 'api' ? refuseFile(body, app) : body);
  } else if (
    face === 'api' &&
    (/^application\/octet-stream\b/i.test(type) ||
      /^application\/(x-)?(gzip|nifti|nrrd|metaimage)\b/i.test(type))
  ) {
    const names = volumeInputs(app.manifest);
    if (names.length === 0)
      throw new TomaatError(
        'BAD_INPUT',
        'This service takes no volume. Send its inputs as multipart/form-data.',
      );
    yield { name: names[0], fileName: undefined, contentType: type, body };
  } else {
    throw new TomaatError(
      'UNSUPPORTED_MEDIA',
      `A body of type ${type.split(';')[0].slice(0, 60) || 'unknown'} is not taken here. Send multipart/form-data with a part for each input${face === 'api' ? ', the volume alone as application/octet-stream, or JSON that names uploads' : ''}.`,
      { field: 'Content-Type' },
    );
  }
}

/** `volume` always means the only volume of a service that has one, whatever its author calls it. */
function inputNameOf(name: string, app: App): string {
  if (name !== 'volume' || Object.hasOwn(app.manifest.inputs, name)) return name;
  const volumes = volumeInputs(app.manifest);
  return volumes.length === 1 ? volumes[0] : name;
}

function parseFrame(raw: unknown): number | undefined {
  if (raw === undefined || raw === '') return undefined;
  const frame = Number(raw);
  if (Number.isInteger(frame) && frame >= 0) return frame;
  throw new TomaatError('BAD_INPUT', 'frame has to be a whole number from 0.', { field: 'frame' });
}

function requireFiles(app: App, received: readonly ReceivedInput[]): void {
  const { inputs } = app.manifest;
  const missing = Object.keys(inputs).filter((name) => {
    const input = inputs[name];
    return (
      isFileInput(input) &&
      !('optional' in input && input.optional) &&
      !received.some((file) => file.name === name)
    );
  });
  if (missing.length === 0) return;
  throw new TomaatError(
    'INPUTS_MISSING',
    `This service needs ${missing.join(' and ')} too. Send ${missing.length > 1 ? 'them' : 'it'} in the same request.`,
    {
      field: missing[0],
      detail: { missing },
    },
  );
}

/**
 * The header checks of every volume: format, size, frames, and those acceptance rules that need no voxels. Gives the
 * voxels of the largest one, and what will be read of each.
 */
async function inspectVolumes(
  app: App,
  received: readonly ReceivedInput[],
  frame: number | undefined,
  { headers, maxVoxels }: ReceiveContext,
): Promise<{ voxels: number; shapes: Record<string, VolumeFactsOf> }> {
  let voxels = 0;
  const shapes: Record<string, VolumeFactsOf> = {};
  for (const [name, input] of Object.entries(app.manifest.inputs)) {
    const files = received.filter((file) => file.name === name);
    if (input.type !== 'volume' || files.length === 0) continue;
    try {
      const header = await headers.inspect(
        files.map((file) => ({
          name: file.fileName ?? name,
          prefix: file.prefix,
          sizeBytes: file.sizeBytes,
        })),
        { maxVoxels },
      );
      voxels = Math.max(voxels, header.size[0] * header.size[1] * header.size[2] * header.components);
      if (input.frames === 'one') checkFrame(header, frame);
      acceptShape(app.manifest.acceptance, name, header);
      const { size, affine, components, frames, voxelType } = header;
      shapes[name] = {
        size,
        affine,
        components: components * (input.frames === 'all' ? frames : 1),
        voxelType,
      };
    } catch (error) {
      throw withField(error, name);
    }
  }
  return { voxels, shapes };
}

function checkFrame(header: VolumeHeader, frame: number | undefined): void {
  if (header.frames === 1 && frame === undefined) return;
  if (frame === undefined) {
    throw new TomaatError(
      'FRAME_NEEDED',
      `The volume is 4-D with ${header.frames} frames, and this service takes one. Choose it with frame, from 0 to ${header.frames - 1}: an option of the client’s predict(), ?frame=0 to ?frame=${header.frames - 1} in the address, --frame on the command line.`,
      { detail: { frames: header.frames } },
    );
  }
  if (frame >= header.frames) {
    throw new TomaatError(
      'BAD_INPUT',
      `There is no frame ${frame}: the volume has ${header.frames}, counted from 0.`,
      { field: 'frame' },
    );
  }
}

const knownExtension =
  /(\.nii\.gz|\.img\.gz|\.hdr\.gz|\.nii|\.hdr|\.img|\.mha|\.mhd|\.raw|\.zraw|\.nrrd|\.nhdr|\.h5|\.mat|\.tfm|\.txt)$/i;

/** Of a client's file name only the extension is kept: it tells the halves of a pair apart. */
function storedNames(received: readonly ReceivedInput[]): string[] {
  const names: string[] = [];
  for (const input of new Set(received.map((file) => file.name))) {
    const files = received.flatMap((file, i) => (file.name === input ? [i] : []));
    const neutral = neutralNames(
      input,
      files.map((i) => received[i].fileName ?? ''),
    );
    files.forEach((at, k) => {
      names[at] = neutral[k];
    });
  }
  return names;
}

/** First part of the results' names: the input's name without extension, harmless in any file system. */
function stemOf(fileName: string | undefined): string {
  const stem = (fileName ?? '')
    .replace(knownExtension, '')
    // macOS gives letters and their accents apart; in many scripts marks are part of the word.
    .normalize('NFC')
    .replace(/[^\p{L}\p{M}\p{N}._-]+/gu, '_')
    .replace(/^[._]+/, '');
  const letters = [...stem].slice(0, 80);
  // File systems take 255 bytes for a name, and the output's name follows.
  while (Buffer.byteLength(letters.join('')) > 180) letters.pop();
  return letters.join('') || 'volume';
}

function wantedFormats(app: App, format: string | undefined): Record<string, OutputFormat> | undefined {
  if (format === undefined) return undefined;
  const name = primaryOutput(app.manifest);
  return { [name]: requireFormat(format, { name, type: app.manifest.outputs[name].type }) };
}

/** The formats that the v1 protocol prescribes. */
function v1Formats(app: App): Record<string, OutputFormat> {
  const byType = {
    LabelVolume: 'mha',
    VTKMesh: 'vtk',
    Fiducials: 'txt',
    PlainText: 'txt',
    Measurements: 'json',
    TransformGrid: 'nii.gz',
    TransformBSpline: 'h5',
    TransformLinear: 'mat',
  } as const;
  return Object.fromEntries(
    Object.entries(app.manifest.outputs).map(([name, output]) => [name, byType[output.type]]),
  );
}
