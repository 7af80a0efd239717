import type { Service } from '@tomaat/client';
import type { Volume } from '@tomaat/core';
import { useEffect, useState } from 'react';
import { openDicomSession } from '../dicom/session.ts';
import { type ReadScanOptions, readScan } from '../form/scan.ts';
import type { Submission } from '../store.ts';
import { faultOf } from '../ui.tsx';
import type { ScanDisplay } from '../viewer/windows.ts';

interface ReadScan {
  readonly volume: Volume;
  readonly display?: ScanDisplay;
}

export interface SubmittedScan extends Partial<ReadScan> {
  readonly loading: boolean;
  /** Why it is not shown. */
  readonly fault?: string;
}

type SentFiles = readonly { name: string; blob: Blob }[];

/** The scan that was sent, from the copy in this browser. */
export function useSubmittedScan(
  submission: Submission | undefined,
  service: Service | undefined,
): SubmittedScan {
  const [state, setState] = useState<SubmittedScan>({ loading: submission !== undefined });
  useEffect(() => {
    if (!submission || !service) return;
    const input = service.inputs.find(({ type, name }) => type === 'volume' && submission.files[name]);
    if (!input) return setState({ loading: false });
    const abort = new AbortController();
    setState({ loading: true });
    const allFrames = input.type === 'volume' && input.frames === 'all';
    const read = submission.series?.[input.name] ? readSentSeries : readSentFiles;
    read(submission.files[input.name], {
      frame: submission.frame ?? (allFrames ? 0 : undefined),
      signal: abort.signal,
    }).then(
      (found) => !abort.signal.aborted && setState({ ...found, loading: false }),
      (error: unknown) =>
        !abort.signal.aborted && setState({ loading: false, fault: faultOf(error).message }),
    );
    return () => abort.abort();
  }, [submission, service]);
  return state;
}

const readSentFiles = async (files: SentFiles, options: ReadScanOptions): Promise<ReadScan> => ({
  volume: await readScan(files, options),
});

/** A DICOM series as sent: an archive of its files. */
async function readSentSeries(
  [{ name, blob }]: SentFiles,
  { frame, signal }: ReadScanOptions,
): Promise<ReadScan> {
  const session = await openDicomSession(name, [{ path: name, file: blob }], { signal });
  try {
    const display = await session.call('display', {}, { signal });
    return { volume: await session.call('read', { frame }, { signal }), display };
  } finally {
    session.close();
  }
}
