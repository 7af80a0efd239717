import type { Manifest } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { createProcessing, type ProcessingOptions } from './processing.ts';

const local: ProcessingOptions = {
  policy: 'yes',
  isLocal: true,
  slots: 1,
  stripsInputs: false,
  hasWorkerKey: async () => false,
};
const worker = { hasWorkerKey: async () => true };
const proxied = { publicUrl: 'https://scans.example' };

describe('createProcessing()', () => {
  it.each<[string, Partial<ProcessingOptions>, object]>([
    ['loopback', {}, { reach: 'loopback', remoteWorkers: false, identity: 'allowed', stripsInputs: false }],
    ['stripping', { stripsInputs: true }, { stripsInputs: true, identity: 'allowed' }],
    ['the network', { isLocal: false }, { reach: 'network', identity: 'allowed' }],
    ['a proxy', proxied, { reach: 'network' }],
    ['another host name', { allowHost: ['scans.example'] }, { reach: 'network' }],
    ['remote workers alone', { slots: 0 }, { remoteWorkers: true, identity: 'allowed' }],
    ['a key for workers', worker, { remoteWorkers: true, identity: 'allowed' }],
    ['local, on loopback', { policy: 'local' }, { identity: 'allowed' }],
    ['local, on the network', { policy: 'local', isLocal: false }, { identity: 'refused' }],
    ['local, behind a proxy', { policy: 'local', ...proxied }, { identity: 'refused' }],
    ['local, with a worker', { policy: 'local', ...worker }, { identity: 'refused' }],
    ['no', { policy: 'no' }, { identity: 'refused', reach: 'loopback' }],
  ])('describes %s', async (_, options, wanted) => {
    const processing = await createProcessing({ ...local, ...options });
    const found = await processing.describe();
    expect(found).toMatchObject(wanted);
    expect(await processing.refusesIdentity()).toBe(found.identity === 'refused');
    // Only a caller on the same machine has a use for its name.
    if (found.reach === 'network') {
      expect(found).not.toHaveProperty('machine');
      expect(found).not.toHaveProperty('ports');
    }
  });

  it('names the model servers on other machines that get the voxels of a service', async () => {
    const served = (...urls: string[]) => ({
      manifest: {
        model: urls.map((url) => ({ runtime: 'oip', url, model: 'm', inferer: { type: 'simple' } })),
      } as unknown as Manifest,
    });
    const processing = await createProcessing({ ...local, policy: 'local' });
    const elsewhere = served('grpcs://Triton.example:8001', 'http://localhost:8000');
    expect(await processing.describe(elsewhere)).toMatchObject({
      modelServers: ['triton.example:8001'],
      identity: 'refused',
    });
    expect(await processing.refusesIdentity(elsewhere)).toBe(true);
    const here = served('grpc://127.0.0.1:8001', 'grpc://[::1]:8001');
    expect(await processing.describe(here)).toMatchObject({ identity: 'allowed' });
    expect(await processing.describe(here)).not.toHaveProperty('modelServers');
    // Any other service of the same server keeps to this machine.
    expect(await processing.refusesIdentity()).toBe(false);
  });

  it('states the ports where it listens', async () => {
    const processing = await createProcessing(local);
    expect((await processing.describe()).ports).toEqual([]);
    processing.listensAt([9000, 9443]);
    expect((await processing.describe()).ports).toEqual([9000, 9443]);
  });

  it('remembers a worker that connected with another key', async () => {
    const processing = await createProcessing({ ...local, policy: 'local' });
    expect(await processing.refusesIdentity()).toBe(false);
    processing.sawWorker();
    expect(await processing.describe()).toMatchObject({ remoteWorkers: true, identity: 'refused' });
    expect(await processing.refusesIdentity()).toBe(true);
  });
});
