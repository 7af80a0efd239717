import { openSeries } from '../dicom/open-series.ts';
import type { Picked } from '../dicom/picked-files.ts';
import { usableSeries } from '../dicom/series-list.tsx';
import { openDicomSession } from '../dicom/session.ts';
import { openScan } from '../form/scan.ts';
import { groupFiles } from './group-files.ts';
import type { ScanSource } from './queue.ts';

export interface OpenedBatch {
  readonly sources: readonly ScanSource[];
  /** What is not sent, and why. */
  readonly leftOut: readonly { readonly name: string; readonly reason: string }[];
}

/** The scans among selected files: volume files, and the series of DICOM files and archives. */
export async function openBatch(
  picked: Picked,
  onProgress: (done: number, total: number) => void,
  signal: AbortSignal,
): Promise<OpenedBatch> {
  const { volumes, dicom, others } = await groupFiles(picked);
  const sources = volumes.map(
    ({ name, files }): ScanSource => ({
      name,
      sizeBytes: files.reduce((sum, { size }) => sum + size, 0),
      modifiedMs: Math.max(...files.map(({ lastModified }) => lastModified)),
      files,
      open: () => openScan(files),
    }),
  );
  const leftOut = others.map((name) => ({ name, reason: 'neither a volume nor DICOM' }));
  if (dicom.length === 0) return { sources, leftOut };
  const session = await openDicomSession(picked.folder ?? 'series', dicom, { signal, onProgress });
  const usable = usableSeries(session);
  // Each series by what tells it from the others in this selection; no name of a patient.
  // Only the same selection is recognised again: names of series are alike in many patients.
  const sizeBytes = dicom.reduce((sum, { file }) => sum + file.size, 0);
  const modifiedMs = dicom.reduce(
    (newest, { file }) => Math.max(newest, file instanceof File ? file.lastModified : 0),
    0,
  );
  const taken = new Map<string, number>();
  for (const card of usable) {
    const words = [
      session.name,
      card.number === undefined ? undefined : `series${card.number}`,
      card.description,
    ];
    const plain = words.filter(Boolean).join('_');
    const count = (taken.get(plain) ?? 0) + 1;
    taken.set(plain, count);
    sources.push({
      name: count === 1 ? plain : `${plain}_${count}`,
      sizeBytes,
      modifiedMs,
      open: () => openSeries(session, card),
    });
  }
  return {
    sources,
    leftOut: [
      ...leftOut,
      ...session.series.flatMap((card) =>
        card.refusal === undefined ? [] : [{ name: card.description ?? 'series', reason: card.refusal }],
      ),
      ...session.leftOut.map(({ name, reason }) => ({ name, reason })),
    ],
  };
}
