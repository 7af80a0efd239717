import {
  chooseDicom,
  createDeidentifier,
  createStoredZip,
  type DeidentificationReport,
  type DicomHeader,
  type DicomImage,
  dicomSourceOf,
  distinctFiles,
  encodeDicomFile,
  encodeOutput,
  isSeriesFormat,
  isZip,
  type LabelMeasurement,
  type LeftOut,
  labelsWith,
  listSeries,
  maxFileBytes,
  mediaTypes,
  type OutputValue,
  openZip,
  outputFormats,
  type Platform,
  type Predecessor,
  type ReadLimits,
  readDicomFile,
  readDicomHeader,
  readDicomImage,
  readPrefix,
  readVolume,
  type SeriesFormat,
  type SeriesList,
  type SourceFile,
  sourceFromBytes,
  TomaatError,
  type UnreadFile,
  type Volume,
  type DicomSeries as VolumeSeries,
  type ZipMember,
} from '@tomaat/core';
import type { Job } from './contract/jobs.ts';
import type { Service } from './contract/services.ts';
import { joinReports } from './deidentification-reports.ts';
import { platformHere } from './identifying-text.ts';
import { type FileSource, fileNameOf, readAll } from './upload.ts';

/*
 * The path of a DICOM series from the user's files to a prediction and back: lists the series, selects and
 * de-identifies the one to send, and creates results in DICOM locally from the original files, so that the server
 * never learns whose they are.
 */

/** A file from a folder, or a zip archive: a File or Blob, or a source that is read in parts. */
export type DicomInputFile = SourceFile | Blob;

export interface DicomInputOptions {
  signal?: AbortSignal;
  /** Called after each file whose header was read. */
  onProgress?(doneFiles: number, totalFiles: number): void;
  limits?: ReadLimits;
}

/** The series among the given files, and what does not belong to one. */
export interface DicomInput extends SeriesList {
  /**
   * The series with a given UID or number; the only one if neither is given.
   *
   * @throws TomaatError BAD_INPUT, if there are several and none is selected (`detail.series` lists them), the
   *   selected one is not there, or no file is an image; why the series is not a volume: BAD_HEADER,
   *   UNSUPPORTED_FORMAT, TOO_MANY_VOXELS
   */
  choose(wanted?: string): ChosenSeries;
}

export interface PrepareOptions {
  /** How files are de-identified before they are sent (PS3.15 E.2); false sends them unchanged. */
  deidentify: DeidentifyChoice | false;
  signal?: AbortSignal;
  /** Called after each file that was read. */
  onProgress?(doneFiles: number, totalFiles: number): void;
}

export interface DeidentifyChoice {
  /**
   * 32 bytes, from `createUidKey()`: the same key gives the same UIDs and pseudonyms. Keep it secret: with it they
   * can be computed from the originals.
   */
  key: Uint8Array;
  /** Keeps the patient's sex, age, size and weight: SUV needs the weight. */
  keepPatientCharacteristics?: boolean;
  /** Dates are shifted by a number of days specific to the patient; otherwise they are removed. */
  shiftDates?: boolean;
}

/**
 * A series ready to be sent: a zip archive of the files `0001.dcm` and so on, an input of `predict()` and of
 * `upload()`.
 */
export interface PreparedSeries extends FileSource {
  /** What was removed from all files together; undefined if they are sent unchanged. */
  readonly report?: DeidentificationReport;
}

export interface DicomResultOptions {
  /**
   * The job that produced the output. The same job gives objects with the same UIDs: an archive that has them
   * replaces them, and results of one job refer to each other.
   */
  job: Pick<Job, 'id' | 'parameters'>;
  /** Name of the output; the service's first label map if missing. */
  output?: string;
  /**
   * Of a label map, `seg.dcm` if missing. `zip` is an archive of every DICOM object that the label map can become. For
   * it, and for `key.dcm`, one image is read. For other outputs the first of `seriesFormats` that they can have.
   */
  format?: SeriesFormat;
  /**
   * For measurements: the file of the label map that was measured (`measuredLabelMap()`). A report refers to its
   * segments.
   */
  labelMap?: Uint8Array;
  /** The format in which that label map is stored in DICOM; `seg.dcm` if missing. */
  labelMapFormat?: SeriesFormat;
  /** The predicted frame of a 4-D series, starting at 0. */
  frame?: number;
  /** Date and time in the object; now if missing. */
  time?: Date;
  /** An earlier object, of fewer images of the series, that this one takes the place of; not of an archive. */
  predecessor?: Predecessor;
}

