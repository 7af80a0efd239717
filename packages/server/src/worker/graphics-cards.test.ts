import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ComputeDevice } from '../runtimes/devices.ts';
import { listCards, parseCards } from './graphics-cards.ts';
import { createMemoryPolicy } from './memory-limit.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-cards-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** As nvidia-smi 550 prints them with --format=csv,noheader,nounits. */
const printed = `0, GPU-8f0c5e2a-0b6b-6f3d-1c53-6a3e4c1b2d00, 15356, 14900, NVIDIA A2
1, GPU-11111111-2222-3333-4444-555555555555, 81559, 81000, NVIDIA H100 80GB HBM3
2, GPU-22222222-2222-3333-4444-555555555555, [N/A], [N/A], NVIDIA GB10
`;

describe('parseCards()', () => {
  it('reads index, UUID, name and memory, whose MiB become MB', () => {
    const cards = parseCards(printed);
    expect(cards).toEqual([
      {
        index: 0,
        uuid: 'GPU-8f0c5e2a-0b6b-6f3d-1c53-6a3e4c1b2d00',
        name: 'NVIDIA A2',
        totalMb: 16_101,
        freeMb: 15_623,
      },
      expect.objectContaining({ index: 1, name: 'NVIDIA H100 80GB HBM3', totalMb: 85_520 }),
    ]);
  });

  it('leaves out what is not a card', () => {
    expect(
      parseCards('NVIDIA-SMI has failed because it couldn’t communicate with the NVIDIA driver.\n'),
    ).toEqual([]);
    expect(parseCards('')).toEqual([]);
  });
});

describe('listCards()', () => {
  it('knows nothing where the program is missing or fails', async () => {
    expect(await listCards(join(folder, 'none'))).toBeUndefined();
    const failing = join(folder, 'failing');
    await writeFile(failing, '#!/bin/sh\nexit 9\n');
    await chmod(failing, 0o755);
    expect(await listCards(failing)).toBeUndefined();
  });

  it('reads what the program prints', async () => {
    const program = join(folder, 'nvidia-smi');
    await writeFile(program, `#!/bin/sh\ncat <<'END'\n${printed}END\n`);
    await chmod(program, 0o755);
    expect((await listCards(program))?.map(({ name }) => name)).toEqual([
      'NVIDIA A2',
      'NVIDIA H100 80GB HBM3',
    ]);
  });
});

describe('createMemoryPolicy()', () => {
  const card = (title: string, memoryMb?: number): ComputeDevice => ({
    device: 'cuda:0',
    title,
    memoryMb,
    environment: {},
  });

  it('knows the card with the least memory, as any may get a prediction', () => {
    const policy = createMemoryPolicy({ slots: 2, devices: [card('large', 80_000), card('small', 15_000)] });
    expect(policy.card).toEqual({ title: 'small', memoryMb: 15_000 });
    expect(createMemoryPolicy({ slots: 1, devices: [card('unknown')] }).card).toBeUndefined();
    expect(createMemoryPolicy({ slots: 1 }).card).toBeUndefined();
  });
});
