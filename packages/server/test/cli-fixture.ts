import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type Announcement,
  announcementSchema,
  announcementType,
  type Entry,
  isSettled,
  type Job,
  jobSchema,
  type Service,
} from '@tomaat/client';
import { identityOf, payloadOf } from './registry-helpers.ts';
import { databaseEnv } from './support/tested-database.ts';

export const bin = fileURLToPath(new URL('../bin/tomaat.js', import.meta.url));

/** Options of Node with which a program that is started with a pipe as its standard input ends with the test. */
export const endsWithTest = ['--import', new URL('./end-with-parent.ts', import.meta.url).href] as const;

/** Data folders of a user who has none yet, for each test file. */
const dataHome = mkdtempSync(join(tmpdir(), 'tomaat-home-'));
process.once('exit', () => rmSync(dataHome, { recursive: true, force: true }));

export interface CliResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface CliOptions {
  node?: string;
  env?: Record<string, string>;
  cwd?: string;
  /** Called with all of stderr so far whenever there is more. */
  onStderr?(text: string, kill: (signal: NodeJS.Signals) => void): void;
}

/** Runs the real bin, away from the user's own settings. */
export async function tomaat(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const { node = process.execPath, env = {}, cwd, onStderr } = options;
  const inherited = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(TOMAAT_|NODE_OPTIONS|VITEST)/.test(name)),
  );
  const database = await databaseEnv(args);
  return new Promise((resolve, reject) => {
    const child = spawn(node, [bin, ...args], {
      cwd,
      env: { ...inherited, XDG_DATA_HOME: dataHome, ...database, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const result: CliResult = { code: null, signal: null, stdout: '', stderr: '' };
    child.stdout.on('data', (chunk) => {
      result.stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      result.stderr += chunk;
      onStderr?.(result.stderr, (signal) => child.kill(signal));
    });
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ ...result, code, signal }));
  });
}

