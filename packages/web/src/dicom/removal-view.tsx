import { decideIdentity, type Service, summarizeReport } from '@tomaat/client';
import type { DeidentificationReport, ReportedAttribute } from '@tomaat/core';
import { useEffect, useState } from 'react';
import { Checkbox } from 'react-aria-components';
import { faultOf, Loading, Problem } from '../ui.tsx';
import type { Removal } from './messages.ts';
import type { ScanOfSeries } from './scan-of-series.ts';

export interface RemovalViewProps {
  dicom: ScanOfSeries;
  service: Pick<Service, 'processing'>;
  removal: Removal | undefined;
  onRemoval(removal: Removal | undefined): void;
}

/** What is removed from a series before it is sent, and the available options. */
export function RemovalView({ dicom, service, removal, onRemoval }: RemovalViewProps) {
  // The machine is not given: a browser does not know whether a loopback address leads through a tunnel.
  const { deidentify, mayKeep } = decideIdentity({
    processing: service.processing,
    address: location.href,
  });
  const [keeps, setKeeps] = useState(removal?.keepPatientCharacteristics ?? false);
  const [keepIdentity, setKeepIdentity] = useState(removal?.keepIdentity ?? !deidentify);
  const [progress, setProgress] = useState<{ done: number; total: number }>();
  const [error, setError] = useState<unknown>();
  // biome-ignore lint/correctness/useExhaustiveDependencies: what it calls back is new with every render
  useEffect(() => {
    if (removal?.keepPatientCharacteristics === keeps && removal.keepIdentity === keepIdentity) return;
    const abort = new AbortController();
    setError(undefined);
    onRemoval(undefined);
    dicom
      .prepare(
        { keepPatientCharacteristics: keeps, keepIdentity },
        { signal: abort.signal, onProgress: (done, total) => setProgress({ done, total }) },
      )
      .then(
        (made) => !abort.signal.aborted && onRemoval(made),
        (fault: unknown) => !abort.signal.aborted && setError(fault),
      );
    return () => abort.abort();
  }, [dicom, keeps, keepIdentity]);
  return (
    <div className="identity removal">
      {error !== undefined && <Problem fault={faultOf(error)} />}
      {!removal && error === undefined && (
        <Loading
          what={`${keepIdentity ? 'Reading the files' : 'Removing what identifies the patient'} … ${progress ? `${progress.done} of ${progress.total} files` : ''}`}
        />
      )}
      {removal?.report && <Report report={removal.report} />}
      {removal?.keepIdentity && (
        <p className="notice">
          The files are sent as they are: with name, number and dates of the patient. DICOM results of the
          server name the patient, too.
        </p>
      )}
      {!keepIdentity && (
        <Checkbox className="checkbox" isSelected={keeps} onChange={setKeeps}>
          <span className="box" aria-hidden="true" />
          Keep patient characteristics (sex, age, size, weight: needed for SUV)
        </Checkbox>
      )}
      {mayKeep && (
        <Checkbox className="checkbox" isSelected={keepIdentity} onChange={setKeepIdentity}>
          <span className="box" aria-hidden="true" />
          Send the files with the identity of the patient
        </Checkbox>
      )}
    </div>
  );
}

function Report({ report }: { report: DeidentificationReport }) {
  const changed = report.attributes
    .filter(({ outcome }) => outcome !== 'kept')
    .sort((a, b) => orderOf(a) - orderOf(b));
  const groups = summarizeReport(report).map(([group, count]) => `${count} ${group}`);
  const { removed } = report.privateElements;
  return (
    <>
      {report.burnedIn.length > 0 && (
        <div className="notice" role="alert">
          <strong>Look at the pixels: they are sent unchanged</strong>
          {report.burnedIn.map((reason) => (
            <p key={reason}>{reason}</p>
          ))}
        </div>
      )}
      <details>
        <summary>
          What is removed before sending: {changed.length} attributes
          {removed > 0 && `, ${removed} private elements`}
        </summary>
        <p className="fine">
          {groups.join(', ')}. UIDs and dates are replaced by others, the same ones for all images of the
          patient. The names of the files are not sent.
        </p>
        <dl className="facts">
          {changed.map(({ tag, name, outcome, value }) => (
            <div key={`${tag} ${outcome}`}>
              <dt>
                {name} <span className="fine">{outcome}</span>
              </dt>
              <dd className="raw">{value || '–'}</dd>
            </div>
          ))}
        </dl>
        <p className="fine">
          The pixels are sent unchanged: a scan of a head can show a recognisable face. Files are
          de-identified in this browser by the basic profile of DICOM PS3.15.
        </p>
      </details>
    </>
  );
}

/** Patient attributes first, UIDs last. */
const orderOf = ({ tag, value }: ReportedAttribute) =>
  tag >>> 16 === 0x0010 ? 0 : value !== undefined && /^[\d.]{20,}$/.test(value) ? 2 : 1;
