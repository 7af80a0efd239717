import { createReadStream } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { parentPort, workerData } from 'node:worker_threads';
import {
  encodeOutput,
  type OutputValue,
  parsePoints,
  readMesh,
  readTransform,
  readVolume,
  type SpatialTransform,
  TomaatError,
} from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import type { Conversion } from './converter.ts';

/** One conversion: reads the stored output, writes it in the wanted format, says how it went. */
const { path, type, from, to, target } = workerData as Conversion & { target: string };

async function readStored(): Promise<OutputValue> {
  const source = {
    name: `output.${from}`,
    open: (start = 0) => createReadStream(path, { start, highWaterMark: 1 << 20 }),
  };
  switch (type) {
    case 'LabelVolume':
      return (await readVolume([source], nodePlatform)).volume;
    case 'VTKMesh':
      return readMesh(await readFile(path));
    case 'Fiducials': {
      const text = await readFile(path, 'utf8');
      return from === 'json' ? JSON.parse(text) : parsePoints(text, 'points');
    }
    case 'PlainText': {
      const text = await readFile(path, 'utf8');
      return from === 'json' ? (JSON.parse(text) as { text: string }).text : text;
    }
    case 'Measurements':
      return JSON.parse(await readFile(path, 'utf8')).labels;
    default:
      return (await readTransform(source, nodePlatform)) as SpatialTransform;
  }
}

try {
  const value = await readStored();
  await using file = await open(target, 'wx', 0o600);
  for await (const chunk of encodeOutput(type, value, to, nodePlatform)) await file.writev([chunk]);
  parentPort?.postMessage(undefined);
} catch (error) {
  const known =
    error instanceof TomaatError
      ? error
      : new TomaatError('INTERNAL', 'The output could not be converted. Ask for another format.');
  parentPort?.postMessage(known.toJSON());
}
