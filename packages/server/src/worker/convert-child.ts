import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { encodeOutput, numberLabels, readOutput, TomaatError, type Volume } from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import { damagedError } from '../store/files/damage.ts';
import { diskError } from '../store/files/disk.ts';
import { hashFile } from '../store/files/hash-file.ts';
import { behaveAsChild } from './behave-as-child.ts';
import type { Conversion } from './converter.ts';

behaveAsChild();
// The server is gone: nobody wants the result.
process.on('disconnect', () => process.exit(1));
process.channel?.unref();

/** One conversion: reads the stored output, writes it in the requested format; an error is printed to stdout as JSON. */
const { path, digest, type, from, to, labels, geometry, forViewer, target } = JSON.parse(
  process.argv[2],
) as Conversion & {
  target: string;
};

const stored = {
  name: `output.${from}`,
  open: (start = 0) => createReadStream(path, { start, highWaterMark: 1 << 20 }),
};

try {
  if (`sha256:${await hashFile(path)}` !== digest) throw damagedError(path, 'its SHA-256 does not match');
  const { value, stated, own } = await readOutput({ type, format: from, file: stored }, nodePlatform);
  // A segmentation says what its labels were when it was made.
  const named = own ?? labels;
  await using file = await open(target, 'wx', 0o600);
  // It continues after a partial write.
  if (forViewer) {
    const { numbered, compressed = true } = forViewer;
    const shown = numbered
      ? numberLabels(
          value as Volume,
          named.map((label) => label.value),
        )
      : value;
    await file.writeFile(
      encodeOutput(type, shown, to, nodePlatform, {
        namesUnits: false,
        compressed,
        labels: numbered ? named.map((label, k) => ({ ...label, value: k + 1 })) : [...named],
      }),
    );
  } else {
    await file.writeFile(
      encodeOutput(type, value, to, nodePlatform, {
        // Older versions stored no grid with a result, but the result states it if it is in the input's format.
        geometry: geometry ?? stated,
        labels: [...named],
      }),
    );
  }
} catch (error) {
  const told = diskError(error);
  if (!(told instanceof TomaatError)) throw error;
  console.log(JSON.stringify(told));
  process.exitCode = 1;
}
