import type { Service } from '@tomaat/client';
import { formatList, type Vec3 } from '@tomaat/core';
import { useEffect } from 'react';
import { SeriesList } from '../dicom/series-list.tsx';
import { FileDrop } from '../file-drop.tsx';
import { formatBytes } from '../format.ts';
import { PartBar } from '../part-bar.tsx';
import { faultOf, Loading, Problem } from '../ui.tsx';
import { useViewerAhead } from '../viewer/ahead.ts';
import { ChosenView } from './chosen-view.tsx';
import { takeHandedOver } from './handed-over.ts';
import type { ChosenVolume, InputOf, PendingVolume } from './inputs.ts';
import { type Scan, volumePicker } from './scan.ts';
import { type Busy, useVolumeChoice, type VolumeChoice } from './use-volume-choice.ts';

export interface VolumeFieldProps {
  service: Service;
  input: InputOf<'volume'>;
  chosen: ChosenVolume | undefined;
  points: readonly Vec3[];
  onChoose(chosen: ChosenVolume | undefined): void;
  /** Called with why there is no volume yet, though files were selected. */
  onPending(pending: PendingVolume | undefined): void;
  onMove?(position: Vec3, clicked: boolean): void;
}

/** Where a volume is dropped; it is read, checked and shown here, and not sent until the form is submitted. */
export function VolumeField({
  service,
  input,
  chosen,
  points,
  onChoose,
  onPending,
  onMove,
}: VolumeFieldProps) {
  const choice = useVolumeChoice({ input, chosen, onChoose, onPending });
  const { busy, session, error } = choice;
  // What was dropped on the first page.
  // biome-ignore lint/correctness/useExhaustiveDependencies: once, when the page opens
  useEffect(() => {
    const isFirst = service.inputs.find(({ type }) => type === 'volume')?.name === input.name;
    const picked = isFirst ? takeHandedOver() : undefined;
    if (picked) void choice.takeFiles(async () => picked);
  }, []);
  useViewerAhead(true, 1000);
  const scan = chosen?.scan;
  const title = input.label ?? input.name;
  const id = `volume-${input.name}`;
  return (
    <section className="field volume-field" aria-labelledby={id}>
      <h2 id={id}>
        {title}
        {input.optional && <span className="fine"> optional</span>}
        {input.modality && <span className="fine"> {input.modality}</span>}
      </h2>
      {input.description && <p className="fine">{input.description}</p>}
      <DropArea title={title} scan={scan} choice={choice} />
      {busy && <BusyView busy={busy} onCancel={choice.cancel} />}
      {session && (!scan || scan.dicom) && (
        <SeriesList
          session={session}
          uid={scan?.dicom?.card.uid ?? choice.wanted}
          onChoose={(card) => void choice.takeSeries(card)}
        />
      )}
      {error !== undefined && <Problem fault={faultOf(error)} />}
      {chosen && (
        <ChosenView
          service={service}
          input={input}
          chosen={chosen}
          points={points}
          onChoose={onChoose}
          onAdd={(facts) => choice.add(chosen.scan, facts)}
          onMove={onMove}
        />
      )}
    </section>
  );
}

interface DropAreaProps {
  title: string;
  scan: Scan | undefined;
  choice: VolumeChoice;
}

/** Where a volume is dropped or chosen, and what was. */
function DropArea({ title, scan, choice: { session, takeFiles, remove } }: DropAreaProps) {
  const className = scan ? 'quiet small' : 'quiet';
  return (
    <FileDrop
      label={`Drop ${title} here`}
      hasFile={scan !== undefined}
      isSmall={scan !== undefined}
      accept={volumePicker}
      choose={scan ? 'Choose others' : 'Choose files'}
      onPick={(pick) => void takeFiles(pick)}
      actions={
        (scan || session) && (
          <button type="button" className={className} onClick={remove}>
            Remove
          </button>
        )
      }
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
    </FileDrop>
  );
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
      <PartBar label={what} part={done / Math.max(total, 1)} />
      <p>
        Reading {done} of {total === 1 ? '1 file' : `${total} files`}
      </p>
      {cancel}
    </div>
  );
}
