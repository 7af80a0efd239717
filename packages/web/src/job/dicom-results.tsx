import { type JobIn, type JobOutput, measuredLabelMap, type Service } from '@tomaat/client';
import { isSeriesFormat, type OutputType, outputFormats, type SeriesFormat, TomaatError } from '@tomaat/core';
import { useEffect, useRef, useState, useSyncExternalStore } from 'react';
import {
  type Originals,
  onOriginals,
  originalsOf,
  recognizeOriginals,
  type SentSeries,
} from '../dicom/originals.ts';
import type { Picked } from '../dicom/picked-files.ts';
import { openDicomSession } from '../dicom/session.ts';
import { FileDrop } from '../file-drop.tsx';
import { faultOf, Loading, Problem } from '../ui.tsx';
import { openOutput } from './local.ts';

/*
 * Results in DICOM. The server only has the de-identified series, so they are created here from the original files,
 * with their patient, study and references.
 */

/** The formats of an output that are created here. */
export const formatsMadeHere = ({ type }: Pick<JobOutput, 'type'>): readonly SeriesFormat[] =>
  (outputFormats[type as OutputType] ?? []).filter(isSeriesFormat);

/** The original files of a sent series, if this page still has them. */
export const useOriginals = (sent: SentSeries | undefined): Originals | undefined =>
  useSyncExternalStore(onOriginals, () => originalsOf(sent?.uid));

/**
 * An output as a DICOM object of the original series.
 *
 * @throws TomaatError APP_OUTPUT if it is not on the grid of the series; NOT_ACCEPTABLE if the images lack what a
 *   result refers to; also as the client's output()
 */
export async function makeDicomResult(
  { session, uid }: Originals,
  {
    job,
    service,
    output,
    format,
    frame,
  }: { job: JobIn<'succeeded'>; service: Service; output: JobOutput; format: SeriesFormat; frame?: number },
): Promise<Blob> {
  const read = async (name: string, format: string) => {
    const blob = await (await openOutput(job.id, name, { format })).blob();
    return new Uint8Array(await blob.arrayBuffer());
  };
  const isTable = output.type === 'Measurements';
  const { id, name, version, labels, outputs } = service;
  return session.call('createResult', {
    uid,
    file: await read(output.name, isTable ? 'json' : 'nii.gz'),
    labelMap: isTable ? await read(measuredLabelMap(service, output.name), 'nii.gz') : undefined,
    service: { id, name, version, labels, outputs },
    job: { id: job.id, parameters: job.parameters },
    output: output.name,
    format,
    frame,
  });
}

/** Accepts the series again after a reload; one that was not sent is refused. */
export function OriginalsField({ sent }: { sent: SentSeries }) {
  const [busy, setBusy] = useState<string>();
  const [error, setError] = useState<unknown>();
  const latest = useRef<AbortController>(undefined);
  useEffect(() => () => latest.current?.abort(), []);

  async function take(pick: (signal: AbortSignal) => Promise<Picked>) {
    latest.current?.abort();
    const abort = new AbortController();
    latest.current = abort;
    const { signal } = abort;
    setError(undefined);
    setBusy('Looking for files …');
    try {
      const { files, folder } = await pick(signal);
      if (files.length === 0) throw new TomaatError('BAD_INPUT', 'No file was dropped.');
      const session = await openDicomSession(folder ?? files[0].path, files, {
        signal,
        onProgress: (done, total) => setBusy(`Reading ${done} of ${total} files`),
      });
      try {
        signal.throwIfAborted();
        await recognizeOriginals(session, sent);
      } catch (fault) {
        session.close();
        throw fault;
      }
    } catch (fault) {
      if (!signal.aborted) setError(fault);
    } finally {
      if (latest.current === abort) setBusy(undefined);
    }
  }

  return (
    <div className="originals">
      <FileDrop
        label="Drop the series here"
        isSmall
        onPick={(pick) => void take((signal) => pick({ signal }))}
      >
        <p>
          <strong>Drop the series again to get DICOM results</strong>
          <span className="fine">
            They are made in this browser: the server has the series without the identity of the patient.
          </span>
        </p>
      </FileDrop>
      {busy !== undefined && <Loading what={busy} />}
      {error !== undefined && (
        <Problem fault={{ ...faultOf(error), title: 'DICOM results cannot be made of these files' }} />
      )}
    </div>
  );
}
