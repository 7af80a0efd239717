import { parentPort } from 'node:worker_threads';
import {
  findIdentifyingText,
  inspectFiles,
  inspectStart,
  refuseIdentity,
  type SourceFile,
  sortFiles,
  TomaatError,
} from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import { filePieces } from '../store/files/file-pieces.ts';
import type { HeaderAnswer, HeaderTask, InspectedFile, StoredFile } from './header-reader.ts';
import { readPath } from './strip-received.ts';

/** The thread that reads headers, one at a time; see header-reader.ts. */
const port = parentPort!;
const say = (answer: HeaderAnswer) => port.postMessage(answer);

port.on('message', async (task: HeaderTask) => {
  try {
    say({ kind: 'done', value: await answer(task) });
  } catch (error) {
    // Anything else is a bug: it ends the thread and reaches the caller with its stack.
    if (!(error instanceof TomaatError)) throw error;
    say({ kind: 'refused', error: error.toJSON() });
  }
});
setInterval(() => say({ kind: 'alive' }), 500);
say({ kind: 'ready' });

async function answer(task: HeaderTask) {
  if (task.kind === 'identify') return identify(task.file);
  if (task.kind === 'start') {
    inspectStart(task.file, task.limits);
    return undefined;
  }
  if (task.kind === 'clean') {
    // Most servers never need it, and a thread starts with the first header.
    const { cleanFiles, withoutMemory } = await import('./clean-files.ts');
    try {
      return await cleanFiles(task.files, task.files.map(sourceOf), task.key, task.options);
    } catch (error) {
      throw withoutMemory(error);
    }
  }
  const files = task.files.map(sourceOf);
  if (task.kind === 'inspect') return inspectFiles(files, nodePlatform, task.options);
  const { files: unpacked, prefixes } = await sortFiles(files, nodePlatform, { limits: task.limits });
  if (!prefixes) await refuseIdentity(unpacked, nodePlatform);
  return undefined;
}

const sourceOf = ({ path, name, sizeBytes }: InspectedFile): SourceFile => ({
  name,
  sizeBytes,
  // Mostly only the first pieces are asked for, so that they are small.
  open: (start = 0) => filePieces(path, sizeBytes, { start, pieceBytes: 2 ** 16 }),
});

async function identify({ path, name, sizeBytes, dataFiles }: StoredFile) {
  const { rewrite } = await findIdentifyingText(
    { name, sizeBytes, read: (start = 0, end = sizeBytes) => readPath(path, start, end) },
    nodePlatform,
    {
      dataFile: (named) =>
        Object.hasOwn(dataFiles, named.toLowerCase()) ? dataFiles[named.toLowerCase()] : named,
    },
  );
  return rewrite;
}
