import type { Service } from '@tomaat/client';
import { useRef, useState, useSyncExternalStore } from 'react';
import { Link } from 'wouter';
import { whereItGoes } from '../access-texts.ts';
import type { Picked } from '../dicom/picked-files.ts';
import { FileDrop } from '../file-drop.tsx';
import { ParameterField } from '../form/fields.tsx';
import { onlyVolumeInput } from '../form/fit.ts';
import { useMe } from '../login.tsx';
import { client, useService } from '../site.ts';
import { Empty, faultOf, Loading, Problem, useTitle } from '../ui.tsx';
import { uploadLife } from '../upload.ts';
import { BatchProgress } from './batch-progress.tsx';
import { BatchTable } from './batch-table.tsx';
import { type OpenedBatch, openBatch } from './open-batch.ts';
import { type BatchQueue, type BatchState, queueOf } from './queue.ts';
import { batchToCsv, batchToZip } from './save.ts';
import '../styles/batch.css';

/** Many scans for one service: dropped, checked, sent, and compared in one table. */
export default function BatchPage({ id }: { id: string }) {
  const service = useService(id);
  useTitle(service.data ? `Many scans · ${service.data.name}` : 'Many scans');
  if (service.isPending) return <Loading what="Loading the service …" />;
  if (service.isError) {
    return (
      <Problem fault={faultOf(service.error)}>
        <Link href="/">All services</Link>
      </Problem>
    );
  }
  const href = `/services/${encodeURIComponent(id)}`;
  return (
    <>
      <p className="crumbs">
        <Link href="/">Services</Link> / <Link href={href}>{service.data.name}</Link>
      </p>
      <section className="service-head">
        <h1>Many scans</h1>
        <p className="lead">
          Drop a folder. Each scan is checked, sent and measured with the same parameters.
        </p>
      </section>
      {onlyVolumeInput(service.data) ? (
        <Batch service={service.data} />
      ) : (
        <Empty title="This service takes its scans one by one">
          <p>
            It needs several files or points for each scan. <Link href={href}>Send a single scan</Link>.
          </p>
        </Empty>
      )}
    </>
  );
}

function Batch({ service }: { service: Service }) {
  const queue = queueOf(service);
  const state = useSyncExternalStore(queue.subscribe, queue.read);
  const me = useMe();
  const { opening, error, leftOut, take } = useOpening(queue);
  const { rows, values, running } = state;
  const parameters = service.inputs.filter(({ type }) =>
    ['slider', 'checkbox', 'radiobutton'].includes(type),
  );
  return (
    <>
      <section className="panel batch-setup" aria-label="Scans and parameters">
        <FileDrop
          label="Drop scans here"
          hasFile={rows.length > 0}
          isFolderFirst
          onPick={(pick) => void take((signal) => pick({ signal }))}
        >
          <p>
            <strong>Drop a folder or files here</strong>
            <span className="fine">
              Volumes in any format that the service takes, and folders of DICOM series
            </span>
          </p>
        </FileDrop>
        {opening && <Loading what={opening} />}
        {error !== undefined && <Problem fault={faultOf(error)} />}
        {leftOut.length > 0 && (
          <details className="fine">
            <summary>Left out ({leftOut.length})</summary>
            <ul>
              {leftOut.slice(0, 100).map(({ name, reason }) => (
                <li key={`${name} ${reason}`}>
                  <code>{name}</code>: {reason}
                </li>
              ))}
            </ul>
          </details>
        )}
        {parameters.length > 0 && (
          <fieldset className="batch-parameters" disabled={running}>
            <legend>Parameters of all scans</legend>
            {parameters.map((input) => (
              <ParameterField
                key={input.name}
                input={input}
                value={values[input.name]}
                onChange={(value) => queue.setValue(input.name, value)}
              />
            ))}
          </fieldset>
        )}
        <Actions queue={queue} state={state} />
        <p className="where-it-goes">
          {whereItGoes(me.data, { host: location.host, keepSeconds: service.keepSeconds, uploadLife })} What
          identifies the patient is removed before a scan is sent. The names of the files stay in this
          browser.
        </p>
      </section>
      {rows.length > 0 && <BatchTable queue={queue} state={state} />}
    </>
  );
}

