import type { Service } from '@tomaat/client';
import { formatList, TomaatError, type Vec3 } from '@tomaat/core';
import { lazy, Suspense, useEffect, useRef, useState } from 'react';
import { Button as AriaButton, DropZone, FileTrigger } from 'react-aria-components';
import { formatBytes } from '../format.ts';
import { faultOf, Loading, Problem } from '../ui.tsx';
import type { ChosenVolume, InputOf } from './inputs.ts';
import { headerFacts, openScan, readScan, refusals, volumePicker } from './scan.ts';

const Viewer = lazy(() => import('../viewer/viewer.tsx').then(({ Viewer }) => ({ default: Viewer })));

export interface VolumeFieldProps {
  service: Service;
  input: InputOf<'volume'>;
  chosen: ChosenVolume | undefined;
  points: readonly Vec3[];
  onChoose(chosen: ChosenVolume | undefined): void;
  onMove?(position: Vec3, clicked: boolean): void;
}

/** Where a volume is dropped; it is read, checked and shown here, and is sent nowhere until the form is submitted. */
export function VolumeField({ service, input, chosen, points, onChoose, onMove }: VolumeFieldProps) {
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState<string>();
  const latest = useRef(0);
  const title = input.label ?? input.name;

  async function take(files: readonly File[]) {
    const turn = ++latest.current;
    onChoose(undefined);
    setError(undefined);
    setBusy(files.map(({ name }) => name).join(', '));
    try {
      if (files.length === 0) throw new TomaatError('BAD_INPUT', 'No file was dropped. Drop a volume file.');
      const scan = await openScan(files);
      if (turn !== latest.current) return;
      const frame = scan.header.frames > 1 && input.frames !== 'all' ? 0 : undefined;
      onChoose({ scan, frame });
    } catch (fault) {
      if (turn === latest.current) setError(fault);
    } finally {
      if (turn === latest.current) setBusy(undefined);
    }
  }

  // The voxels, for the preview and the rules that need them; again for another frame.
  const { scan, frame, volume } = chosen ?? {};
  // biome-ignore lint/correctness/useExhaustiveDependencies: what it calls back is new with every render
  useEffect(() => {
    if (!scan || volume) return;
    const abort = new AbortController();
    readScan(
      scan.files.map((file) => ({ name: file.name, blob: file })),
      { frame: scan.header.frames > 1 ? (frame ?? 0) : undefined, signal: abort.signal },
    ).then(
      (read) => !abort.signal.aborted && onChoose({ scan, frame, volume: read }),
      (fault: unknown) => !abort.signal.aborted && onChoose({ scan, frame, error: fault }),
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
        onDrop={(event) => {
          void filesOf(event.items).then(take, setError);
        }}
      >
        {scan ? (
          <p className="chosen">
            <strong>{scan.files.map(({ name }) => name).join(' + ')}</strong>{' '}
            <span className="fine">{formatBytes(scan.files.reduce((sum, { size }) => sum + size, 0))}</span>
          </p>
        ) : (
          <p>
            <strong>Drop a volume here</strong>
            <span className="fine">{formatList}; drop a header and its data file together</span>
          </p>
        )}
        <span className="drop-actions">
          <FileTrigger
            allowsMultiple
            acceptedFileTypes={volumePicker}
            onSelect={(list) => list && void take([...list])}
          >
            <AriaButton className={scan ? 'quiet small' : 'quiet'}>
              {scan ? 'Choose another' : 'Choose a file'}
            </AriaButton>
          </FileTrigger>
          {scan && (
            <button type="button" className="quiet small" onClick={() => onChoose(undefined)}>
              Remove
            </button>
          )}
        </span>
      </DropZone>
      {busy !== undefined && <Loading what={`Reading ${busy} …`} />}
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
                  if (number >= 1 && number <= scan.header.frames) onChoose({ scan, frame: number - 1 });
                }}
              />
              <span className="fine">The file is 4-D; the service takes one frame.</span>
            </label>
          )}
          <Identity chosen={chosen} />
          {volume ? (
            <Suspense fallback={<Loading what="Loading the viewer …" />}>
              <Viewer
                plain
                scan={volume}
                points={points}
                modality={input.modality ?? service.modality}
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

/** Header fields that may identify the patient, with a note that they stay here. */
function Identity({ chosen: { scan } }: { chosen: ChosenVolume }) {
  if (scan.fields.length === 0) {
    return (
      <p className="fine identity">The header contains no free text. {nameSentence(scan.files.length)}</p>
    );
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
        {nameSentence(scan.files.length)} The image itself is sent unchanged: a scan of a head can show a
        recognisable face.
      </p>
    </details>
  );
}

const nameSentence = (files: number) =>
  files === 1 ? 'The file name is not sent.' : 'The file names are not sent.';

type DropItem = { kind: string; getFile?(): Promise<File>; getEntries?(): AsyncIterable<DropItem> };

/** The files of a drop; for a folder those at its top level, to report what it contains. */
async function filesOf(items: readonly DropItem[]): Promise<File[]> {
  const files: File[] = [];
  for (const item of items) {
    if (item.kind === 'file') files.push(await item.getFile!());
    if (item.kind !== 'directory') continue;
    const inside: File[] = [];
    for await (const entry of item.getEntries!()) {
      if (entry.kind === 'file') inside.push(await entry.getFile!());
      if (inside.length >= 3) break;
    }
    const starts = await Promise.all(
      inside.map(async (file) => new Uint8Array(await file.slice(128, 132).arrayBuffer())),
    );
    const isDicom = starts.some((bytes) => String.fromCharCode(...bytes) === 'DICM');
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      isDicom
        ? 'This folder contains DICOM, which this page cannot send yet. Convert the series to NIfTI first, for example with dcm2niix, and drop the .nii.gz file.'
        : 'This is a folder. Drop the volume file inside it.',
    );
  }
  return files;
}
