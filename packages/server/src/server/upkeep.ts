import { eraseOwner } from '../folder/erase.ts';
import type { Login } from '../http/login.ts';
import type { WorkerRoutes } from '../http/worker-routes.ts';
import { answerRequests } from '../store/control.ts';
import { moveExpiry } from '../store/database/steady-clock.ts';
import type { ServerData } from './data.ts';
import type { FilledOptions } from './options.ts';

/** How often it is looked whether workers elsewhere keep silent. */
const checkLeasesEveryMs = 1000;

/**
 * What a server does unasked while it runs: it deletes what has expired, queues the jobs of silent workers again, and does what
 * other commands on this machine ask of the holder of the data folder. Until it is disposed of.
 */
export function startUpkeep(
  data: ServerData,
  login: Login,
  workers: WorkerRoutes,
  { dataFolder, sweepMs, logger }: FilledOptions,
): AsyncDisposable {
  const { audit, database, jobs, uploads, clock } = data;
  const stack = new AsyncDisposableStack();

  async function sweep(): Promise<void> {
    const byMs = await clock.settle((ms) => moveExpiry(database, ms));
    if (byMs !== 0)
      logger.warn({ byMs }, 'the clock was set; stored expiry times were shifted by the same amount');
    await uploads.sweep();
    await jobs.sweep();
    await login.sessions.sweep();
  }
  /** Does the work; a fault is logged once, and again only after a success: the database may be away for long. */
  function loggingOnce(work: () => Promise<void>, message: string): () => void {
    let isFaulty = false;
    return () => {
      work().then(
        () => {
          isFaulty = false;
        },
        (error: unknown) => {
          if (!isFaulty) logger.error({ err: error }, message);
          isFaulty = true;
        },
      );
    };
  }
  const sweeper = setInterval(loggingOnce(sweep, 'sweep failed'), sweepMs);
  stack.defer(() => clearInterval(sweeper));

  async function checkLeases(): Promise<void> {
    const ids = await workers.sweep();
    if (ids.length > 0)
      logger.warn({ jobs: ids }, 'workers were silent for too long; their jobs are queued again');
  }
  const leaseKeeper = setInterval(
    loggingOnce(checkLeases, 'leases could not be checked'),
    checkLeasesEveryMs,
  );
  stack.defer(() => clearInterval(leaseKeeper));

  stack.use(
    answerRequests(
      dataFolder,
      {
        rotateAudit: async () => ({ closed: await audit.rotate() }),
        eraseOwner: (request) => eraseOwner(request, { audit, jobs, uploads, database, dataFolder }),
      },
      (error) => logger.error({ err: error }, 'the request of a command failed'),
    ),
  );
  return stack;
}
