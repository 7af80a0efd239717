import { isNetworkSpec } from '@tomaat/core';
import type { FastifyBaseLogger } from 'fastify';
import type { App } from '../apps.ts';
import { type ComputeDevice, isCard, processor } from '../runtimes/devices.ts';
import { recordOf } from '../runtimes/measured.ts';
import type { MemoryPolicy } from './memory-limit.ts';
import type { SpareTime } from './spare-time.ts';
import { verifyApp } from './verify-app.ts';

/**
 * Measures in spare time what is not known yet of the networks of apps that the processor computes: which of their forms is faster, and what a run of
 * them takes. Until then the form computes that needs no trial, and the memory is estimated. It is kept for the next start.
 */
export async function measureApps(
  apps: readonly App[],
  {
    memory,
    devices = [processor],
    spare,
    logger,
  }: {
    memory: MemoryPolicy;
    devices?: readonly ComputeDevice[];
    spare: Pick<SpareTime, 'run'>;
    logger: Pick<FastifyBaseLogger, 'info' | 'warn'>;
  },
): Promise<void> {
  const device = devices.find((each) => !isCard(each));
  if (!device?.trialsFolder) return;
  for (const app of apps) {
    if (await isMeasured(app, device)) continue;
    try {
      await spare.run(async (signal) => {
        const { measures: _later, ...now } = device;
        const reports = await verifyApp(app, memory, signal, { device: now, isUrgent: false });
        const models = reports.map(({ name, summary }) => `${name}: ${summary}`).join('; ');
        logger.info({ app: app.manifest.id, models }, 'networks of the app measured');
      });
    } catch (error) {
      logger.warn({ app: app.manifest.id, err: error }, 'networks of the app could not be measured');
    }
  }
}

async function isMeasured({ manifest }: App, device: ComputeDevice): Promise<boolean> {
  for (const spec of manifest.model) {
    if (!isNetworkSpec(spec) || spec.runtime !== 'onnx') continue;
    const known = await recordOf(spec.sha256, device)?.measured();
    if (!known?.isWhole) return false;
  }
  return true;
}
