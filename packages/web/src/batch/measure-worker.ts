import { measureLabels, readVolume, type Volume, webPlatform } from '@tomaat/core';
import { sourceOf } from '../blob-source.ts';
import { labelsIn } from '../viewer/labels.ts';
import type { MeasureReply, MeasureRequest } from './measure.ts';
import { drawResult } from './picture.ts';

/* Measures and draws one result at a time, away from the page. */

self.onmessage = async ({ data: request }: MessageEvent<MeasureRequest>) => {
  let reply: MeasureReply;
  try {
    reply = await measure(request);
  } catch (error) {
    reply = { error: error instanceof Error ? error.message : String(error) };
  }
  self.postMessage(reply);
};

async function measure({ labelMap, scan, labels, colors }: MeasureRequest): Promise<MeasureReply> {
  const { volume } = await readVolume([sourceOf({ name: 'labels.nii.gz', blob: labelMap })], webPlatform);
  const volumes = measureLabels(volume, labels).map(({ value, name, volumeMl }) => ({
    value,
    name,
    volumeMl,
  }));
  const all = new Map(labelsIn(volume).map((value, i) => [value, colors[i % colors.length]]));
  for (const { value, color } of labels) if (color) all.set(value, color);
  return { volumes, picture: drawResult(volume, await scanOn(volume, scan), all) };
}

/** A picture without the scan is better than none, so that a scan that cannot be read here is left out. */
async function scanOn({ size }: Volume, scan: MeasureRequest['scan']): Promise<Volume | undefined> {
  if (!scan) return undefined;
  try {
    const volume = Array.isArray(scan)
      ? (
          await readVolume(
            scan.map((file: File) => sourceOf({ name: file.name, blob: file })),
            webPlatform,
          )
        ).volume
      : (scan as Volume);
    return volume.size.every((count, i) => count === size[i]) ? volume : undefined;
  } catch {
    return undefined;
  }
}
