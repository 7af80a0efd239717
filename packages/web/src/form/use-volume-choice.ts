import { TomaatError } from '@tomaat/core';
import { useEffect, useRef, useState } from 'react';
import type { SeriesCard } from '../dicom/messages.ts';
import { openSeries } from '../dicom/open-series.ts';
import { isHeld } from '../dicom/originals.ts';
import { isForDicom, type Picked, type WalkOptions } from '../dicom/picked-files.ts';
import { usableSeries } from '../dicom/series-list.tsx';
import { type DicomSession, openDicomSession } from '../dicom/session.ts';
import type { ChosenVolume, InputOf, PendingVolume } from './inputs.ts';
import { openScan, type Scan } from './scan.ts';
import { volumeInZip } from './zip-volume.ts';

/** What is being read, and how much of it is done. */
export interface Busy {
  what: string;
  done?: number;
  total?: number;
}

export interface VolumeChoiceOptions {
  input: InputOf<'volume'>;
  chosen: ChosenVolume | undefined;
  onChoose(chosen: ChosenVolume | undefined): void;
  onPending(pending: PendingVolume | undefined): void;
}

export interface VolumeChoice {
  error: unknown;
  busy: Busy | undefined;
  /** The DICOM files that were selected last. */
  session: DicomSession | undefined;
  /** UID of the series being opened. */
  wanted: string | undefined;
  takeFiles(pick: (options: WalkOptions) => Promise<Picked>): Promise<void>;
  takeSeries(card: SeriesCard): Promise<void>;
  /** Ends what is being read. */
  cancel(): void;
  remove(): void;
  /** Extends the current selection, if it still is `to`. */
  add(to: Scan, facts: Partial<ChosenVolume>): void;
}

/** From the files that the user selects to an open volume: by a DICOM session, or by the header of a volume file. */
export function useVolumeChoice({ input, chosen, onChoose, onPending }: VolumeChoiceOptions): VolumeChoice {
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState<Busy>();
  const [session, setSession] = useState<DicomSession>();
  const [wanted, setWanted] = useState<string>();
  const latest = useRef<AbortController>(undefined);

  /** Starts an operation that the next selection, or “Cancel”, ends. */
  async function take(work: (signal: AbortSignal) => Promise<void>) {
    latest.current?.abort();
    const abort = new AbortController();
    latest.current = abort;
    onChoose(undefined);
    setError(undefined);
    try {
      await work(abort.signal);
    } catch (fault) {
      if (!abort.signal.aborted) setError(fault);
    } finally {
      if (latest.current === abort) setBusy(undefined);
    }
  }

  const takeFiles = (pick: (options: WalkOptions) => Promise<Picked>) =>
    take(async (signal) => {
      setSession(undefined);
      setWanted(undefined);
      setBusy({ what: 'Looking for files …' });
      const picked = await pick({
        signal,
        onFound: (count) => count % 50 === 0 && setBusy({ what: `Looking for files … ${count} found` }),
      });
      signal.throwIfAborted();
      if (picked.files.length === 0)
        throw new TomaatError(
          'BAD_INPUT',
          'No file was dropped. Drop a volume file, or a folder with DICOM.',
        );
      if (await isForDicom(picked)) return openDicom(picked, signal);
      await openFiles(
        picked.files.map(({ file }) => file),
        signal,
      );
    });

  async function openFiles(files: readonly File[], signal: AbortSignal) {
    setBusy({ what: `Reading ${files.map(({ name }) => name).join(', ')} …` });
    const scan = await openScan(files);
    if (!signal.aborted) choose(scan);
  }

  function choose(scan: Scan) {
    onChoose({ scan, frame: scan.header.frames > 1 && input.frames !== 'all' ? 0 : undefined });
  }

  async function openDicom({ files, folder }: Picked, signal: AbortSignal) {
    const ofFile = files.length === 1 ? files[0].file.name.replace(/\.(zip|dcm|dicom|ima)$/i, '') : undefined;
    const name = folder ?? ofFile;
    setBusy({ what: 'Reading the files', done: 0, total: files.length });
    const opened = await openDicomSession(name, files, {
      signal,
      onProgress: (done, total) => setBusy({ what: 'Reading the files', done, total }),
    });
    if (signal.aborted) return opened.close();
    if (opened.series.length === 0 && !opened.leftOut.some(({ isDamaged }) => isDamaged)) {
      opened.close();
      return openOther({ files, folder }, signal);
    }
    setSession(opened);
    const usable = usableSeries(opened);
    if (usable.length > 1) return;
    if (usable.length === 0 && opened.series.length > 1) {
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        'None of the series in these files is a volume. The list says why. Drop another series.',
      );
    }
    setBusy({ what: 'Checking the series …' });
    // A single series that is not usable shows why.
    const scan = await openSeries(opened, usable[0]);
    if (!signal.aborted) choose(scan);
  }

  /** Files without a DICOM image: a zip archive may hold a volume of another format. */
  async function openOther({ files, folder }: Picked, signal: AbortSignal) {
    if (folder !== undefined) {
      throw new TomaatError(
        'UNKNOWN_FORMAT',
        'This is a folder without a DICOM image. Drop the volume file inside it, or a folder with a DICOM series.',
      );
    }
    setBusy({ what: 'Unpacking …' });
    const unpacked = await volumeInZip(
      files.map(({ file }) => file),
      signal,
    );
    if (!signal.aborted) await openFiles(unpacked, signal);
  }

  const takeSeries = (card: SeriesCard) =>
    take(async (signal) => {
      setWanted(card.uid);
      setBusy({ what: 'Checking the series …' });
      const scan = await openSeries(session!, card);
      if (!signal.aborted) choose(scan);
    });

  // The files of a submitted job stay open, for results in DICOM.
  useEffect(
    () => () => {
      if (session && !isHeld(session)) session.close();
    },
    [session],
  );

  const isChoosing = session !== undefined && usableSeries(session).length > 1;
  const pending = chosen ? undefined : busy ? 'reading' : isChoosing ? 'series' : undefined;
  // biome-ignore lint/correctness/useExhaustiveDependencies: what it calls back is new with every render
  useEffect(() => onPending(pending), [pending]);

  const add = useVoxels(chosen, onChoose);
  return {
    error,
    busy,
    session,
    wanted,
    takeFiles,
    takeSeries,
    cancel: () => latest.current?.abort(),
    remove() {
      latest.current?.abort();
      setSession(undefined);
      setWanted(undefined);
      setError(undefined);
      onChoose(undefined);
    },
    add,
  };
}

/** Reads the voxels, for the preview and the rules that need them; again for another frame. */
function useVoxels(chosen: ChosenVolume | undefined, onChoose: VolumeChoiceOptions['onChoose']) {
  const { scan, frame, volume } = chosen ?? {};
  const current = useRef(chosen);
  current.current = chosen;
  function add(to: Scan, facts: Partial<ChosenVolume>) {
    if (current.current?.scan !== to) return;
    current.current = { ...current.current, ...facts };
    onChoose(current.current);
  }
  // biome-ignore lint/correctness/useExhaustiveDependencies: what it calls back is new with every render
  useEffect(() => {
    if (!scan || volume) return;
    const abort = new AbortController();
    scan.read({ frame: scan.header.frames > 1 ? (frame ?? 0) : undefined, signal: abort.signal }).then(
      (read) => !abort.signal.aborted && add(scan, { volume: read }),
      (fault: unknown) => !abort.signal.aborted && add(scan, { error: fault }),
    );
    return () => abort.abort();
  }, [scan, frame]);
  return add;
}