function useOpening(queue: BatchQueue) {
  const [opening, setOpening] = useState<string>();
  const [error, setError] = useState<unknown>();
  const [leftOut, setLeftOut] = useState<OpenedBatch['leftOut']>([]);
  const latest = useRef<AbortController>(undefined);
  async function take(pick: (signal: AbortSignal) => Promise<Picked>) {
    latest.current?.abort();
    const abort = new AbortController();
    latest.current = abort;
    setError(undefined);
    setOpening('Looking for scans …');
    try {
      const opened = await openBatch(
        await pick(abort.signal),
        (done, total) => setOpening(`Reading ${done} of ${total} DICOM files …`),
        abort.signal,
      );
      setLeftOut(opened.leftOut);
      setOpening('Checking whether the scans fit …');
      await queue.add(opened.sources);
    } catch (fault) {
      if (!abort.signal.aborted) setError(fault);
    } finally {
      if (latest.current === abort) setOpening(undefined);
    }
  }
  return { opening, error, leftOut, take };
}

function Actions({ queue, state }: { queue: BatchQueue; state: BatchState }) {
  const { rows, running, present } = state;
  const [saving, setSaving] = useState<string>();
  const [error, setError] = useState<unknown>();
  const count = (...states: string[]) => rows.filter(({ state }) => states.includes(state)).length;
  const waiting = rows.filter(({ id, state }) => state === 'waiting' && present.has(id)).length;
  const absent = count('waiting') - waiting;
  const failed = count('failed');
  const done = count('done');
  const labels = queue.service.labels;
  async function saveZip() {
    setError(undefined);
    try {
      const blob = await batchToZip(
        rows,
        batchToCsv(rows, labels),
        async (jobId, output) => (await client.output(jobId, output)).blob(),
        (at, total) => setSaving(`Fetching result ${at + 1} of ${total} …`),
      );
      save(blob, `${queue.service.id}-results.zip`);
    } catch (fault) {
      setError(fault);
    } finally {
      setSaving(undefined);
    }
  }
  return (
    <>
      <div className="actions">
        {running && (
          <button type="button" onClick={() => queue.stop()}>
            Stop
          </button>
        )}
        {!running && (waiting > 0 || done + failed === 0) && (
          <button type="button" className="primary" disabled={waiting === 0} onClick={() => queue.start()}>
            {done + failed > 0 ? 'Continue' : 'Send and compute'}
          </button>
        )}
        {failed > 0 && (
          <button type="button" onClick={() => queue.retryFailed()}>
            Retry the failed ({failed})
          </button>
        )}
        <button
          type="button"
          className="quiet"
          disabled={rows.length === 0}
          onClick={() =>
            save(
              new Blob([batchToCsv(rows, labels)], { type: 'text/csv' }),
              `${queue.service.id}-results.csv`,
            )
          }
        >
          Save the table (CSV)
        </button>
        <button
          type="button"
          className="quiet"
          disabled={done === 0 || saving !== undefined}
          onClick={() => void saveZip()}
        >
          {saving ?? 'Save all results (zip)'}
        </button>
        <button
          type="button"
          className="quiet"
          disabled={rows.length === 0 || count('sending', 'computing', 'measuring') > 0}
          onClick={() => queue.clear()}
        >
          Clear the list
        </button>
      </div>
      {rows.length > 0 && <BatchProgress state={state} />}
      {absent > 0 && (
        <p className="notice">
          {absent === 1 ? 'One scan was' : `${absent} scans were`} not sent before this page was loaded again.
          Drop the folder again to go on: finished scans are not sent twice.
        </p>
      )}
      {error !== undefined && <Problem fault={faultOf(error)} />}
    </>
  );
}

function save(blob: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
