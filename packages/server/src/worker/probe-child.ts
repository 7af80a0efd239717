import { access } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { type ComputeDevice, kindOf, providersOf } from '../runtimes/devices.ts';
import { probeNetwork } from '../runtimes/probe-network.ts';
import { behaveAsChild } from './behave-as-child.ts';
import type { DeviceReport } from './open-devices.ts';

/* Computes the smallest network on a device, reports whether that works to its parent, and ends. */

behaveAsChild();
process.on('disconnect', () => process.exit(1));

/** What onnxruntime-node takes from another package for CUDA (its script/install-metadata.js). */
const cudaFiles = ['libonnxruntime_providers_shared.so', 'libonnxruntime_providers_cuda.so'];

/** Those of the engine's files for CUDA that are not beside it. */
async function missingFiles(): Promise<DeviceReport['missing']> {
  const engine = dirname(createRequire(import.meta.url).resolve('onnxruntime-node/package.json'));
  const folder = join(engine, 'bin', 'napi-v6', process.platform, process.arch);
  const files: string[] = [];
  for (const file of cudaFiles)
    await access(join(folder, file)).catch(() => {
      files.push(file);
    });
  return files.length > 0 ? { folder, files } : undefined;
}

async function probe({ device }: ComputeDevice): Promise<DeviceReport> {
  const missing = kindOf(device) === 'cuda' ? await missingFiles() : undefined;
  if (missing) return { fault: 'the engine’s libraries for CUDA are not there', missing };
  process.env.ORT_DISABLE_TELEMETRY = '1';
  const { InferenceSession, Tensor } = await import('onnxruntime-node');
  try {
    const session = await InferenceSession.create(probeNetwork(), {
      executionProviders: providersOf(device),
      logSeverityLevel: 4,
    });
    const { y } = await session.run({ x: new Tensor('float32', [1, -2, 3.5, 0], [4]) });
    const found = [...(y.data as Float32Array)].join(', ');
    return found === '2, -4, 7, 0' ? {} : { fault: `it computes ${found} where 2, -4, 7, 0 is right` };
  } catch (error) {
    return { fault: lastLine(error instanceof Error ? error.message : String(error)) };
  }
}

/** The engine's messages begin with the place in its own source and with the condition that did not hold. */
const lastLine = (message: string): string =>
  message.trim().split('\n').at(-1)!.split(' was false. ').at(-1)!.slice(-300);

const report = await probe(JSON.parse(process.argv[2]));
process.send?.(report, () => process.exit(0));