export interface ChosenSeries {
  readonly series: VolumeSeries;
  readonly leftOut: readonly LeftOut[];
  /** The files of the series in volume order, as given or as stored in the archive. */
  readonly files: readonly SourceFile[];
  /**
   * Reads all files once, to find out what is removed and the length of the archive. Only one file is in memory at
   * any time, now and while the archive is sent.
   *
   * @throws TomaatError BAD_VOXELS if a file is damaged; UPLOAD_TOO_LARGE for 4 GiB or more
   */
  prepare(options: PrepareOptions): Promise<PreparedSeries>;
  /**
   * Converts a service's output for the series to a DICOM object, with patient, study and references of the original
   * files.
   *
   * @param output a label map in any volume format; measurements as JSON
   * @throws TomaatError APP_OUTPUT if the label map is not on the grid of the series; NOT_ACCEPTABLE if the files
   *   lack what a result refers to, or the output has no such format; BAD_INPUT for a frame that does not exist
   */
  createResult(
    output: Uint8Array,
    service: Pick<Service, 'id' | 'name' | 'version' | 'labels' | 'outputs'>,
    options: DicomResultOptions,
  ): Promise<Blob>;
}

/**
 * Reads the headers of files and of the files in zip archives among them, and sorts them into series. Files of other
 * kinds are listed in `leftOut`.
 *
 * @throws TomaatError as openZip(); BAD_INPUT if there are no files; errors of the files, or the signal's reason
 */
export async function openDicomInput(
  files: readonly DicomInputFile[],
  platform: Platform = platformHere(),
  { signal, onProgress, limits }: DicomInputOptions = {},
): Promise<DicomInput> {
  if (files.length === 0) throw new TomaatError('BAD_INPUT', 'There are no files. Give those of a series.');
  const unpacked: SourceFile[] = [];
  for (const file of files.map(sourceOf)) {
    signal?.throwIfAborted();
    if (isZip((await readPrefix(file, 4, signal)).prefix))
      unpacked.push(...(await openZip(file, platform, limits)));
    else unpacked.push(file);
  }
  const headers: (DicomHeader | UnreadFile)[] = [];
  for (const file of unpacked) {
    signal?.throwIfAborted();
    headers.push(await readDicomHeader(file, platform, signal));
    onProgress?.(headers.length, unpacked.length);
  }
  const list = listSeries(headers, limits);
  return { ...list, choose: (wanted) => openSeries(list, unpacked.length, wanted, platform) };
}

function sourceOf(file: DicomInputFile, index: number): SourceFile {
  if (!(file instanceof Blob)) return file;
  const name = 'name' in file ? fileNameOf(file) : `file-${index + 1}`;
  return { name, sizeBytes: file.size, open: (start = 0) => readAll(file.slice(start)) };
}

function openSeries(
  list: SeriesList,
  fileCount: number,
  wanted: string | undefined,
  platform: Platform,
): ChosenSeries {
  const { series, leftOut } = chooseDicom(list, fileCount, wanted);
  const images = distinctFiles(series.images);
  return {
    series,
    leftOut,
    files: images.map(({ header }) => header.file),
    prepare: (options) => prepare(images, platform, options),
    async createResult(file, service, options) {
      const { job, output, format, frame, labelMap } = options;
      const source = dicomSourceOf(series, frame);
      const made = outputOf(service, output);
      const wanted = formatOf(made, format);
      const value = await readOutput(made, file, platform);
      const description = `${service.name}: ${made.label ?? made.name}`;
      const measured = labelMap && {
        name: measuredLabelMap(service, made.name),
        volume: await readLabelMap(labelMap, platform),
        format: options.labelMapFormat,
      };
      const dicom = {
        source,
        maker: service,
        name: made.name,
        description,
        seed: job.id,
        time: options.time,
        predecessor: options.predecessor,
        labelMap: measured,
        readSlice: (index: number) => readDicomImage(series.stack!.frames[frame ?? 0][index], platform),
      };
      const labels = labelsWith(service.labels, job.parameters);
      const parts: BlobPart[] = [];
      for await (const part of encodeOutput(made.type, value, wanted, platform, { labels, dicom }))
        parts.push(part);
      return new Blob(parts, { type: mediaTypes[wanted] });
    },
  };
}

