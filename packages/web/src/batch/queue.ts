import {
  decideIdentity,
  type InputParameter,
  isPassing,
  isSettled,
  type Job,
  type Service,
} from '@tomaat/client';
import { labelPalette, TomaatError, type Volume } from '@tomaat/core';
import type { Picture } from '../dicom/messages.ts';
import { checkFit, onlyVolumeInput } from '../form/fit.ts';
import { initialValues } from '../form/inputs.ts';
import { refusals, type Scan } from '../form/scan.ts';
import { client } from '../site.ts';
import { currentOwner, entryAt, findSubmission, type Submission } from '../store.ts';
import { faultOf } from '../ui.tsx';
import { follow, newKey, resume, send, submit, uploadStateOf, watchUploads } from '../upload.ts';
import { eachAtMost } from './at-most.ts';
import { measureInTurn } from './measure.ts';
import { type BatchRow, batchKey, isOver, type KeptBatch, readBatch, writeBatch } from './rows.ts';

/** How a scan of this page is opened again: files are held, not what is in them. */
export interface ScanSource {
  readonly name: string;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
  /** Of a volume that is not a DICOM series. */
  readonly files?: readonly File[];
  open(): Promise<Scan>;
}

export interface BatchState extends KeptBatch {
  readonly pictures: ReadonlyMap<string, Picture>;
  /** Ids of rows whose files this page has. */
  readonly present: ReadonlySet<string>;
}

/** Uploads at a time. */
const mostSending = 2;
/** Jobs on the server at a time, so that a server with a short queue and other users are not crowded out. */
const mostOutstanding = 8;
/** Scans that are checked, and jobs that are asked for, at a time: a browser has six connections to a server. */
const mostAsked = 3;
/** Pauses between two looks at the jobs: a part of the time since one of them ended, within these bounds. */
const pollMs = { shortest: 1000, longest: 5000, part: 0.1 } as const;
/** Of a scan whose server or connection is away. */
const mostTries = 8;
const longestPauseMs = 60_000;

/** Sends the scans of a batch, follows their jobs, measures their results. One per service and user of this page. */
export class BatchQueue {
  readonly service: Service;
  readonly #key: string;
  readonly #sources = new Map<string, ScanSource>();
  readonly #listeners = new Set<() => void>();
  readonly #pausedUntilMs = new Map<string, { ms: number; times: number }>();
  /** Rows whose key may still be that of the request before. */
  readonly #beginning = new Set<string>();
  /** When a job last was begun or ended. */
  #changeMs = Date.now();
  #state: BatchState;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #writing: ReturnType<typeof setTimeout> | undefined;

