import type { Service } from '@tomaat/client';
import { formatList, TomaatError, type Vec3 } from '@tomaat/core';
import { lazy, Suspense, useEffect, useRef, useState } from 'react';
import { Button as AriaButton, DropZone, FileTrigger, ProgressBar } from 'react-aria-components';
import type { SeriesCard } from '../dicom/messages.ts';
import { openSeries } from '../dicom/open-series.ts';
import { isHeld } from '../dicom/originals.ts';
import {
  chooseFolder,
  type DropItem,
  isForDicom,
  type Picked,
  pickedFromDrop,
  pickedFromInput,
  type WalkOptions,
} from '../dicom/picked-files.ts';
import { RemovalView } from '../dicom/removal-view.tsx';
import { SeriesList, usableSeries } from '../dicom/series-list.tsx';
import { type DicomSession, openDicomSession } from '../dicom/session.ts';
import { formatBytes } from '../format.ts';
import { faultOf, Loading, Problem } from '../ui.tsx';
import type { ChosenVolume, InputOf } from './inputs.ts';
import { headerFacts, openScan, refusals, type Scan, volumePicker } from './scan.ts';

const Viewer = lazy(() => import('../viewer/viewer.tsx').then(({ Viewer }) => ({ default: Viewer })));

export interface VolumeFieldProps {
  service: Service;
  input: InputOf<'volume'>;
  chosen: ChosenVolume | undefined;
  points: readonly Vec3[];
  onChoose(chosen: ChosenVolume | undefined): void;
  onMove?(position: Vec3, clicked: boolean): void;
}

/** Where a volume is dropped; it is read, checked and shown here, and not sent until the form is submitted. */
export function VolumeField({ service, input, chosen, points, onChoose, onMove }: VolumeFieldProps) {
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState<Busy>();
  const [session, setSession] = useState<DicomSession>();
  /** The series being opened. */
  const [wanted, setWanted] = useState<string>();
  const latest = useRef<AbortController>(undefined);
  const title = input.label ?? input.name;

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
      const files = picked.files.map(({ file }) => file);
      setBusy({ what: `Reading ${files.map(({ name }) => name).join(', ')} …` });
      const scan = await openScan(files);
      if (!signal.aborted) choose(scan);
    });

  function choose(scan: Scan) {
    onChoose({ scan, frame: scan.header.frames > 1 && input.frames !== 'all' ? 0 : undefined });
  }

  async function openDicom({ files, folder }: Picked, signal: AbortSignal) {
    const name = folder ?? files[0].file.name.replace(/\.(zip|dcm|dicom|ima)$/i, '');
    setBusy({ what: 'Reading the files', done: 0, total: files.length });
    const opened = await openDicomSession(name, files, {
      signal,
      onProgress: (done, total) => setBusy({ what: 'Reading the files', done, total }),
    });
    if (signal.aborted) return opened.close();
    const isOther = opened.series.length === 0 && !opened.leftOut.some(({ isDamaged }) => isDamaged);
    if (isOther && folder !== undefined) {
      opened.close();
      throw new TomaatError(
        'UNKNOWN_FORMAT',
        'This is a folder without a DICOM image. Drop the volume file inside it, or a folder with a DICOM series.',
      );
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

  // The voxels, for the preview and the rules that need them; read again for another frame.
  const { scan, frame, volume, removal } = chosen ?? {};
  const current = useRef(chosen);
  current.current = chosen;
  /** Extends the current selection, if it has not changed meanwhile. */
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

  const unfit = scan ? refusals(service.acceptance as never, input.name, scan.header, volume) : [];
  const id = `volume-${input.name}`;
  return (
    <section className="field volume-field" aria-labelledby={id}>
      <h3 id={id}>
        {title}
        {input.optional && <span className="fine"> optional</span>}
        {input.modality && <span className="fine"> {input.modality}</span>}
      </h3>
      {input.description && <p className="fine">{input.description}</p>}
      <DropZone
        aria-label={`Drop ${title} here`}
        className={scan ? 'drop has-file' : 'drop'}
        onDrop={({ items }) => void takeFiles((options) => pickedFromDrop(items as DropItem[], options))}
      >
        {scan ? (
          <p className="chosen">
            <strong>{scan.name}</strong>{' '}
            <span className="fine">
              {scan.dicom && `${scan.fileCount === 1 ? '1 file' : `${scan.fileCount} files`}, `}
              {formatBytes(scan.sizeBytes)}
            </span>
          </p>
        ) : (
          <p>
            <strong>Drop a volume here</strong>
            <span className="fine">
              {formatList}; drop a header and its data file together. DICOM: a folder, a zip archive, or the
              files of a series
            </span>
          </p>
        )}
        <span className="drop-actions">
          <FileTrigger
            allowsMultiple
            acceptedFileTypes={volumePicker}
            onSelect={(list) => list && void takeFiles(async () => pickedFromInput([...list]))}
          >
            <AriaButton className={scan ? 'quiet small' : 'quiet'}>
              {scan ? 'Choose others' : 'Choose files'}
            </AriaButton>
          </FileTrigger>
          <button
            type="button"
            className={scan ? 'quiet small' : 'quiet'}
            onClick={() => chooseFolder((files) => void takeFiles(async () => pickedFromInput(files)))}
          >
            Choose a folder
          </button>
          {scan && (
            <button
              type="button"
              className="quiet small"
              onClick={() => {
                latest.current?.abort();
                setSession(undefined);
                onChoose(undefined);
              }}
            >
              Remove
            </button>
          )}
        </span>
      </DropZone>
      {busy && <BusyView busy={busy} onCancel={() => latest.current?.abort()} />}
      {session && (!scan || scan.dicom) && (
        <SeriesList
          session={session}
          uid={scan?.dicom?.card.uid ?? wanted}
          onChoose={(card) => void takeSeries(card)}
        />
      )}
      {error !== undefined && <Problem fault={faultOf(error)} />}
      {scan && chosen && (
        <>
          {unfit.map((sentence) => (
            <div className="problem" role="alert" key={sentence}>
              <h4>This volume is not accepted</h4>
              <p>{sentence}</p>
            </div>
          ))}
          {chosen.error !== undefined && <Problem fault={faultOf(chosen.error)} />}
          <dl className="facts">
            {headerFacts(scan.header).map(({ name, value }) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{value}</dd>
              </div>
            ))}
          </dl>
          {scan.header.frames > 1 && input.frames !== 'all' && (
            <label className="inline-field">
              Frame of {scan.header.frames}
              <input
                type="number"
                min={1}
                max={scan.header.frames}
                value={(frame ?? 0) + 1}
                onChange={(event) => {
                  const number = Math.round(Number(event.target.value));
                  if (number >= 1 && number <= scan.header.frames)
                    onChoose({ scan, frame: number - 1, removal });
                }}
              />
              <span className="fine">
                {scan.dicom ? 'The series' : 'The file'} is 4-D; the service takes one frame.
              </span>
            </label>
          )}
          {scan.dicom ? (
            <RemovalView
              key={scan.dicom.card.uid}
              dicom={scan.dicom}
              removal={removal}
              onRemoval={(made) => add(scan, { removal: made })}
            />
          ) : (
            <Identity chosen={chosen} />
          )}
          {volume ? (
            <Suspense fallback={<Loading what="Loading the viewer …" />}>
              <Viewer
                plain
                scan={volume}
                points={points}
                modality={scan.dicom?.card.modality ?? input.modality ?? service.modality}
                onMove={onMove}
              />
            </Suspense>
          ) : (
            chosen.error === undefined && <Loading what="Reading the voxels for a preview …" />
          )}
        </>
      )}
    </section>
  );
}

