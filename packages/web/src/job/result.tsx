import { useQuery } from '@tanstack/react-query';
import type { JobIn, JobOutput, Service } from '@tomaat/client';
import { isSeriesFormat, type Mesh, parsePoints, readMesh, type Vec3, type Volume } from '@tomaat/core';
import { useMemo, useState } from 'react';
import { basePath } from '../base.ts';
import type { SentSeries } from '../dicom/originals.ts';
import { readScan } from '../form/scan.ts';
import { formatBytes, formatMm, formatSeconds, stemOf } from '../format.ts';
import { save } from '../save.ts';
import type { Submission } from '../store.ts';
import { faultOf, Loading, Problem } from '../ui.tsx';
import { Viewer } from '../viewer/viewer.tsx';
import { formatsMadeHere, makeDicomResult, OriginalsField, useOriginals } from './dicom-results.tsx';
import { compareFormats, formatName } from './download-formats.ts';
import { Keeping } from './keep.tsx';
import { LabelTable } from './label-table.tsx';
import { computedVersion, openOutput } from './local.ts';
import { isLocalJob } from './local-id.ts';
import { LocalNote, LocalRecord } from './local-record.tsx';
import { MeasurementTable } from './measurement-table.tsx';
import { OpenIn } from './open-in.tsx';
import { Share } from './share.tsx';
import { useSubmittedScan } from './submitted-scan.ts';
import { useLabelStyles } from './use-label-styles.ts';
import { useMeasurements } from './use-measurements.ts';

type SucceededJob = JobIn<'succeeded'>;

export interface ResultProps {
  job: SucceededJob;
  service?: Service;
  submission?: Submission;
  fileName?: string;
  /** The DICOM series that this browser sent. */
  sent?: SentSeries;
}

/** The results: in the viewer, in a table, as files. */
export function Result({ job, service, submission, fileName, sent }: ResultProps) {
  const maps = job.outputs.filter(({ type }) => type === 'LabelVolume');
  const [mapName, setMapName] = useState(() => (maps.find(({ primary }) => primary) ?? maps[0])?.name);
  const labelMap = useOutput(job, maps.find(({ name }) => name === mapName)?.name, 'nii', readMap);
  const meshOutput = job.outputs.find(({ type }) => type === 'VTKMesh');
  const mesh = useOutput(job, meshOutput?.name, 'vtk', readMeshFile);
  const points = useOutput(
    job,
    job.outputs.find(({ type }) => type === 'Fiducials')?.name,
    'txt',
    async (blob) => parsePoints(await blob.text()),
  );
  const scan = useSubmittedScan(submission, service);
  const styles = useLabelStyles(labelMap.data, service, job.parameters);
  const [hidden, setHidden] = useState<ReadonlySet<number>>(new Set());
  const labels = useMemo(
    () => styles.map((style) => ({ ...style, visible: !hidden.has(style.value) })),
    [styles, hidden],
  );
  const [isPictureDone, setPictureDone] = useState(false);
  const measured = useMeasurements(isPictureDone ? labelMap.data : undefined, scan.volume, styles);
  const [target, setTarget] = useState<{ position: Vec3 }>();
  const hasPicture =
    maps.length > 0 || (meshOutput !== undefined && !mesh.isError) || scan.volume !== undefined;
  // Once something is drawn, it stays while another label map is fetched.
  const isThere = (maps.length === 0 ? !mesh.isLoading : labelMap.data !== undefined) && !scan.loading;
  const [wasThere, setWasThere] = useState(false);
  if (isThere && !wasThere) setWasThere(true);
  const isDrawn = isThere || wasThere;
  const error = labelMap.error ?? mesh.error ?? points.error;
  const isLocal = isLocalJob(job.id);
  const { data: version } = useQuery({
    queryKey: ['version', job.id],
    staleTime: Number.POSITIVE_INFINITY,
    // Nothing is no answer of a query.
    queryFn: async ({ signal }) => (await computedVersion(job.id, signal)) ?? '',
  });

  return (
    <>
      <div className="done-line">
        <p role="status">
          Done in {formatSeconds((Date.parse(job.settledTime) - Date.parse(job.startedTime)) / 1000)}
          {isLocal && ' on this computer'}.
        </p>
        {isLocal ? <LocalNote job={job} /> : <Keeping job={job} />}
      </div>
      {error && <Problem fault={faultOf(error)} />}
      {maps.length > 1 && (
        <label className="inline-field">
          Label map
          <select value={mapName} onChange={(event) => setMapName(event.target.value)}>
            {maps.map(({ name, label }) => (
              <option key={name} value={name}>
                {label || name}
              </option>
            ))}
          </select>
        </label>
      )}
      <div className={hasPicture ? 'result' : 'result no-picture'}>
        {hasPicture && (isDrawn || !error) && (
          <div className="panel viewer-panel">
            <Viewer
              scan={isDrawn ? scan.volume : undefined}
              labelMap={isDrawn ? labelMap.data : undefined}
              labels={labels}
              mesh={isDrawn ? mesh.data : undefined}
              points={isDrawn ? points.data : undefined}
              display={{ ...scan.display, modality: scan.display?.modality ?? service?.modality }}
              target={target}
              firstView={meshOutput && maps.length === 0 ? '3d' : undefined}
              waiting="Fetching the result …"
              caption={service && [service.name, version].filter(Boolean).join(' ')}
              onSettled={() => setPictureDone(true)}
            />
            {isDrawn && !scan.volume && (
              <p className="fine viewer-note">
                {scan.fault ?? 'This browser does not have the scan, so the result is shown without it.'}
              </p>
            )}
          </div>
        )}
        <div className="result-side">
          {measured && (
            <LabelTable
              measured={measured.rows}
              labels={labels}
              onShow={(visible) =>
                setHidden(new Set(labels.map(({ value }) => value).filter((value) => !visible.has(value))))
              }
              onGo={(position) => setTarget({ position })}
            />
          )}
          {points.data && <PointList points={points.data} onGo={(position) => setTarget({ position })} />}
          <Downloads job={job} service={service} fileName={fileName} sent={sent} />
          <OpenIn
            {...{ job, service, submission, fileName, labels }}
            scan={scan.volume}
            map={maps.find(({ name }) => name === mapName)}
          />
          {isLocal ? <LocalRecord job={job} fileName={fileName} /> : <Share job={job} />}
        </div>
      </div>
      <div className="result-below">
        {measured && (
          <MeasurementTable
            measured={measured}
            unit={scan.display?.units}
            fileStem={`${fileName ? stemOf(fileName) : job.service}_${mapName}`}
            onGo={(position) => setTarget({ position })}
          />
        )}
        <Texts job={job} />
      </div>
    </>
  );
}