type ServiceOutput = Service['outputs'][number];

/** Name of the label map that an output of measurements, or another derived one, is made from. */
export function measuredLabelMap({ outputs }: Pick<Service, 'outputs'>, name: string): string {
  const output = outputs.find((one) => one.name === name);
  const from = output && 'from' in output ? output.from : undefined;
  return from ?? outputs.find(({ primary }) => primary)?.name ?? name;
}

/** The output of that name; the service's first label map if missing. */
function outputOf(
  { id, outputs }: Pick<Service, 'id' | 'outputs'>,
  wanted: string | undefined,
): ServiceOutput {
  const found = outputs.find(({ name, type }) =>
    wanted === undefined ? type === 'LabelVolume' : name === wanted,
  );
  if (found) return found;
  throw new TomaatError(
    'BAD_INPUT',
    `${id} has no ${wanted === undefined ? 'label map' : `output ${wanted}`}. Available outputs: ${outputs.map(({ name }) => name).join(', ')}.`,
  );
}

function formatOf({ name, type }: ServiceOutput, wanted: string | undefined): SeriesFormat {
  const possible = outputFormats[type].filter(isSeriesFormat);
  const found = wanted === undefined ? possible[0] : possible.find((format) => format === wanted);
  if (found) return found;
  if (possible.length === 0) {
    throw new TomaatError(
      'BAD_INPUT',
      `The output ${name} of type ${type} does not become a DICOM object. Take a label map.`,
    );
  }
  throw new TomaatError(
    'NOT_ACCEPTABLE',
    `The output ${name} does not become ${wanted}. Available: ${possible.join(', ')}.`,
    { field: 'format' },
  );
}

const readLabelMap = async (file: Uint8Array, platform: Platform): Promise<Volume> =>
  (await readVolume([sourceFromBytes('labels.nii.gz', file)], platform)).volume;

/** @throws TomaatError of the file; BAD_INPUT if it does not hold measurements */
async function readOutput(
  { name, type }: ServiceOutput,
  file: Uint8Array,
  platform: Platform,
): Promise<OutputValue> {
  if (type === 'LabelVolume') return readLabelMap(file, platform);
  try {
    const { labels } = JSON.parse(new TextDecoder().decode(file)) as { labels: readonly LabelMeasurement[] };
    if (Array.isArray(labels)) return labels;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new TomaatError(
    'BAD_INPUT',
    `The output ${name} does not hold measurements. Give it as the server sends it in the format json.`,
  );
}

async function prepare(
  images: readonly DicomImage[],
  platform: Platform,
  { deidentify, signal, onProgress }: PrepareOptions,
): Promise<PreparedSeries> {
  const reports: DeidentificationReport[] = [];
  const clean =
    deidentify &&
    createDeidentifier({
      uidKey: deidentify.key,
      keepPatientCharacteristics: deidentify.keepPatientCharacteristics,
      shiftDates: deidentify.shiftDates,
    });
  // A file that is sent in several parts is not cleaned again for each of them.
  let last: { image: DicomImage; pieces: readonly Uint8Array[] } | undefined;
  async function cleaned(image: DicomImage, signal: AbortSignal | undefined) {
    if (last?.image === image) return last.pieces;
    last = undefined;
    const file = await readDicomFile(image.header, platform, maxFileBytes(image), signal);
    if (!clean) return [];
    const { file: anonymous, report } = clean(file);
    if (reports.length < images.length) reports.push(report);
    last = { image, pieces: encodeDicomFile(anonymous) };
    return last.pieces;
  }
  const width = Math.max(4, String(images.length).length);
  const members = images.map(
    (image, i): ZipMember => ({
      name: `${String(i + 1).padStart(width, '0')}.dcm`,
      read: clean
        ? async function* (signal) {
            yield* await cleaned(image, signal);
          }
        : () => image.header.file.open(),
    }),
  );
  const zip = await createStoredZip('series.zip', members, { signal, onProgress });
  return { ...zip, asIs: true, ...(clean && { report: joinReports(reports) }) };
}