  constructor(service: Service, key: string) {
    this.service = service;
    this.#key = key;
    const kept = readBatch(key);
    this.#state = {
      rows: (kept?.rows ?? []).map((row) =>
        row.state === 'measuring'
          ? { ...row, state: 'computing' }
          : row.state === 'checking'
            ? { ...row, state: 'waiting' }
            : row,
      ),
      values: { ...initialValues(service.inputs), ...kept?.values },
      running: (kept?.running ?? false) && !kept!.rows.every(isOver),
      pictures: new Map(),
      present: new Set(),
    };
    watchUploads(() => this.#noteUploads());
    for (const row of this.#state.rows) if (row.state === 'sending') void this.#continueUpload(row);
    this.#schedule();
    window.addEventListener('pagehide', () => writeBatch(this.#key, this.#kept()));
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly read = (): BatchState => this.#state;

  setValue(name: string, value: InputParameter): void {
    this.#change({ values: { ...this.#state.values, [name]: value } });
  }

  /** Adds scans, and gives those that are known but not yet sent their files again. */
  async add(sources: readonly ScanSource[]): Promise<void> {
    const known = new Map(this.#state.rows.map((row) => [recognised(row), row]));
    const added: BatchRow[] = [];
    for (const source of sources) {
      const old = known.get(recognised(source));
      const row: BatchRow = old ?? {
        id: newKey(),
        name: source.name,
        sizeBytes: source.sizeBytes,
        modifiedMs: source.modifiedMs,
        state: 'checking',
      };
      this.#sources.set(row.id, source);
      if (!old) added.push(row);
    }
    this.#change({ rows: [...this.#state.rows, ...added], present: new Set(this.#sources.keys()) });
    await eachAtMost(mostAsked, added, async ({ id }) => {
      await this.#check(id);
      // The first ones are sent while the rest is checked.
      this.#pump();
    });
    this.#pump();
  }

  start(): void {
    this.#change({ running: true });
    this.#pump();
  }

  /** Sends nothing more. What the server has is finished. */
  stop(): void {
    this.#change({ running: false });
  }

  retryFailed(): void {
    this.#pausedUntilMs.clear();
    const again = ({ reason, ...row }: BatchRow): BatchRow => ({ ...row, state: 'waiting' });
    this.#change({
      rows: this.#state.rows.map((row) => (row.state === 'failed' ? again(row) : row)),
      running: true,
    });
    this.#pump();
  }

  /** Forgets the rows; jobs and results stay in the list of jobs until they expire. */
  clear(): void {
    this.#sources.clear();
    this.#change({ rows: [], running: false, pictures: new Map(), present: new Set() });
  }

  /** Draws the result of a row again, after a reload. */
  async draw(id: string): Promise<void> {
    const row = this.#row(id);
    if (row?.state === 'done' && row.output && row.jobId && !this.#state.pictures.has(id))
      await this.#measure(id, row.jobId, row.output.name).catch(() => undefined);
  }

  // ---- One row ----

  async #check(id: string): Promise<void> {
    const input = onlyVolumeInput(this.service)!;
    try {
      const scan = await this.#sources.get(id)!.open();
      const [refusal] = refusals(this.service.acceptance as never, input.name, scan.header);
      if (scan.header.frames > 1 && input.frames !== 'all') {
        throw new TomaatError(
          'NOT_ACCEPTED',
          'The scan is 4-D, and the service takes one frame. Send it alone, on the page of the service, and choose the frame.',
        );
      }
      const fit = refusal ? { fits: false, reason: refusal } : await checkFit(this.service, input, scan);
      this.#update(id, fit.fits ? { state: 'waiting' } : { state: 'unfit', reason: fit.reason });
    } catch (error) {
      this.#update(id, { state: 'unfit', reason: faultOf(error).message });
    }
  }

  async #send(id: string): Promise<void> {
    const input = onlyVolumeInput(this.service)!;
    const { key: old, jobId: oldJob } = this.#row(id)!;
    // A request that became a job is over.
    const unansweredKey = oldJob === undefined ? old : undefined;
    this.#beginning.add(id);
    this.#update(id, {
      state: 'sending',
      fraction: 0,
      reason: undefined,
      key: unansweredKey,
      jobId: undefined,
    });
    try {
      const unanswered = unansweredKey && (await this.#unanswered(unansweredKey));
      if (unanswered) return send(unanswered);
      const scan = await this.#sources.get(id)!.open();
      const { deidentify } = decideIdentity({ processing: this.service.processing, address: location.href });
      await scan.dicom?.prepare({ keepPatientCharacteristics: false, keepIdentity: !deidentify });
      const key = newKey();
      const { service } = this;
      this.#update(id, { key });
      // Before anything is sent: a page that dies then finds the request, and does not send the scan twice.
      writeBatch(this.#key, this.#kept());
      await submit(
        {
          key,
          service: service.id,
          serviceName: service.name,
          files: { [input.name]: await scan.anonymous() },
          values: sentValues(service, this.#state.values),
          fileName: this.#row(id)?.name ?? scan.name,
          ...(scan.dicom && { series: { [input.name]: scan.dicom.keepOriginals() } }),
          createdTime: new Date().toISOString(),
        },
        old === undefined ? undefined : entryAt(old)?.uploads,
      );
    } catch (error) {
      this.#fail(id, error);
    } finally {
      this.#beginning.delete(id);
    }
  }

  /**
   * The request of a key to which no answer came, if the scan would be sent with the same parameters again. The server
   * may have it: under the same key it gives the same job, and does not compute it twice.
   */
  async #unanswered(key: string): Promise<Submission | undefined> {
    const submission = entryAt(key) && (await findSubmission(key));
    const values = sentValues(this.service, this.#state.values);
    return submission && JSON.stringify(submission.values) === JSON.stringify(values)
      ? submission
      : undefined;
  }

  async #continueUpload({ id, key }: BatchRow): Promise<void> {
    const jobId = key && entryAt(key)?.jobId;
    if (jobId) return this.#update(id, { state: 'computing', jobId });
    if (key && (await findSubmission(key))) {
      await resume(key);
      return this.#noteUploads();
    }
    this.#update(id, { state: 'waiting' });
  }

  #noteUploads(): void {
    for (const { id, key, state } of this.#state.rows) {
      const upload = key && state === 'sending' && !this.#beginning.has(id) ? uploadStateOf(key) : undefined;
      if (upload?.phase === 'sending')
        this.#update(id, { fraction: upload.totalBytes > 0 ? upload.sentBytes / upload.totalBytes : 0 });
      if (upload?.phase === 'sent') {
        this.#pausedUntilMs.delete(id);
        this.#changeMs = Date.now();
        this.#update(id, { state: 'computing', jobId: upload.job.id, fraction: 0 });
      }
      if (upload?.phase === 'failed') this.#fail(id, upload.error);
      if (upload?.phase === 'stopped' || upload?.phase === 'lost')
        this.#update(id, {
          state: 'failed',
          reason: 'The upload was stopped. Retry the failed scans to send it.',
        });
    }
    this.#pump();
  }

  /** What the server or the network may recover from is tried again, after growing pauses. */
  #fail(id: string, error: unknown): void {
    const times = (this.#pausedUntilMs.get(id)?.times ?? 0) + 1;
    const reason = faultOf(error).message;
    if (!isPassing(error) || times > mostTries) {
      this.#update(id, { state: 'failed', reason });
      return;
    }
    this.#pausedUntilMs.set(id, { ms: Date.now() + Math.min(longestPauseMs, 1000 * 2 ** times), times });
    this.#update(id, { state: 'waiting', reason });
    this.#schedule();
  }

  async #poll(row: BatchRow): Promise<void> {
    let job: Job;
    try {
      job = await client.job(row.jobId!);
    } catch (error) {
      // Anything else may pass: the server restarts, the connection is back, the user logs in.
      if (error instanceof TomaatError && error.code === 'NOT_FOUND')
        this.#update(row.id, {
          state: 'failed',
          reason: 'The server no longer has this job. Retry the failed scans to send it again.',
        });
      return;
    }
    if (job.state === 'running') this.#update(row.id, { fraction: job.fraction ?? 0 });
    if (!isSettled(job)) return;
    this.#changeMs = Date.now();
    follow(job);
    if (job.state !== 'succeeded') {
      const reason = 'error' in job && job.error ? job.error.detail : 'The job was cancelled.';
      return this.#update(row.id, { state: 'failed', reason });
    }
    const output = job.outputs.find(({ primary }) => primary) ?? job.outputs[0];
    const labelMap = job.outputs.find(({ type }) => type === 'LabelVolume');
    const kept = output && { name: output.name, fileName: output.fileName };
    if (!labelMap) return this.#update(row.id, { state: 'done', output: kept });
    this.#update(row.id, {
      state: 'measuring',
      output: { name: labelMap.name, fileName: labelMap.fileName },
    });
    // Others are asked for meanwhile.
    void this.#finish(row.id, job.id, labelMap.name);
  }

  async #finish(id: string, jobId: string, output: string): Promise<void> {
    try {
      const measured = await this.#measure(id, jobId, output);
      if (measured.error !== undefined) throw new TomaatError('BAD_VOXELS', measured.error);
      this.#update(id, { state: 'done', volumes: measured.volumes });
    } catch (error) {
      // Asked for again with the next jobs: the server has the result.
      if (isPassing(error)) {
        this.#update(id, { state: 'computing' });
        return this.#schedule();
      }
      this.#update(id, {
        state: 'failed',
        reason: `The result could not be measured: ${faultOf(error).message}`,
      });
    }
  }

  async #measure(id: string, jobId: string, output: string) {
    const source = this.#sources.get(id);
    const reply = await measureInTurn(async () => ({
      labelMap: await (await client.output(jobId, output, { format: 'nii.gz' })).blob(),
      scan: source && (source.files ?? (await readSeries(source))),
      labels: this.service.labels.map(({ value, name, color }) => ({ value, name, color })),
      colors: labelPalette,
    }));
    if (reply.error === undefined)
      this.#change({ pictures: new Map(this.#state.pictures).set(id, reply.picture) });
    return reply;
  }

  // ---- All rows ----

  #pump(): void {
    const now = Date.now();
    const { rows } = this.#state;
    let sending = rows.filter(({ state }) => state === 'sending').length;
    let outstanding = sending + rows.filter(({ state }) => state === 'computing').length;
    for (const { id, state } of rows) {
      if (!this.#state.running || sending >= mostSending || outstanding >= mostOutstanding) break;
      if (state !== 'waiting' || !this.#sources.has(id) || (this.#pausedUntilMs.get(id)?.ms ?? 0) > now)
        continue;
      sending++;
      outstanding++;
      void this.#send(id);
    }
    this.#schedule();
  }

  /** Asks for the jobs in turn, while there are any; a stream for each would take all connections of the browser. */
  #schedule(): void {
    if (this.#timer !== undefined) return;
    const isIdle = !this.#state.rows.some(
      ({ id, state }) =>
        state === 'computing' || (state === 'waiting' && this.#state.running && this.#sources.has(id)),
    );
    if (isIdle) return;
    const { shortest, longest, part } = pollMs;
    const pauseMs = Math.min(longest, Math.max(shortest, part * (Date.now() - this.#changeMs)));
    this.#timer = setTimeout(async () => {
      const computing = this.#state.rows.filter(({ state, jobId }) => state === 'computing' && jobId);
      try {
        await eachAtMost(mostAsked, computing, (row) => this.#poll(row));
      } finally {
        this.#timer = undefined;
        this.#pump();
      }
    }, pauseMs);
  }

  #row = (id: string): BatchRow | undefined => this.#state.rows.find((row) => row.id === id);

  #update(id: string, change: Partial<BatchRow>): void {
    this.#change({ rows: this.#state.rows.map((row) => (row.id === id ? { ...row, ...change } : row)) });
  }

  #change(change: Partial<BatchState>): void {
    this.#state = { ...this.#state, ...change };
    // What is dropped after the end waits for the button again.
    if (this.#state.running && this.#state.rows.every(isOver))
      this.#state = { ...this.#state, running: false };
    for (const listener of this.#listeners) listener();
    this.#writing ??= setTimeout(() => {
      this.#writing = undefined;
      writeBatch(this.#key, this.#kept());
    }, 200);
  }

  #kept = (): KeptBatch => ({
    rows: this.#state.rows,
    values: this.#state.values,
    running: this.#state.running,
  });
}

const recognised = ({
  name,
  sizeBytes,
  modifiedMs,
}: Pick<BatchRow, 'name' | 'sizeBytes' | 'modifiedMs'>): string =>
  JSON.stringify([name, sizeBytes, modifiedMs]);

async function readSeries(source: ScanSource): Promise<Volume | undefined> {
  try {
    return await (await source.open()).read({});
  } catch {
    return undefined;
  }
}

/** Optional points are not placed in a batch. */
function sentValues({ inputs }: Service, values: KeptBatch['values']): Record<string, InputParameter> {
  const points = new Set(inputs.flatMap(({ type, name }) => (type === 'fiducials' ? [name] : [])));
  return Object.fromEntries(Object.entries(values).filter(([name]) => !points.has(name)));
}

const queues = new Map<string, BatchQueue>();

/** The batch of a service and the current user; it goes on while other views are shown. */
export function queueOf(service: Service): BatchQueue {
  const key = batchKey(service.id, currentOwner());
  let queue = queues.get(key);
  if (!queue) {
    queue = new BatchQueue(service, key);
    queues.set(key, queue);
  }
  return queue;
}
