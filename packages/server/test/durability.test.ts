import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { crashPoints } from '../../../test/torture/crash-points.ts';
import type { Finding } from '../../../test/torture/harness.ts';
import { killLoop } from '../../../test/torture/kills.ts';
import { leftovers } from '../../../test/torture/leftovers.ts';
import { overload } from '../../../test/torture/overload.ts';
import { cutUpload } from '../../../test/torture/uploads.ts';

/* The short form of `npm run torture`. */

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-durability-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** What has to be seen whatever else the machine does: times and rates are for the long form. */
function check(findings: readonly Finding[], except: RegExp = /^$/): void {
  const short = findings.filter(({ ok, what }) => !ok && !except.test(what));
  expect(short).toEqual([]);
}

describe('a job that was acknowledged', () => {
  it('survives kill -9 of server, worker and both, with the same result', { timeout: 120_000 }, async () => {
    check(await killLoop(folder, { kills: 4 }), /ready again|given up/);
  });

  it.skipIf(process.platform !== 'linux')(
    'is whole or was never accepted, whatever file operation fails',
    { timeout: 120_000 },
    async () => {
      const only = [
        'signal=SIGKILL fdatasync',
        'error=ENOSPC pwrite64',
        'error=EROFS openat',
        'error=EIO child fsync',
      ];
      const findings = await crashPoints(folder, { perCall: 1, only });
      check(findings);
    },
  );
});

it('an upload that is cut again and again ends whole', {
  timeout: 60_000,
}, async () => {
  // What a broken line had in its buffers is sent again: of a small file that is a large share.
  check(await cutUpload(folder, { bytes: 40e6, cuts: 6, kills: 0 }), /times the bytes/);
});

it('too many requests are refused at once, and what was accepted succeeds', { timeout: 60_000 }, async () => {
  check(await overload(folder, { seconds: 4, share: 0.5 }), /health|throughput/);
});

it('cancelled uploads and jobs leave no byte', { timeout: 90_000 }, async () => {
  check(await leftovers(folder, { count: 20, sweepSeconds: 4 }), /memory/);
});
