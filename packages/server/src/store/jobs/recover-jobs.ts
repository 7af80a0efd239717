import type { BlobHolds } from './blob-holds.ts';
import type { Outcome } from './job-rows.ts';
import type { UnsettledJobs } from './unsettled-jobs.ts';

/** Whether this process's own child was lost with the attempt. */
export type LostChild = (job: { id: string; attempt: number }) => boolean;

interface Jobs {
  unsettled: UnsettledJobs;
  holds: BlobHolds;
  settle(id: string, attempt: number | undefined, outcome: Outcome): Promise<boolean>;
  requeue(id: string, attempt: number, why: 'lost' | 'handed back'): Promise<'queued' | 'failed' | undefined>;
}

/**
 * After a crash: jobs of this process are queued again (or failed, if their child was lost too often:
 * `lostChild`), jobs of remote workers remain theirs for a lease, and unreferenced blobs are deleted.
 * Unsettled jobs of services that are no longer served fail with NOT_FOUND: no worker would ever claim them.
 */
export async function recoverJobs(
  { unsettled, holds, settle, requeue }: Jobs,
  services: readonly string[],
  lostChild: LostChild = () => true,
): Promise<{ requeued: number; failed: number; orphans: number }> {
  await unsettled.load();
  await unsettled.offer(services);
  let requeued = 0;
  let failed = 0;
  for (const { id, service } of await unsettled.unserved(services)) {
    const message = `The service ${service} is no longer offered here. GET /api/services lists the available ones.`;
    if (await settle(id, undefined, { state: 'failed', error: { code: 'NOT_FOUND', message } })) failed++;
  }
  for (const { id, attempt } of unsettled.unleased()) {
    const why = lostChild({ id, attempt }) ? 'lost' : 'handed back';
    if ((await requeue(id, attempt, why)) === 'queued') requeued++;
    else failed++;
  }
  return { requeued, failed, orphans: await holds.dropOrphans() };
}
