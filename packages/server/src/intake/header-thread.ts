import { parentPort } from 'node:worker_threads';
import { findIdentifyingText, inspectVolume, TomaatError } from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import type { HeaderAnswer, HeaderTask, StoredFile } from './header-reader.ts';
import { readPath } from './strip-received.ts';

/** The thread that reads headers, one at a time; see header-reader.ts. */
const port = parentPort!;
const say = (answer: HeaderAnswer) => port.postMessage(answer);

port.on('message', async (task: HeaderTask) => {
  try {
    const value =
      task.kind === 'inspect'
        ? await inspectVolume(task.files, nodePlatform, task.limits)
        : await identify(task.file);
    say({ kind: 'done', value });
  } catch (error) {
    // Anything else is a bug: it ends the thread and reaches the caller with its stack.
    if (!(error instanceof TomaatError)) throw error;
    say({ kind: 'refused', error: error.toJSON() });
  }
});
setInterval(() => say({ kind: 'alive' }), 500);
say({ kind: 'ready' });

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
