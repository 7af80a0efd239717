import type { OutputFormat } from '@tomaat/core';
import { type Job, jobSchema } from './contract/jobs.ts';
import type { NamedPrediction } from './contract/predictions.ts';
import { addressOf, type Connection, callForJson, readJson } from './http.ts';
import { anonymousFiles } from './identifying-text.ts';
import {
  type NamedBytes,
  randomHex,
  toUploadFile,
  type UploadFile,
  type UploadProgress,
  upload,
} from './upload.ts';
import { type FileRef, uploadResumable } from './upload-resumable.ts';

/** A value of an input that is not a file. Points are RAS+ mm. */
export type InputParameter = number | boolean | string | readonly (readonly [number, number, number])[];

/**
 * A file of a volume: a File or Blob, bytes with or without a name, a source that is read while it is sent, or the
 * result of `upload`.
 */
export type VolumeFile = UploadFile | NamedBytes | Uint8Array | ArrayBuffer | FileRef;
type SentFile = UploadFile | FileRef;

export interface PredictOptions {
  /**
   * The file of each volume input, or the result of `upload` for it; several for one volume that consists of several
   * files (.hdr and .img, the files of a DICOM series).
   */
  volumes: Readonly<Record<string, VolumeFile | readonly VolumeFile[]>>;
  values?: Readonly<Record<string, InputParameter>>;
  /** Which frame of a 4-D volume, starting at 0. */
  frame?: number;
  /** Which DICOM series, if the files of a volume contain several: its UID or its number. */
  series?: string;
  /**
   * The format of an output, by its name. Those that refer to a DICOM series (`seriesFormats`) can only be asked for
   * here; all others also from `output()`.
   */
  formats?: Readonly<Record<string, OutputFormat>>;
  /** The same key with the same request returns the same job; generated if missing. */
  idempotencyKey?: string;
  onUpload?: UploadProgress;
  /** Resumes uploads of larger files after an interruption, and does not resend files that the server already has. */
  resumableAboveBytes?: number;
  /** 0 (most urgent) to 7; 3 if missing. */
  urgency?: number;
  /** Sends files unchanged: with header text that may identify the patient, and under their own names. */
  keepText?: boolean;
  signal?: AbortSignal;
}

/** Uploads, and returns the job; see `Client.predict`. */
export async function predict(
  connection: Connection,
  serviceId: string,
  {
    volumes,
    values = {},
    frame,
    series,
    formats,
    idempotencyKey = randomHex(16),
    onUpload,
    resumableAboveBytes = Number.POSITIVE_INFINITY,
    urgency,
    keepText,
    signal,
  }: PredictOptions,
): Promise<Job> {
  const path = `/api/services/${encodeURIComponent(serviceId)}/predictions`;
  const fields = Object.entries(values).map(([name, value]) => [name, asText(value)] as const);
  const given = (
    await Promise.all(
      Object.entries(volumes).map(async ([name, files]) => {
        const list = (isList(files) ? files : [files]).map((file) =>
          isRef(file) ? file : toUploadFile(name, file),
        );
        return (keepText ? list : await withoutText(name, list)).map((file) => [name, file] as const);
      }),
    )
  ).flat();
  const headers = {
    'idempotency-key': idempotencyKey,
    accept: 'application/json',
    priority: urgency === undefined ? undefined : `u=${urgency}`,
  };
  if (given.some(([, file]) => isRef(file) || sizeOf(file) > resumableAboveBytes)) {
    const inputs = await uploadAll(connection, given, onUpload, signal);
    if (inputs) {
      const named: NamedPrediction = {
        inputs,
        parameters: Object.fromEntries(fields),
        ...{ frame, series, formats },
      };
      return callForJson(connection, path, jobSchema, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json' },
        body: JSON.stringify(named),
        repeatable: true,
        signal,
      });
    }
  }
  const files = given.flatMap(([name, file]) => (isRef(file) ? [] : [[name, file] as const]));
  const response = await upload(
    connection,
    path,
    { fields, files },
    {
      query: { frame, series, formats: formats && formatsText(formats) },
      headers,
      repeatable: true,
      onUpload,
      signal,
    },
  );
  return readJson(response, jobSchema, addressOf(connection, path), signal);
}

const formatsText = (formats: Readonly<Record<string, string>>): string | undefined =>
  Object.entries(formats)
    .map((pair) => pair.join(':'))
    .join(',') || undefined;

/**
 * The files of one input, ready to send. Those already on the server, and those to be sent unchanged, are left alone.
 */
async function withoutText(input: string, files: readonly SentFile[]): Promise<readonly SentFile[]> {
  const sent = files.flatMap((file) => (isRef(file) || isAsIs(file) ? [] : [file]));
  const stripped = await (await anonymousFiles(input, sent)).strip();
  return files.map((file) => (isRef(file) || isAsIs(file) ? file : stripped.shift()!));
}

export const isAsIs = (file: UploadFile): boolean => !(file instanceof Blob) && file.asIs === true;

const sizeOf = (file: UploadFile): number => (file instanceof Blob ? file.size : file.sizeBytes);

/** Sends the files of each input one after the other; undefined if the server does not support such uploads. */
async function uploadAll(
  connection: Connection,
  files: readonly (readonly [name: string, file: SentFile])[],
  onUpload?: UploadProgress,
  signal?: AbortSignal,
): Promise<Record<string, FileRef[]> | undefined> {
  const totalBytes = files.reduce((sum, [, file]) => sum + (isRef(file) ? 0 : sizeOf(file)), 0);
  const inputs: Record<string, FileRef[]> = {};
  let before = 0;
  for (const [name, file] of files) {
    const report = ({ sentBytes }: { sentBytes: number }) =>
      onUpload?.({ sentBytes: before + sentBytes, totalBytes });
    const ref = isRef(file) ? file : await uploadResumable(connection, file, { onUpload: report, signal });
    if (!ref) return undefined;
    inputs[name] = [...(inputs[name] ?? []), ref];
    before += isRef(file) ? 0 : sizeOf(file);
  }
  return inputs;
}

function isRef(file: VolumeFile): file is FileRef {
  return typeof file === 'object' && file !== null && ('upload' in file || 'blob' in file);
}

function isList(files: VolumeFile | readonly VolumeFile[]): files is readonly VolumeFile[] {
  return Array.isArray(files);
}

function asText(value: InputParameter): string {
  return Array.isArray(value) ? value.map((point) => point.join(',')).join(';') : String(value);
}