// ---- Fetched data ----

function useOutput<T>(
  job: SucceededJob,
  name: string | undefined,
  format: string,
  read: (blob: Blob) => Promise<T>,
) {
  return useQuery({
    queryKey: ['output', job.id, name, format],
    enabled: name !== undefined,
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
    queryFn: async ({ signal }) => {
      const file = await openOutput(job.id, name!, { format, signal });
      return read(await file.blob());
    },
    // Volumes are large and never change: they are not compared.
    structuralSharing: false,
  });
}

const readMap = (blob: Blob): Promise<Volume> => readScan([{ name: 'labels.nii', blob }]);
const readMeshFile = async (blob: Blob): Promise<Mesh> => readMesh(new Uint8Array(await blob.arrayBuffer()));

// ---- Beside the picture ----

function PointList({ points, onGo }: { points: readonly Vec3[]; onGo(position: Vec3): void }) {
  return (
    <section className="panel" aria-labelledby="points-title">
      <h2 id="points-title">Points</h2>
      <ol className="points">
        {points.map((point, i) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: a point is its place in the list
          <li key={`${i} ${point.join()}`}>
            <span>{point.map(formatMm).join(', ')} mm</span>
            <button
              type="button"
              className="quiet small"
              aria-label={`Go to point ${i + 1}`}
              onClick={() => onGo(point)}
            >
              Go to
            </button>
          </li>
        ))}
      </ol>
    </section>
  );
}

function Texts({ job }: { job: SucceededJob }) {
  return job.outputs
    .filter(({ type }) => type === 'PlainText')
    .map((output) => <TextOutput key={output.name} job={job} output={output} />);
}

function TextOutput({ job, output }: { job: SucceededJob; output: JobOutput }) {
  const text = useOutput(job, output.name, 'txt', (blob) => blob.slice(0, 100_000).text());
  return (
    <section className="panel">
      <h2>{output.label || output.name}</h2>
      {text.isPending && <Loading what="Loading the text …" />}
      {text.isError && <Problem fault={faultOf(text.error)} />}
      {text.data !== undefined && (
        <textarea
          className="text"
          readOnly
          rows={textRows(text.data)}
          aria-label={output.label || output.name}
          value={text.data}
        />
      )}
    </section>
  );
}

const textRows = (text: string) => Math.min(14, text.trimEnd().split('\n').length + 1);

/** A row of the downloads: its name, its size, and the formats, each with the output that it comes from. */
interface DownloadRow {
  readonly name: string;
  readonly sizeBytes: number;
  readonly files: readonly { readonly output: JobOutput; readonly format: string }[];
}

/**
 * A row for each output. Measurements and a text with the same name are one table in several formats: one row, whose
 * JSON is that of the measurements.
 */
