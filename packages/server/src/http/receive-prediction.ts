import { createHash } from 'node:crypto';
import {
  extensionOf,
  fileEndingOf,
  holdsVoxelsAlone,
  isDicom,
  isFileInput,
  isText,
  neutralNames,
  parseParameters,
  requestWords,
  TomaatError,
  volumeInputs,
} from '@tomaat/core';
import type { FastifyRequest } from 'fastify';
import type { App } from '../apps.ts';
import { type BodyPart, readText } from '../intake/body-part.ts';
import { countBytes } from '../intake/byte-counter.ts';
import { defaultPartLimits } from '../intake/multipart.ts';
import { queryWord, queryWords } from '../intake/query.ts';
import { type ReceivedInput, receiveInput, type WrittenInput } from '../intake/receive-input.ts';
import { seriesAmongCleaned, stripReceived } from '../intake/strip-received.ts';
import type { InputFile, JobRequest } from '../store/jobs/job-records.ts';
import {
  inspectVolumes,
  parseFrame,
  parseSeries,
  refuseSeriesFormats,
  requireFiles,
} from './check-inputs.ts';
import type { ServerContext } from './context.ts';
import { requireMemory } from './memory-need.ts';
import { findFiles, isJson, readNamedInputs } from './named-inputs.ts';
import { type BodyKind, parseFormats, type RequestForm } from './request-form.ts';

/** A prediction as it arrived: its files are on disk, its parameters checked, its headers plausible. */
export interface ReceivedPrediction extends AsyncDisposable {
  inputs: InputFile[];
  request: JobRequest;
  /** Equal for two requests with the same bytes and the same parameters. */
  fingerprint: string;
}

/** The content of a request, as far as it was read. */
interface Said {
  readonly files: ReceivedInput[];
  /** Values of parameters as received. Without a prototype: a field may have any name. */
  readonly raw: Record<string, unknown>;
  frame: unknown;
  series: unknown;
  format?: string;
  formats?: Readonly<Record<string, string>>;
}

/** Records that a file in the blob store is held for a request. */
export type Keep = (file: { digest: string }) => Promise<void>;

/**
 * Reads the body of a request for a prediction of `app`. Everything that can be checked without the voxels is
 * checked here: an error is a 4xx that names the field, and nothing is left on disk. The files on disk are kept until the
 * result is disposed of.
 */
export async function receivePrediction(
  request: FastifyRequest,
  app: App,
  form: RequestForm,
  context: ServerContext,
): Promise<ReceivedPrediction> {
  const held: string[] = [];
  const release = () => context.jobs.discard(held.splice(0));
  const keep: Keep = async ({ digest }) => {
    await context.jobs.hold(digest);
    held.push(digest);
  };
  using _admitted = await context.admission.enter(request);
  try {
    const said = readOptions(request, form);
    // Before the body is read, even if the body can override it: otherwise the answer would only be refused at the end.
    form.formats(app, said);
    if (form.takesUploads && isJson(request)) await readNames(request, app, said, keep, context);
    else await readParts(request, app, form, said, keep, context);

    const { files: received } = said;
    const parameters = parseParameters(app.manifest.inputs, said.raw, { ignoreUnknown: form.ignoresUnknown });
    const chosen = { frame: parseFrame(said.frame), series: parseSeries(said.series) };
    requireFiles(app, received);
    const { voxels, shapes, dicomInputs } = await inspectVolumes(
      app,
      received,
      { ...chosen, parameters },
      context,
    );
    form.checkShapes?.(shapes);
    const formats = form.formats(app, said);
    // Results are on the grid of the first volume.
    if (!dicomInputs.has(Object.keys(shapes)[0])) refuseSeriesFormats(app, formats);
    await requireMemory(app, shapes, parameters, context.memory);

    const first = received.find((file) => app.manifest.inputs[file.name].type === 'volume');
    const isDicomInput = first !== undefined && dicomInputs.has(first.name);
    const isSeries =
      first !== undefined &&
      isDicom(first.start) &&
      received.filter(({ name }) => name === first.name).length > 1;
    const names = storedNames(received);
    if (context.stripping)
      chosen.series = seriesAmongCleaned(chosen.series, received, dicomInputs, context.stripping);
    const stored = context.stripping
      ? await stripReceived(received, names, dicomInputs, context.stripping, {
          keep,
          release: async (digest) => {
            held.splice(held.indexOf(digest), 1);
            await context.jobs.discard([digest]);
          },
        })
      : received.map((file, i) => ({ file, name: names[i] }));
    const inputs = stored.map(({ file, name }) => ({
      name: file.name,
      fileName: name,
      digest: file.digest,
      sizeBytes: file.sizeBytes,
      received: file.received,
    }));
    const stripped = [...new Set(inputs.filter((file) => file.received).map(({ name }) => name))];
    const jobRequest: JobRequest = {
      parameters,
      ...chosen,
      ...(stripped.length > 0 && { stripped }),
      formats,
      // The name of one of its files is not that of a series, and the name of an archive may be that of a patient.
      stem: isSeries || (context.stripping && isDicomInput) ? 'series' : stemOf(first?.fileName),
      voxels,
    };
    return {
      inputs,
      request: jobRequest,
      fingerprint: fingerprintOf(app, jobRequest, inputs),
      [Symbol.asyncDispose]: release,
    };
  } catch (error) {
    await release();
    throw error;
  }
}

