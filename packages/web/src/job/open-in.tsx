import { useQuery } from '@tanstack/react-query';
import type { JobIn, JobOutput, Service } from '@tomaat/client';
import type { Volume } from '@tomaat/core';
import { useState } from 'react';
import { baseUrl } from '../base.ts';
import { useMe } from '../login.tsx';
import { save } from '../save.ts';
import { client } from '../site.ts';
import type { Submission } from '../store.ts';
import { CopyButton, faultOf, Problem } from '../ui.tsx';
import type { LabelStyle } from '../viewer/labels.ts';
import { openOutput } from './local.ts';
import { isLocalJob } from './local-id.ts';
import {
  baseOf,
  isFetchable,
  nrrdAddress,
  type OpenFile,
  scanFile,
  slicerLink,
  snapLabels,
  volViewLink,
  volViewOrigin,
} from './open-in-files.ts';

const programs = { slicer: '3D Slicer', snap: 'ITK-SNAP', volview: 'VolView' } as const;
type Program = keyof typeof programs;

export interface OpenInProps {
  job: JobIn<'succeeded'>;
  service?: Service;
  submission?: Submission;
  fileName?: string;
  /** The scan as it is shown. */
  scan?: Volume;
  /** The label map to open; without one there is no panel. */
  map?: JobOutput;
  labels: readonly LabelStyle[];
}

/** A label map, with its scan, in another program: by its files, or by a link where that works. */
export function OpenIn({ map, ...result }: OpenInProps) {
  return map && <OpenInPanel map={map} {...result} />;
}

function OpenInPanel({
  job,
  service,
  submission,
  fileName,
  scan,
  map,
  labels,
}: OpenInProps & { map: JobOutput }) {
  const [program, setProgram] = useState<Program>('slicer');
  // Other programs cannot fetch what only this browser has.
  const isLocal = isLocalJob(job.id);
  const base = baseOf(job, fileName);
  const volume = scanFile(base, scan, submission, service);
  const labelMap = (format: 'nrrd' | 'nii.gz', ending: string): OpenFile => ({
    what: 'Labels',
    name: `${base}_${map.name}${ending}`,
    make: async () => (await openOutput(job.id, map.name, { format })).blob(),
  });
  const snapFiles = [labelMap('nii.gz', '.nii.gz'), snapLabels(base, labels)];
  // As 3D Slicer names segmentations: our NRRD has the names and colours of the labels.
  const files = [
    ...(volume ? [volume] : []),
    ...(program === 'snap' ? snapFiles : [labelMap('nrrd', '.seg.nrrd')]),
  ];
  return (
    <section className="panel open-in" aria-labelledby="open-in-title">
      <div className="open-in-head">
        <h2 id="open-in-title">Open in</h2>
        <select
          aria-labelledby="open-in-title"
          value={program}
          onChange={(event) => setProgram(event.target.value as Program)}
        >
          {Object.entries(programs).map(([name, title]) => (
            <option key={name} value={name}>
              {title}
            </option>
          ))}
        </select>
      </div>
      <p className="fine">{adviceFor(program, volume !== undefined)}</p>
      <Files files={files} />
      {!volume && <p className="fine">The scan is not in this browser: open it from where you have it.</p>}
      {program === 'snap' && <SnapCommand volume={volume} files={snapFiles} />}
      {program === 'slicer' && !isLocal && <SlicerLink address={nrrdAddress(job, map)} />}
      {program === 'volview' && !isLocal && <VolViewLink address={nrrdAddress(job, map)} />}
    </section>
  );
}

function adviceFor(program: Program, hasScan: boolean): string {
  const files = hasScan ? 'both files' : 'the file';
  if (program === 'slicer')
    return `Save ${files}, drop them on the window of Slicer, and press OK. The labels are a segmentation with their names and colours.`;
  if (program === 'snap') return 'Save the files into one folder, and run the command there.';
  return `Save ${files}, and drop ${hasScan ? 'them together' : 'it'} on volview.kitware.app: files that you drop there stay in your browser. If the labels appear as an image, convert that to a segment group in its menu.`;
}

function Files({ files }: { files: readonly OpenFile[] }) {
  const [busy, setBusy] = useState<string>();
  const [error, setError] = useState<unknown>();
  async function download({ name, make }: OpenFile) {
    setBusy(name);
    setError(undefined);
    try {
      save(await make(), name);
    } catch (fault) {
      setError(fault);
    } finally {
      setBusy(undefined);
    }
  }
  return (
    <>
      <ul className="open-in-files">
        {files.map((file) => (
          <li key={file.name}>
            <span className="fine">{file.what}</span>
            <button
              type="button"
              className="as-link"
              disabled={busy !== undefined}
              onClick={() => void download(file)}
            >
              {busy === file.name ? 'Making the file …' : file.name}
            </button>
          </li>
        ))}
      </ul>
      {error !== undefined && <Problem fault={faultOf(error)} />}
    </>
  );
}

function SnapCommand({ volume, files }: { volume: OpenFile | undefined; files: readonly OpenFile[] }) {
  const [map, names] = files;
  const command = `itksnap -g ${volume?.name ?? 'SCAN'} -s ${map.name} -l ${names.name}`;
  return (
    <div className="open-in-command">
      <code>{command}</code>
      <CopyButton text={command} label="Copy the command" />
    </div>
  );
}

/** Slicer has no session at this server: the link is offered where none is needed. */
function SlicerLink({ address }: { address: string }) {
  if (useMe().data?.login !== 'off') return null;
  return (
    <p className="fine">
      Or <a href={slicerLink(address)}>open the labels in Slicer by a link</a>: Slicer fetches them from{' '}
      {location.host}. This needs its extension Sandbox, and a system that opens slicer: links with Slicer, as
      its installer sets up on Windows.
    </p>
  );
}

/** VolView's page must be allowed to read from this server, and has no session here. */
function VolViewLink({ address }: { address: string }) {
  const isOpen = useMe().data?.login === 'off' && isFetchable(baseUrl);
  const allowed = useQuery({
    queryKey: ['allowed', volViewOrigin],
    enabled: isOpen,
    staleTime: Number.POSITIVE_INFINITY,
    // The server answers 403 to a page that may not use it.
    queryFn: ({ signal }) =>
      client.me({ signal, page: volViewOrigin }).then(
        () => true,
        () => false,
      ),
  });
  if (!isOpen || !allowed.data) return null;
  return (
    <p className="fine">
      Or{' '}
      <a href={volViewLink(address)} target="_blank" rel="noreferrer">
        open the labels at volview.kitware.app
      </a>
      : this tells that site the address of the result, with which anyone who can reach this server can open
      it. The scan is not sent.
    </p>
  );
}
