import { seriesSchema } from '@tomaat/client';
import {
  acceptShape,
  acceptSuv,
  chooseFormat,
  isFileInput,
  isZip,
  type OutputFormat,
  type Parameter,
  TomaatError,
  type VolumeFactsOf,
  type VolumeHeader,
  withField,
} from '@tomaat/core';
import type { App } from '../apps.ts';
import type { InspectedFile } from '../intake/header-reader.ts';
import type { ReceivedInput } from '../intake/receive-input.ts';
import type { ServerContext } from './context.ts';

/** What the headers of a request's files show, before any voxels are read. */

/** The `frame` of a request; undefined if it has none. */
export function parseFrame(raw: unknown): number | undefined {
  if (raw === undefined || raw === '') return undefined;
  const frame = Number(raw);
  if (Number.isInteger(frame) && frame >= 0) return frame;
  throw new TomaatError('BAD_INPUT', 'frame must be a whole number, 0 or more.', { field: 'frame' });
}

/** The `series` of a request; undefined if it has none. */
export function parseSeries(raw: unknown): string | undefined {
  if (raw === undefined || raw === '') return undefined;
  const parsed = seriesSchema.safeParse(raw);
  if (parsed.success) return parsed.data;
  throw new TomaatError(
    'BAD_INPUT',
    'series is the UID of a DICOM series (digits and dots, 64 at most), or its number. Send one of those.',
    { field: 'series' },
  );
}

/** Throws INPUTS_MISSING if a file that the app needs has not arrived. */
export function requireFiles(app: App, received: readonly ReceivedInput[]): void {
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
    `This service also needs ${missing.join(' and ')}. Send ${missing.length > 1 ? 'them' : 'it'} in the same request.`,
    {
      field: missing[0],
      detail: { missing },
    },
  );
}

/** More belong to a series of images, each with a header of its own. */
const mostFilesOfOneHeader = 2;

/**
 * The header checks of every volume: format, size, frames, identity where it is refused, and the acceptance rules that
 * need no voxels. Returns the number of voxels of the largest one, what will be read of each, and which are DICOM series.
 */
export async function inspectVolumes(
  app: App,
  received: readonly ReceivedInput[],
  {
    frame,
    series,
    parameters,
  }: { frame?: number; series?: string; parameters: Readonly<Record<string, Parameter>> },
  {
    headers,
    blobs,
    maxVoxels,
    processing,
  }: Pick<ServerContext, 'headers' | 'blobs' | 'maxVoxels' | 'processing'>,
): Promise<{ voxels: number; shapes: Record<string, VolumeFactsOf>; dicomInputs: ReadonlySet<string> }> {
  let voxels = 0;
  const shapes: Record<string, VolumeFactsOf> = {};
  const dicomInputs = new Set<string>();
  for (const [name, input] of Object.entries(app.manifest.inputs)) {
    const files = received.filter((file) => file.name === name);
    if (input.type !== 'volume' || files.length === 0) continue;
    const stored: InspectedFile[] = [];
    for (const file of files) {
      const path = await blobs.fetch(file);
      stored.push({ name: file.fileName ?? name, path, sizeBytes: file.sizeBytes });
    }
    try {
      const header = await headers.inspect(
        stored,
        { limits: { maxVoxels }, series },
        files.length > mostFilesOfOneHeader || files.some(({ start }) => isZip(start)),
      );
      if (header.format === 'dicom') dicomInputs.add(name);
      if (header.format === 'dicom' && (await processing.refusesIdentity(app)))
        await headers.refuseIdentity(stored, { maxVoxels });
      voxels = Math.max(voxels, header.size[0] * header.size[1] * header.size[2] * header.components);
      if (input.frames === 'one') checkFrame(header, frame);
      acceptShape(app.manifest.acceptance, name, header);
      acceptSuv(app.manifest, parameters, name, header.suv);
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
  if (series !== undefined && dicomInputs.size === 0) {
    throw new TomaatError(
      'BAD_INPUT',
      'series chooses one of several DICOM series, and no volume of the request is one. Leave it out.',
      { field: 'series' },
    );
  }
  return { voxels, shapes, dicomInputs };
}

/** Throws NOT_ACCEPTABLE for a format that refers to a DICOM series, where the input is none. */
export function refuseSeriesFormats(
  { manifest }: App,
  formats: Readonly<Record<string, OutputFormat>> = {},
): void {
  // The extension would decide only where no format is given.
  for (const [name, format] of Object.entries(formats))
    chooseFormat(name, manifest.outputs[name], format, { extension: 'nii.gz' });
}

function checkFrame(header: VolumeHeader, frame: number | undefined): void {
  if (header.frames === 1 && frame === undefined) return;
  if (frame === undefined) {
    throw new TomaatError(
      'FRAME_NEEDED',
      `The volume is 4-D with ${header.frames} frames, and this service takes one frame. Choose it with frame, from 0 to ${header.frames - 1}: an option of the client’s predict(), ?frame=0 to ?frame=${header.frames - 1} in the address, --frame on the command line.`,
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