/** The parts of the request besides the body. */
function readOptions(request: FastifyRequest, form: RequestForm): Said {
  const raw: Record<string, unknown> = Object.create(null);
  const query: Record<string, string> = form.takesOptions ? queryWords(request) : {};
  for (const [name, value] of Object.entries(query)) {
    if (!isRequestWord(name)) raw[name] = value;
  }
  const [frame, series] = ['frame', 'series'].map((name) => queryWord(request, name));
  return { files: [], raw, frame, series, format: query.format, formats: parseFormats(query.formats) };
}

/** Reads a body that refers to files already on the server. */
async function readNames(
  request: FastifyRequest,
  app: App,
  said: Said,
  keep: Keep,
  context: ServerContext,
): Promise<void> {
  const named = await readNamedInputs(
    request,
    app,
    context,
    (name) => inputNameOf(name, app),
    (digest) => keep({ digest }),
  );
  said.files.push(...named.files);
  Object.assign(said.raw, named.parameters);
  said.frame = named.frame ?? said.frame;
  said.series = named.series ?? said.series;
  said.format = named.format ?? said.format;
  said.formats = named.formats ?? said.formats;
}

/** Reads a body that contains its files. All are durably on disk when it resolves. */
async function readParts(
  request: FastifyRequest,
  app: App,
  form: RequestForm,
  said: Said,
  keep: Keep,
  context: ServerContext,
): Promise<void> {
  const { inputs } = app.manifest;
  const announcedBytes = Number(request.headers['content-length'] ?? 0);
  if (announcedBytes <= context.maxUploadBytes)
    await context.uploads.makeRoom(context.ownerOf(request), announcedBytes);
  const { parts, encoding } = openBody(request, app, form, context);
  await using storing = createStoring();
  const arrived: { name: string }[] = [];
  for await (const part of parts) {
    const name = inputNameOf(part.name, app);
    const input = Object.hasOwn(inputs, name) ? inputs[name] : undefined;
    if (input && isFileInput(input)) {
      const decoded = await form.decodeFile?.(part, input);
      const isVolume = input.type === 'volume';
      const how = decoded ? 'raw' : encoding;
      const options = { name, isVolume, encoding: how, arrived, keep };
      const file = await receiveFile(decoded ?? part, options, context);
      arrived.push({ name });
      await storing.add(file);
    } else if ((name === 'frame' || name === 'series') && form.takesOptions) {
      said[name] = await readText(part);
    } else if (part.fileName !== undefined) {
      throw noSuchFile(name, app);
    } else if (input || isRequestWord(name)) {
      said.raw[name] = await readText(part, input?.type === 'fiducials' ? longestPoints : undefined);
    } else {
      // parseParameters refuses or ignores it, whatever its value.
      said.raw[name] = '';
    }
  }
  const stored = await storing.end();
  said.files.push(...stored.map((file, i) => ({ ...file, ...arrived[i] })));
  for (const { name, refs } of (await form.moreFiles?.(app)) ?? [])
    said.files.push(...(await findFiles(request, name, refs, context, (digest) => keep({ digest }))));
}

