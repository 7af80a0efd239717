import type { Service } from '@tomaat/client';
import type { Vec3 } from '@tomaat/core';
import { lazy, Suspense } from 'react';
import { RemovalView } from '../dicom/removal-view.tsx';
import { faultOf, Loading, Problem } from '../ui.tsx';
import { importViewer } from '../viewer/ahead.ts';
import type { ScanDisplay } from '../viewer/windows.ts';
import type { ChosenVolume, InputOf } from './inputs.ts';
import { headerFacts, refusals, type Scan } from './scan.ts';

const Viewer = lazy(() => importViewer().then(({ Viewer }) => ({ default: Viewer })));

export interface ChosenViewProps {
  service: Service;
  input: InputOf<'volume'>;
  chosen: ChosenVolume;
  points: readonly Vec3[];
  onChoose(chosen: ChosenVolume): void;
  /** Extends the selection by what became known about it. */
  onAdd(facts: Partial<ChosenVolume>): void;
  onMove?(position: Vec3, clicked: boolean): void;
}

/** The selected volume: whether it is accepted, what it is, what is removed from it, and how it looks. */
export function ChosenView({ service, input, chosen, points, onChoose, onAdd, onMove }: ChosenViewProps) {
  const { scan, frame, volume, removal } = chosen;
  const unfit = refusals(service.acceptance as never, input.name, scan.header, volume);
  return (
    <>
      {unfit.map((sentence) => (
        <div className="problem" role="alert" key={sentence}>
          <h3>This volume is not accepted</h3>
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
        <FrameField scan={scan} frame={frame ?? 0} onChange={(frame) => onChoose({ scan, frame, removal })} />
      )}
      {scan.dicom ? (
        <RemovalView
          key={scan.dicom.card.uid}
          dicom={scan.dicom}
          service={service}
          removal={removal}
          onRemoval={(made) => onAdd({ removal: made })}
        />
      ) : (
        <Identity chosen={chosen} />
      )}
      {(volume || chosen.error === undefined) && (
        <Suspense fallback={<Loading what="Loading the viewer …" />}>
          <Viewer
            plain
            scan={volume}
            points={points}
            display={displayOfScan(scan, input.modality ?? service.modality)}
            waiting="Reading the voxels for a preview …"
            onMove={onMove}
          />
        </Suspense>
      )}
    </>
  );
}

/** What a series says of itself; of other files the service's modality is known alone. */
const displayOfScan = ({ display }: Scan, modality: string): ScanDisplay => ({
  ...display,
  modality: display?.modality ?? modality,
});

interface FrameFieldProps {
  scan: Scan;
  frame: number;
  onChange(frame: number): void;
}

/** Which frame of a 4-D volume is sent; shown from 1. */
function FrameField({ scan, frame, onChange }: FrameFieldProps) {
  const { frames } = scan.header;
  return (
    <label className="inline-field">
      Frame of {frames}
      <input
        type="number"
        min={1}
        max={frames}
        value={frame + 1}
        onChange={(event) => {
          const number = Math.round(Number(event.target.value));
          if (number >= 1 && number <= frames) onChange(number - 1);
        }}
      />
      <span className="fine">
        {scan.dicom ? 'The series' : 'The file'} is 4-D; the service takes one frame.
      </span>
    </label>
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