function downloadRows(
  outputs: readonly JobOutput[],
  formatsOf: (output: JobOutput) => readonly string[],
): DownloadRow[] {
  const nameOf = ({ label, name }: JobOutput) => label || name;
  const called = (type: JobOutput['type'], name: string) =>
    outputs.filter((output) => output.type === type && nameOf(output) === name);
  const texts = new Map<JobOutput, JobOutput>();
  for (const output of outputs) {
    const [[table, ...otherTables], [text, ...otherTexts]] = [
      called('Measurements', nameOf(output)),
      called('PlainText', nameOf(output)),
    ];
    // If two texts have that name, it is unknown which belongs to the measurements.
    if (table && text && otherTables.length + otherTexts.length === 0) texts.set(table, text);
  }
  const merged = new Set(texts.values());
  return outputs
    .filter((output) => !merged.has(output))
    .map((output) => {
      const filesOf = (one: JobOutput) => formatsOf(one).map((format) => ({ output: one, format }));
      const text = texts.get(output);
      const more = text ? filesOf(text).filter(({ format }) => !output.formats.includes(format)) : [];
      return {
        name: nameOf(output),
        sizeBytes: output.sizeBytes,
        files: [...filesOf(output), ...more].sort((a, b) => compareFormats(a.format, b.format)),
      };
    });
}

/** Every output in every format, named after the user's own file if this browser knows it. */
function Downloads({ job, service, fileName, sent }: Omit<ResultProps, 'submission'>) {
  const [busy, setBusy] = useState<string>();
  const [error, setError] = useState<unknown>();
  const originals = useOriginals(sent);
  const isStripped = (job.strippedInputs ?? []).length > 0;
  // The server's DICOM results refer to the de-identified series: here they are created for the original one.
  const isLocal = isLocalJob(job.id);
  const isMadeHere = (output: JobOutput) =>
    sent !== undefined && (!sent.isUnchanged || isStripped || isLocal) && formatsMadeHere(output).length > 0;
  const formatsOf = (output: JobOutput) => {
    if (!isMadeHere(output)) return output.formats;
    const others = output.formats.filter((format) => !isSeriesFormat(format));
    return originals && service ? [...formatsMadeHere(output), ...others] : others;
  };
  async function download(output: JobOutput, format: string) {
    setBusy(`${output.name}.${format}`);
    setError(undefined);
    try {
      if (originals && service && isMadeHere(output) && isSeriesFormat(format)) {
        const made = { job, service, output, format, frame: sent?.frame };
        const blob = await makeDicomResult(originals, made);
        return save(blob, `${stemOf(fileName ?? 'series')}_${output.name}.${format}`);
      }
      const file = await openOutput(job.id, output.name, { format });
      save(await file.blob(), fileName ? `${stemOf(fileName)}_${output.name}.${format}` : file.fileName);
    } catch (fault) {
      setError(fault);
    } finally {
      setBusy(undefined);
    }
  }
  const addressOf = ({ name }: JobOutput, format: string) =>
    `${basePath}/api/jobs/${encodeURIComponent(job.id)}/outputs/${encodeURIComponent(name)}?format=${encodeURIComponent(format)}`;
  return (
    <section className="panel" aria-labelledby="downloads-title">
      <h2 id="downloads-title">Download</h2>
      <ul className="downloads">
        {downloadRows(job.outputs, formatsOf).map(({ name, sizeBytes, files }) => (
          <li key={files[0].output.name}>
            <span>
              {name} <span className="fine">{formatBytes(sizeBytes)}</span>
            </span>
            <ul className="formats" aria-label={`Formats of ${name}`}>
              {files.map(({ output, format }) => (
                <li key={format}>
                  <FormatLink
                    label={`${name} as ${formatName(format)}`}
                    address={
                      isLocal || (isMadeHere(output) && isSeriesFormat(format))
                        ? undefined
                        : addressOf(output, format)
                    }
                    onDownload={() => void download(output, format)}
                  >
                    {busy === `${output.name}.${format}` ? '…' : formatName(format)}
                  </FormatLink>
                </li>
              ))}
            </ul>
          </li>
        ))}
      </ul>
      {isStripped && (
        <p className="fine">
          The server removed what may identify the patient before it stored the files, and replaced the UIDs
          of DICOM files: its DICOM results have the replaced ones.
        </p>
      )}
      {error !== undefined && <Problem fault={faultOf(error)} />}
      {sent && !originals && job.outputs.some(isMadeHere) && <OriginalsField sent={sent} />}
    </section>
  );
}

interface FormatLinkProps {
  label: string;
  /** Undefined for a file that is made in the browser. */
  address: string | undefined;
  onDownload(): void;
  children: string;
}

function FormatLink({ label, address, onDownload, children }: FormatLinkProps) {
  if (address === undefined) {
    return (
      <button type="button" className="as-link" aria-label={label} onClick={onDownload}>
        {children}
      </button>
    );
  }
  return (
    <a
      href={address}
      download
      aria-label={label}
      onClick={(event) => {
        event.preventDefault();
        onDownload();
      }}
    >
      {children}
    </a>
  );
}