/** Writes one file of an input. Refused by its first bytes if it cannot be read as a volume, or part of one. */
export function receiveFile(
  part: BodyPart,
  {
    name,
    isVolume,
    encoding,
    arrived,
    keep,
  }: {
    /** Of the input. */
    name: string;
    isVolume: boolean;
    encoding: BodyKind['encoding'];
    /** The files before it. */
    arrived: readonly { name: string }[];
    keep?: Keep;
  },
  context: ServerContext,
): Promise<WrittenInput> {
  return receiveInput(part, context.blobs, {
    maxBytes: context.maxUploadBytes,
    encoding,
    checkPrefix: async (prefix) => {
      requireSeries(name, prefix, arrived);
      const mayBegin = !isOneOfSeveral(name, part, arrived) || isDicom(prefix);
      if (isVolume && mayBegin) await checkStart(part, prefix, encoding, context);
    },
    keep,
  });
}

/** Files that wait for the disk at a time. Each does so twice; a series has thousands, and the disk takes many at once. */
const filesAtATime = 16;

/** Makes files durable while the next ones come. Nothing of it goes on when it was disposed of. */
function createStoring() {
  const stored: ReceivedInput[] = [];
  const running = new Set<Promise<void>>();
  let count = 0;
  let fault: { error: unknown } | undefined;
  const store = async (file: WrittenInput, at: number) => {
    try {
      stored[at] = await file.commit();
    } catch (error) {
      fault ??= { error };
    }
  };
  const settle = () => Promise.all(running);
  return {
    async add(file: WrittenInput): Promise<void> {
      while (running.size >= filesAtATime) await Promise.race(running);
      const one = store(file, count++).finally(() => running.delete(one));
      running.add(one);
      if (fault) throw fault.error;
    },
    /** All files, in the order in which they were added. */
    async end(): Promise<ReceivedInput[]> {
      await settle();
      if (fault) throw fault.error;
      return stored;
    },
    async [Symbol.asyncDispose]() {
      await settle();
    },
  };
}

/** The parts of the body, and how its files are encoded. */
function openBody(
  request: FastifyRequest,
  app: App,
  form: RequestForm,
  context: ServerContext,
): { parts: AsyncIterable<BodyPart>; encoding: BodyKind['encoding'] } {
  const type = request.headers['content-type'] ?? '';
  const kind = form.bodies.find((candidate) => candidate.takes(type));
  const { growth } = kind ?? form.bodies[0];
  const limits = { ...context.pace, maxUploadBytes: Math.ceil(context.maxUploadBytes * growth) + 65_536 };
  const body = countBytes(request.raw, limits, request.headers['content-length']);
  if (kind) return { parts: kind.read(body, type, app), encoding: kind.encoding };
  throw new TomaatError(
    'UNSUPPORTED_MEDIA',
    `A body of type ${type.split(';')[0].slice(0, 60) || 'unknown'} is not accepted here. ${form.advice}.`,
    { field: 'Content-Type' },
  );
}

/** The error for a part with a file that is not an input of the app. */
function noSuchFile(name: string, { manifest: { inputs } }: App): TomaatError {
  const known = Object.keys(inputs).filter((key) => isFileInput(inputs[key]));
  const isParameter = Object.hasOwn(inputs, name);
  return new TomaatError(
    'BAD_INPUT',
    isParameter
      ? `${name} is a parameter, not a file. Send its value as text; the files are: ${known.join(', ') || 'none'}.`
      : `A file of the request is not an input of this service. Its files are: ${known.join(', ') || 'none'}.`,
    { field: isParameter ? name : undefined },
  );
}

