import { type ChosenSeries, type DicomInput, openDicomInput, type PreparedSeries } from '@tomaat/client';
import {
  createUidMapper,
  type DicomImage,
  type DicomSeries,
  displayOf,
  inspectDicom,
  parseUidKey,
  readDicomVolume,
  TomaatError,
} from '@tomaat/core';
import { sourceOf } from '../blob-source.ts';
import { answerCalls, type Handlers, type Task } from '../worker-calls.ts';
import { dicomPlatform } from './codecs.ts';
import type { Operations, Removal, SeriesCard } from './messages.ts';
import { drawPicture } from './picture.ts';

/*
 * The worker for one selection of DICOM files: it reads headers and pixels, de-identifies, and creates results, so
 * that the page stays responsive. It keeps headers and requested data, never all files.
 */

let input: DicomInput | undefined;
let prepared: { for: string; series: PreparedSeries; removal: Removal } | undefined;

function opened(): DicomInput {
  if (!input) throw new TomaatError('INTERNAL', 'No files were opened. Reload the page.');
  return input;
}

const handlers: Handlers<Operations> = {
  async open({ files }, { signal, report }) {
    input = await openDicomInput(
      files.map(({ path, file }) => sourceOf({ name: path, blob: file })),
      dicomPlatform,
      { signal, onProgress: report },
    );
    return {
      series: input.series.map(cardOf),
      leftOut: input.leftOut.map(({ name, reason, fault }) => ({
        name,
        reason,
        isDamaged: fault !== undefined,
      })),
    };
  },

  async picture({ uid }, { signal }) {
    const series = opened().series.find((one) => one.uid === uid);
    const image = series && middleOf(series);
    if (!image) throw new TomaatError('BAD_INPUT', 'The series has no image.');
    return drawPicture(image, signal);
  },

  async choose({ uid }, { signal }) {
    const { files } = opened().choose(uid);
    const { header } = await inspectDicom(files, dicomPlatform, { signal });
    return {
      header,
      sizeBytes: files.reduce((sum, { sizeBytes = 0 }) => sum + sizeBytes, 0),
      fileCount: files.length,
    };
  },

  async display({ uid }) {
    const { series } = opened().choose(uid);
    const image = middleOf(series);
    return { windows: [], ...(image && displayOf(image)), modality: series.modality };
  },

  async read({ uid, frame = 0 }, { signal, report }) {
    const { files } = opened().choose(uid);
    const { volume } = await readDicomVolume(files, dicomPlatform, {
      signal,
      chooseFrame: () => frame,
      onProgress: (fraction) => report(fraction, 1),
    });
    return volume;
  },

  prepare: async (given, task) => (await prepare(given, task)).removal,

  async pack(given, task) {
    const { series } = await prepare(given, task);
    const parts: BlobPart[] = [];
    let done = 0;
    // Chunks become Blobs at once: the browser moves large ones to disk.
    for await (const part of series.stream()) {
      task.signal.throwIfAborted();
      parts.push(new Blob([part as Uint8Array<ArrayBuffer>]));
      done += part.length;
      task.report(done, series.sizeBytes);
    }
    return new Blob(parts, { type: 'application/zip' });
  },

  async find({ sentUid, key }) {
    const mapUid = createUidMapper(parseUidKey(key));
    const found = opened().series.find(({ uid }) => uid === sentUid || mapUid(uid) === sentUid);
    if (found) return cardOf(found);
    throw new TomaatError(
      'BAD_INPUT',
      opened().series.length === 0
        ? 'These files hold no DICOM series. Give the series that was sent.'
        : 'The series that was sent is not among these files. Give the same series again.',
    );
  },

  createResult: ({ uid, file, service, ...options }) =>
    opened().choose(uid).createResult(file, service, options),
};

function middleOf({ stack, images }: DicomSeries): DicomImage | undefined {
  const slices = stack?.frames[0] ?? images;
  return slices[Math.floor(slices.length / 2)];
}

async function prepare(
  { uid, key, keepPatientCharacteristics, keepIdentity }: Operations['prepare']['given'],
  { signal, report }: Task,
) {
  const wanted = `${uid} ${keepPatientCharacteristics} ${keepIdentity}`;
  if (prepared?.for === wanted) return prepared;
  const chosen: ChosenSeries = opened().choose(uid);
  const uidKey = parseUidKey(key);
  const series = await chosen.prepare({
    deidentify: !keepIdentity && { key: uidKey, keepPatientCharacteristics, shiftDates: true },
    signal,
    onProgress: report,
  });
  prepared = {
    for: wanted,
    series,
    removal: {
      keepPatientCharacteristics,
      keepIdentity,
      report: series.report,
      sizeBytes: series.sizeBytes,
      sentUid: keepIdentity ? uid : createUidMapper(uidKey)(uid),
    },
  };
  return prepared;
}

function cardOf(series: DicomSeries): SeriesCard {
  const { uid, number, description, modality, bodyPart, date, imageCount } = series;
  const { columns, rows, slices, spacing, frames, content, refusal } = series;
  return {
    ...{ uid, number, description, modality, bodyPart, date, imageCount },
    ...{ columns, rows, slices, spacing, frames, content, refusal: refusal?.message },
  };
}

/** Memory that is transferred to the page instead of being copied. */
function buffersOf(result: unknown): Transferable[] {
  const { voxels, rgba } = (result ?? {}) as { voxels?: ArrayBufferView; rgba?: ArrayBufferView };
  return [voxels, rgba].flatMap((view) => (view ? [view.buffer as ArrayBuffer] : []));
}

answerCalls<Operations>(handlers, buffersOf);
