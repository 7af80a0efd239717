import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { App } from '../apps.ts';
import { cgroupLimits, createMemoryPolicy, machineMemoryMb } from './memory-limit.ts';

const app = (memoryMb?: number) => ({ manifest: { limits: { memoryMb } } }) as unknown as App;

describe('createMemoryPolicy()', () => {
  it('shares three quarters of the machine among concurrent predictions', () => {
    const share = (slots: number, machineMb: number) =>
      createMemoryPolicy({ slots, machineMb })(app())?.memoryMb;
    expect(share(1, 16_000)).toBe(12_000);
    expect(share(2, 16_000)).toBe(6000);
    expect(share(2, 4000)).toBe(1500);
    // The smallest networks run on the smallest machines.
    expect(share(8, 2000)).toBe(512);
  });

  it('takes the manifest’s word first, as it is', () => {
    for (const memoryMb of [undefined, 0, 5000])
      expect(createMemoryPolicy({ slots: 2, memoryMb, machineMb: 4000 })(app(900))).toEqual({
        memoryMb: 900,
        dataMb: 900,
        from: 'manifest',
      });
  });

  it('uses the operator’s value for all others, where 0 means no limit', () => {
    const limit = createMemoryPolicy({ slots: 2, memoryMb: 3000, machineMb: 4000 })(app());
    expect(limit).toMatchObject({ memoryMb: 3000, from: 'operator' });
    expect(createMemoryPolicy({ slots: 2, memoryMb: 0, machineMb: 4000 })(app())).toBeUndefined();
  });

  it('knows no share of a machine that computes nothing', () => {
    expect(createMemoryPolicy({ slots: 0 })(app())).toBeUndefined();
    expect(createMemoryPolicy({ slots: 0, memoryMb: 3000 })(app())?.memoryMb).toBe(3000);
  });

  it('adds to the limit of the system what Node and the engine only reserve', () => {
    const limit = createMemoryPolicy({ slots: 2, machineMb: 4000 })(app())!;
    expect(limit.dataMb - limit.memoryMb).toBe(900 + 10 * availableParallelism());
  });
});

describe('machineMemoryMb()', () => {
  it('is at most the machine’s memory', () => {
    expect(machineMemoryMb()).toBeGreaterThan(100);
    expect(machineMemoryMb()).toBeLessThanOrEqual(totalmem() / 1e6);
  });
});

describe('cgroupLimits()', () => {
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'tomaat-cgroup-'));
  });
  afterEach(() => rm(root, { recursive: true, force: true }));

  async function group(path: string, max: string): Promise<void> {
    await mkdir(join(root, path), { recursive: true });
    await writeFile(join(root, path, 'memory.max'), `${max}\n`);
  }
  const own = async (text: string) => {
    await writeFile(join(root, 'own'), text);
    return cgroupLimits(root, join(root, 'own'));
  };

  it('gives the limits of all groups that the process is in', async () => {
    await group('slurm/job_7', '4000000000');
    await group('slurm/job_7/step_0', 'max');
    await group('slurm/job_7/step_0/task_0', '9000000000');
    await group('slurm/job_8', '1');
    expect(await own('0::/slurm/job_7/step_0/task_0\n')).toEqual([4e9, 9e9]);
  });

  it('gives none where there are none, or cgroup v1 alone', async () => {
    expect(await own('0::/\n')).toEqual([]);
    expect(await own('4:memory:/docker/7\n1:cpu:/\n')).toEqual([]);
    expect(cgroupLimits(join(root, 'none'), join(root, 'nothing'))).toEqual([]);
  });
});