interface Busy {
  what: string;
  done?: number;
  total?: number;
}

/** What is being read. The count is not announced at every step. */
function BusyView({ busy: { what, done, total }, onCancel }: { busy: Busy; onCancel(): void }) {
  const cancel = (
    <button type="button" className="quiet small" onClick={onCancel}>
      Cancel
    </button>
  );
  if (done === undefined || total === undefined) {
    return (
      <div className="reading">
        <Loading what={what} />
        {cancel}
      </div>
    );
  }
  return (
    <div className="reading">
      <ProgressBar className="progress" value={(done / Math.max(total, 1)) * 100} aria-label={what}>
        {({ percentage }) => (
          <div className="bar">
            <div className="bar-fill" style={{ width: `${percentage}%` }} />
          </div>
        )}
      </ProgressBar>
      <p>
        Reading {done} of {total === 1 ? '1 file' : `${total} files`}
      </p>
      {cancel}
    </div>
  );
}

/** Header fields that may identify the patient, with a note that they stay here. */
function Identity({ chosen: { scan } }: { chosen: ChosenVolume }) {
  if (scan.fields.length === 0) {
    return <p className="fine identity">The header contains no free text. {nameSentence(scan.fileCount)}</p>;
  }
  return (
    <details className="identity">
      <summary>
        {scan.fields.length === 1 ? 'One text field' : `${scan.fields.length} text fields`} in the header will
        be removed before it is sent
      </summary>
      <dl className="facts">
        {scan.fields.map(({ name, value }, i) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: the list never changes; names may come twice
          <div key={`${i} ${name}`}>
            <dt>{name}</dt>
            <dd className="raw">{value}</dd>
          </div>
        ))}
      </dl>
      <p className="fine">
        {nameSentence(scan.fileCount)} The image itself is sent unchanged: a scan of a head can show a
        recognisable face.
      </p>
    </details>
  );
}

const nameSentence = (files: number) =>
  files === 1 ? 'The file name is not sent.' : 'The file names are not sent.';