function fingerprintOf(app: App, jobRequest: JobRequest, inputs: readonly InputFile[]): string {
  const same = JSON.stringify([
    app.manifest.id,
    { ...jobRequest, stem: '' },
    inputs.map(({ name, digest }) => [name, digest]),
  ]);
  return createHash('sha256').update(same).digest('hex');
}

const isRequestWord = (name: string): boolean => (requestWords as readonly string[]).includes(name);

/** Bytes of the most points that an input takes unless its manifest says more, 10,000, with all digits. */
const longestPoints = 2 ** 20;

/** Whether a file is, or may be, the voxels of a header in a separate file. */
function isOneOfSeveral(name: string, part: BodyPart, received: readonly { name: string }[]): boolean {
  return received.some((file) => file.name === name) || holdsVoxelsAlone(part.fileName ?? '');
}

/** Only the files of a DICOM series are many. */
function requireSeries(name: string, prefix: Uint8Array, received: readonly { name: string }[]): void {
  const { maxParts } = defaultPartLimits;
  if (received.length < maxParts || isDicom(prefix)) return;
  throw new TomaatError(
    'BAD_REQUEST',
    `The request has more than ${maxParts} files, and one of them is not a DICOM file. Send the files of one volume, or those of a DICOM series alone.`,
    { field: name },
  );
}

/** Refuses by its first bytes a file that cannot be read as a volume, before gigabytes of it are sent. */
async function checkStart(
  { name, fileName, contentType }: BodyPart,
  prefix: Uint8Array,
  encoding: BodyKind['encoding'],
  { headers, maxVoxels }: ServerContext,
): Promise<void> {
  try {
    await headers.start({ name: fileName ?? name, prefix }, { maxVoxels });
  } catch (error) {
    const code = error instanceof TomaatError ? error.code : undefined;
    // The missing half may come in the next part; a file of any name may hold the voxels of a later header.
    if (code === 'BAD_INPUT') return;
    if (code === 'UNKNOWN_FORMAT' && fileName !== undefined && extensionOf(fileName) === undefined) return;
    // A field of a form without a file name: data={"volume": path} in place of files={"volume": file}.
    const isField = fileName === undefined && !/^application\//i.test(contentType ?? '');
    const isUnread = code === 'UNKNOWN_FORMAT' || code === 'UNSUPPORTED_FORMAT';
    if (encoding === 'raw' && isField && isUnread && prefix.length < 4096 && isText(prefix)) {
      throw new TomaatError(
        'BAD_INPUT',
        `${name} came as text, not as a file. Send the file itself: files={"${name}": open(PATH, "rb")} with requests in Python, -F ${name}=@PATH with curl.`,
        { field: name, cause: error },
      );
    }
    throw error;
  }
}

/** `volume` always means the only volume of a service that has one, whatever its name in the manifest. */
function inputNameOf(name: string, app: App): string {
  if (name !== 'volume' || Object.hasOwn(app.manifest.inputs, name)) return name;
  const volumes = volumeInputs(app.manifest);
  return volumes.length === 1 ? volumes[0] : name;
}

/** Only the extension of a client's file name is kept: it distinguishes the halves of a pair. */
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
function stemOf(fileName = ''): string {
  const stem = fileName
    .slice(0, fileName.length - fileEndingOf(fileName).length)
    // DICOM files may end in anything, and mostly in these.
    .replace(/\.(?:dcm|dicom|ima|zip)$/i, '')
    // macOS separates letters and their accents; in many scripts marks are part of the word.
    .normalize('NFC')
    .replace(/[^\p{L}\p{M}\p{N}._-]+/gu, '_')
    .replace(/^[._]+/, '');
  const letters = [...stem].slice(0, 80);
  // File systems allow names of 255 bytes, and the output's name is appended.
  while (Buffer.byteLength(letters.join('')) > 180) letters.pop();
  return letters.join('') || 'volume';
}
