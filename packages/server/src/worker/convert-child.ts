import { createReadStream } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import {
  encodeOutput,
  type LengthUnit,
  type OutputValue,
  parsePoints,
  readMesh,
  readTransform,
  readVolume,
  TomaatError,
} from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import { diskError } from '../store/blobs.ts';
import type { Conversion } from './converter.ts';

/** One conversion: reads the stored output, writes it in the wanted format; an error is said on stdout, as JSON. */
const { path, type, from, to, labels, target } = JSON.parse(process.argv[2]) as Conversion & {
  target: string;
};

async function readStored(): Promise<{ value: OutputValue; unit?: LengthUnit }> {
  const source = {
    name: `output.${from}`,
    open: (start = 0) => createReadStream(path, { start, highWaterMark: 1 << 20 }),
  };
  switch (type) {
    case 'LabelVolume':
      return readVolume([source], nodePlatform).then(({ volume, header }) => ({
        value: volume,
        unit: header.unit,
      }));
    case 'VTKMesh':
      return { value: readMesh(await readFile(path)) };
    case 'Fiducials': {
      const text = await readFile(path, 'utf8');
      return { value: from === 'json' ? JSON.parse(text) : parsePoints(text, 'points') };
    }
    case 'PlainText': {
      const text = await readFile(path, 'utf8');
      return { value: from === 'json' ? (JSON.parse(text) as { text: string }).text : text };
    }
    case 'Measurements':
      return { value: JSON.parse(await readFile(path, 'utf8')).labels };
    default:
      return { value: await readTransform(source, nodePlatform) };
  }
}

try {
  const { value, unit } = await readStored();
  await using file = await open(target, 'wx', 0o600);
  // It goes on after a write that took a part only.
  await file.writeFile(encodeOutput(type, value, to, nodePlatform, { unit, labels: [...labels] }));
} catch (error) {
  const told = diskError(error);
  if (!(told instanceof TomaatError)) throw error;
  console.log(JSON.stringify(told));
  process.exitCode = 1;
}
