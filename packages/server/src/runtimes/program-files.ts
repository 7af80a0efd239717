import { createReadStream } from 'node:fs';
import { open, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import {
  endingOf,
  type InputValue,
  type Output,
  type OutputValue,
  parseMeasurementsCsv,
  parsePoints,
  readMesh,
  readTransform,
  readVolume,
  type SourceFile,
  type SpatialTransform,
  TomaatError,
  type Volume,
  withoutVolumeEnding,
  writeTransform,
  writeVolume,
} from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';

/** The volumes and transforms among the inputs, as files named after them: `volume.nii.gz`. */
export async function writeInputs(
  inputs: Readonly<Record<string, InputValue>>,
  folder: string,
): Promise<void> {
  for (const [name, value] of Object.entries(inputs)) {
    if (typeof value !== 'object' || Array.isArray(value)) continue; // A parameter: it is in params.json.
    if ('voxels' in value) {
      await save(
        join(folder, `${name}.nii.gz`),
        writeVolume(value as Volume, 'nii.gz', nodePlatform, { level: 1 }),
      );
    } else {
      const transform = value as SpatialTransform;
      const extension = transform.kind === 'linear' ? 'mat' : transform.kind === 'grid' ? 'nii.gz' : 'h5';
      await save(join(folder, `${name}.${extension}`), writeTransform(transform, extension, nodePlatform));
    }
  }
}

async function save(path: string, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  await using file = await open(path, 'wx', 0o600);
  await file.writeFile(bytes); // Continues after a partial write.
}

/** The output of a file: its name without the extension, such as `seg` for seg.nii.gz and seg.vtk. */
const outputNameOf = (file: string) =>
  endingOf(file) ? withoutVolumeEnding(file) : file.replace(/\.[^.]+$/, '');

/** The files of `output`, one for each output of the manifest, by name; derived outputs may be missing. */
export async function readOutputs(
  outputs: Readonly<Record<string, Output>>,
  folder: string,
): Promise<Record<string, OutputValue>> {
  const files = (await readdir(folder)).filter((file) => !file.startsWith('.'));
  const results: Record<string, OutputValue> = {};
  for (const [name, output] of Object.entries(outputs)) {
    const file = files.find((candidate) => outputNameOf(candidate) === name);
    if (!file) continue;
    const path = join(folder, file);
    const { size } = await stat(path);
    const source: SourceFile = {
      name: file,
      sizeBytes: size,
      open: (start = 0) => createReadStream(path, { start }),
    };
    try {
      results[name] = await readOutput(output, source, path);
    } catch (error) {
      throw new TomaatError(
        'APP_OUTPUT',
        `The app’s program wrote ${file}, which cannot be read: ${(error as Error).message}`,
        {
          field: name,
          cause: error,
        },
      );
    }
  }
  return results;
}

async function readOutput(output: Output, source: SourceFile, path: string): Promise<OutputValue> {
  switch (output.type) {
    case 'LabelVolume':
      return (await readVolume([source], nodePlatform)).volume;
    case 'VTKMesh':
      return readMesh(await readFile(path));
    case 'Fiducials':
      return parsePoints(await readFile(path, 'utf8'), source.name);
    case 'PlainText':
      return readFile(path, 'utf8');
    case 'Measurements':
      return path.endsWith('.csv')
        ? parseMeasurementsCsv(await readFile(path, 'utf8'))
        : JSON.parse(await readFile(path, 'utf8'));
    default:
      return readTransform(source, nodePlatform);
  }
}