export function temporaryFolder(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'tomaat-cli-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

export const service = (more: Partial<Service> = {}): Service => ({
  id: 'prostate-net',
  name: 'Prostate',
  description: 'Whole gland',
  version: '1.2.0',
  modality: 'MRI',
  anatomy: 'prostate',
  task: 'segmentation',
  authors: ['A'],
  licence: 'MIT',
  intendedUse: 'Research',
  default: true,
  inputs: [
    { name: 'volume', type: 'volume', optional: false, frames: 'one' },
    { name: 'threshold', type: 'slider', minimum: 0, maximum: 1, default: 0.5 },
    { name: 'mode', type: 'radiobutton', options: ['fast', 'exact'] },
    { name: 'clean', type: 'checkbox', default: false },
  ],
  outputs: [
    { name: 'segmentation', primary: true, type: 'LabelVolume' },
    { name: 'volumes', primary: false, type: 'Measurements' },
  ],
  labels: [{ value: 1, name: 'prostate' }],
  parameters: {},
  acceptance: [],
  runtime: 'onnx',
  ...more,
});

export interface Received {
  service: string;
  frame?: string;
  authorization?: string;
  fields: Record<string, string>;
  files: { input: string; name: string; bytes: Buffer }[];
}

export interface FakeServer {
  readonly url: string;
  readonly server: Server;
  readonly received: Received[];
  readonly jobs: Map<string, Job>;
  readonly deleted: string[];
  close(): Promise<void>;
}

/** What becomes of a job: the states that its events go through, from queued. */
export type Course = (job: Job, index: number) => readonly Partial<Job>[];

export const label = Buffer.from('label map');
const measured = JSON.stringify({
  labels: [
    { value: 1, name: 'prostate', voxels: 5, volumeMl: 41.234 },
    { value: 2, name: 'cyst', voxels: 0, volumeMl: 0 },
  ],
});

/** An entry of our API as a registry at this address shows it: signed by its server. */
export async function signEntry(entry: Entry, audience: string, server = 'fake'): Promise<Entry> {
  if (entry.face !== 'api' || entry.signed !== undefined) return entry;
  const identity = await identityOf(server);
  const fields = Object.keys(announcementSchema.shape) as (keyof Announcement)[];
  const announcement = Object.fromEntries(fields.map((field) => [field, entry[field]])) as Announcement;
  const payload = { ...payloadOf(announcement, identity, Date.now()), aud: audience };
  return { ...entry, id: payload.id, signed: await identity.sign(announcementType, payload) };
}

/** The job after a step: with what a job of its new state has to have, and nothing of the old one. */
function follow(job: Job, step: Partial<Job>, outputs: Job['outputs'] = []): Job {
  const { id, service, attempt, createdTime, parameters } = job;
  const state = step.state ?? job.state;
  const time = new Date(0).toISOString();
  return jobSchema.parse({
    ...{ id, service, state, attempt, createdTime, parameters },
    ...(state !== 'queued' && { startedTime: time }),
    ...(isSettled({ state }) && { settledTime: time, expiresTime: time }),
    ...(state === 'canceled' && {
      error: { type: 'x', title: 'x', status: 409, detail: 'x', code: 'CANCELED', retryable: false },
    }),
    ...step,
    outputs: state === 'succeeded' ? outputs : [],
  });
}

/** A server that answers by the contract and does what it is told. */
export async function fakeServer(
  options: { services?: Service[]; entries?: Entry[]; course?: Course } = {},
): Promise<FakeServer> {
  const services = options.services ?? [service()];
  const {
    entries,
    course = () => [{ state: 'running', stage: 'infer', fraction: 0.5 }, { state: 'succeeded' }],
  } = options;
  const received: Received[] = [];
  const jobs = new Map<string, Job>();
  const deleted: string[] = [];
  const courses = new Map<string, readonly Partial<Job>[]>();

  const server = createServer((request, response) => {
    handle(request, response).catch((error) => {
      response.destroy();
      console.error(error);
    });
  });

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', `http://${request.headers.host}`);
    const path = url.pathname;
    const send = (status: number, body: unknown) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    const refuse = (status: number, code: string, detail: string) =>
      response.writeHead(status, { 'content-type': 'application/problem+json' }).end(
        JSON.stringify({
          type: 'x',
          title: code,
          status,
          detail,
          code,
          retryable: false,
          requestId: 'req-7',
        }),
      );
    if (path === '/api/services' && entries)
      return void send(200, {
        services: await Promise.all(entries.map((entry) => signEntry(entry, url.origin))),
      });
    if (path === '/api/services') {
      const fits = (one: Service) =>
        ['task', 'anatomy'].every(
          (key) => !url.searchParams.has(key) || url.searchParams.get(key) === one[key as 'task' | 'anatomy'],
        );
      return void send(200, { services: services.filter(fits) });
    }
    const predictions = /^\/api\/services\/([^/]+)\/predictions$/.exec(path);
    if (predictions && request.method === 'POST') {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const form = await new Response(new Uint8Array(Buffer.concat(chunks)), {
        headers: { 'content-type': request.headers['content-type'] ?? '' },
      }).formData();
      const got: Received = { service: predictions[1], fields: {}, files: [] };
      got.frame = url.searchParams.get('frame') ?? undefined;
      got.authorization = request.headers.authorization;
      for (const [name, value] of form) {
        if (typeof value === 'string') got.fields[name] = value;
        else got.files.push({ input: name, name: value.name, bytes: Buffer.from(await value.arrayBuffer()) });
      }
      received.push(got);
      const id = `job-${received.length}`;
      const job: Job = {
        id,
        service: predictions[1],
        state: 'queued',
        queuePosition: 1,
        attempt: 1,
        createdTime: new Date(0).toISOString(),
        parameters: got.fields,
        outputs: [],
      };
      jobs.set(id, job);
      courses.set(id, course(job, received.length - 1));
      return void response
        .writeHead(202, { 'content-type': 'application/json', location: `/api/jobs/${id}` })
        .end(JSON.stringify(job));
    }
    const one = /^\/api\/services\/([^/]+)$/.exec(path);
    if (one) {
      const found = services.find((candidate) => candidate.id === one[1]);
      return void (found ? send(200, found) : refuse(404, 'NOT_FOUND', `There is no service ${one[1]}.`));
    }
    const at = /^\/api\/jobs\/([^/]+)(?:\/(events|outputs|cancel)(?:\/(.+))?)?$/.exec(path);
    const job = at && jobs.get(at[1]);
    if (!job) return void refuse(404, 'NOT_FOUND', 'There is nothing here.');
    if (at[2] === 'outputs') {
      const bytes = at[3] === 'volumes' ? Buffer.from(measured) : label;
      return void response.writeHead(200, { 'content-length': bytes.length }).end(bytes);
    }
    const isUnsettled = !isSettled(job);
    if (at[2] === 'cancel') {
      if (isUnsettled) jobs.set(job.id, follow(job, { state: 'canceled' }));
      return void send(200, jobs.get(job.id));
    }
    if (request.method === 'DELETE') {
      deleted.push(job.id);
      if (isUnsettled) {
        jobs.set(job.id, follow(job, { state: 'canceled' }));
        return void send(200, jobs.get(job.id));
      }
      jobs.delete(job.id);
      return void response.writeHead(204).end();
    }
    if (at[2] !== 'events') return void send(200, job);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    let state = job;
    response.write(`event: job\ndata: ${JSON.stringify(state)}\n\n`);
    for (const step of courses.get(job.id) ?? []) {
      state = follow(state, step, outputsOf(job.id));
      jobs.set(job.id, state);
      response.write(`event: job\ndata: ${JSON.stringify(state)}\n\n`);
    }
    if (isSettled(state)) response.end();
  }

  const outputsOf = (id: string): Job['outputs'] => {
    const sent = received[Number(id.slice(4)) - 1].files[0]?.name ?? '';
    const format = sent.endsWith('.mha') || sent.endsWith('.mhd') ? 'mha' : 'nii.gz';
    const about = { label: 'x', formats: ['nii.gz', 'mha'], url: '/' };
    const digestOf = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    return [
      {
        name: 'segmentation',
        type: 'LabelVolume',
        primary: true,
        format,
        fileName: `x.${format}`,
        sizeBytes: label.length,
        digest: digestOf(label),
        ...about,
      },
      {
        name: 'volumes',
        type: 'Measurements',
        primary: false,
        format: 'json',
        fileName: 'x.json',
        sizeBytes: measured.length,
        digest: digestOf(Buffer.from(measured)),
        ...about,
      },
    ];
  };

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    server,
    received,
    jobs,
    deleted,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** An address at which nothing listens. */
export async function deadAddress(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${port}`;
}
