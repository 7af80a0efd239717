import { createHash } from 'node:crypto';
import type { Receipt } from '@tomaat/client';
import { type Input, isFileInput, verifiedDevices } from '@tomaat/core';
import type { App } from '../apps.ts';
import type { JobWitness, SettledJob } from '../store/jobs/job-records.ts';
import { version } from '../version.ts';
import type { AuditHead } from './audit-files.ts';
import type { Audit } from './audit-log.ts';
import type { AuditEvent } from './events.ts';

export const researchNotice =
  'For research use only. Not a medical device: not for diagnosis, treatment or any other clinical decision.';

/** The records of jobs: their receipts, and their lines in the audit log. */
export function createWitness(apps: readonly App[], audit: Audit): JobWitness {
  const byId = new Map(apps.map((app) => [app.manifest.id, app]));
  return {
    accepted: ({ id, service, owner, inputs }, trx) =>
      audit.recordIn(trx, 'prediction.accepted', {
        who: owner,
        service,
        version: byId.get(service)?.manifest.version,
        job: id,
        inputs: inputs.map(({ name, digest, received }) => ({ name, digest, received })),
      }),
    // A service that is no longer offered has no manifest.
    async receiptOf(job, trx) {
      const app = byId.get(job.service);
      return app && receiptOf(job, app, await audit.headIn(trx));
    },
    settled: ({ id, service, owner, state, error, outputs }, trx) =>
      audit.recordIn(trx, `prediction.${state}` satisfies AuditEvent, {
        who: owner,
        service,
        job: id,
        outcome: error?.code ?? 'succeeded',
        outputs: outputs.map(({ name, digest, kept }) => ({ name, digest, kept: kept?.digest })),
      }),
    kept: ({ id, service, owner }, trx) => audit.recordIn(trx, 'job.kept', { who: owner, service, job: id }),
    removed: ({ id, service, owner }, why, trx) =>
      audit.recordIn(trx, why === 'expired' ? 'job.expired' : 'job.deleted', {
        who: owner,
        service,
        job: id,
      }),
  };
}

/** `newest`: the newest line of the audit log, which the receipt thereby fixes. */
function receiptOf(job: SettledJob, app: App, newest: AuditHead): Receipt {
  const { manifest } = app;
  const time = (ms: number) => new Date(ms).toISOString();
  return {
    kind: 'tomaat-receipt/1',
    notice: researchNotice,
    job: job.id,
    state: job.state,
    error: job.error?.code,
    server: { software: 'tomaat', version },
    service: {
      id: manifest.id,
      version: manifest.version,
      manifest: `sha256:${app.manifestSha256}`,
      models: manifest.model.map((model) => ({
        runtime: model.runtime,
        digest: 'sha256' in model && model.sha256 !== undefined ? `sha256:${model.sha256}` : undefined,
        // Others are computed by a program, or on a model server.
        ...(model.runtime === 'onnx' && { device: job.device, verifiedOn: [...verifiedDevices(manifest)] }),
      })),
    },
    acceptedTime: time(job.createdMs),
    startedTime: job.startedMs === undefined ? undefined : time(job.startedMs),
    settledTime: time(job.settledMs),
    inputs: job.inputs.map(({ name, sizeBytes, digest, received = digest }) => ({
      name,
      sizeBytes,
      received,
      stored: digest,
    })),
    parameters: Object.fromEntries(
      Object.entries(job.request.parameters).map(([name, value]) => [
        name,
        shownParameter(manifest.inputs[name], value),
      ]),
    ),
    rewrites: job.rewrites.length > 0 ? [...job.rewrites] : undefined,
    frame: job.request.frame,
    series: job.request.series === undefined ? undefined : digestOfJson(job.request.series),
    outputs: job.outputs.map(({ name, type, format, primary, sizeBytes, digest, kept }) => ({
      name,
      type,
      format,
      primary,
      sizeBytes,
      digest,
      ...(kept && { kept: { format: kept.format, sizeBytes: kept.sizeBytes, digest: kept.digest } }),
    })),
    retention: {
      inputs: 'deleted when the prediction was settled',
      results: 'deleted with this receipt at the time below, or earlier at the caller’s request',
      resultsDeletedTime: time(job.expiresMs),
    },
    audit: newest,
  };
}

/** Numbers and choices unchanged; text that a person may have written as the SHA-256 of its JSON. */
function shownParameter(input: Input | undefined, value: unknown): Receipt['parameters'][string] {
  const isPlain = input && !isFileInput(input) && input.type !== 'fiducials';
  if (isPlain && ['number', 'boolean', 'string'].includes(typeof value)) return value as number;
  return digestOfJson(value);
}

const digestOfJson = (value: unknown) => ({
  digest: `sha256:${createHash('sha256').update(JSON.stringify(value)).digest('hex')}`,
});
