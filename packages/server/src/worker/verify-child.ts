import {
  type CanaryReport,
  compareSessions,
  isNetworkSpec,
  type ModelSpec,
  modelServersOf,
  type NetworkSession,
  TomaatError,
  verifyNetwork,
} from '@tomaat/core';
import { type App, openApp } from '../apps.ts';
import { registerAppModules } from '../runtimes/app-modules.ts';
import { findProgram } from '../runtimes/command.ts';
import { type ComputeDevice, isCard, processor } from '../runtimes/devices.ts';
import { recordOf } from '../runtimes/measured.ts';
import { openModel } from '../runtimes/runtimes.ts';
import type { ModelServers } from '../trust/model-servers.ts';
import { behaveAsChild } from './behave-as-child.ts';
import { freeMemory } from './free-memory.ts';
import { measureRunBytes } from './measure-run.ts';
import type { MemoryLimit } from './memory-limit.ts';
import { isOutOfMemory } from './out-of-memory.ts';
import type { ModelReport } from './verify-app.ts';

/* Loads every model of an app, tries each network on zeros, reports the results to its parent, and ends. */

/** The networks that were tried without a fault on the processor, and with which dimensions. */
const sound = new Map<ModelSpec, { session: NetworkSession; dims?: readonly number[] }>();

behaveAsChild();
process.on('disconnect', () => process.exit(1));
registerAppModules();

async function verifyModel(app: App, spec: ModelSpec): Promise<ModelReport> {
  const name = nameOfModel(spec);
  let away: string | undefined;
  try {
    if (spec.runtime === 'command') {
      await findProgram(spec, app.folder);
      // Not started: importing a framework takes up to a minute, and a server does this for each app at its start.
      return { name, faults: [], summary: 'the program exists' };
    }
    const notes: string[] = [];
    const log = (text: string) => notes.push(text.slice(`${name}: `.length));
    const model = await openModel(app, spec, { ...noJob, modelServers, log });
    if (model.kind !== 'network' || !isNetworkSpec(spec)) return { name, faults: [], summary: 'loaded' };
    const tried: { dims?: readonly number[] } = {};
    const watched = noticeAbsence(model.session, tried, (message) => {
      away = message;
    });
    const report = await verifyNetwork(app.manifest, spec, watched);
    const { rewrites = [] } = model.session;
    const faster = rewrites.length > 0 ? [`computed in faster forms: ${rewrites.join(', ')}`] : [];
    const summary = [report.summary, ...faster, ...notes].join('; ');
    const faults = report.faults.filter((fault) => fault !== away);
    if (faults.length === 0 && !isCard(device)) sound.set(spec, { session: model.session, dims: tried.dims });
    if (faults.length > 0 || spec.runtime !== 'onnx' || !isCard(device) || !tried.dims)
      return { name, ...report, summary, faults, away };
    const { fault, differ, voxels } = await compareWithProcessor(app, spec, model.session, tried.dims);
    if (fault === undefined)
      return {
        name,
        ...report,
        compared: `${differ} of ${voxels} labels differ from those of the processor`,
      };
    const shown = `On ${device.title} ${fault}. Update the driver and CUDA, choose another --device, or give --device cpu.`;
    return { name, ...report, faults: [shown] };
  } catch (error) {
    if (isAbsence(error)) return { name, faults: [], summary: '', away: error.message };
    const message = isOutOfMemory(error)
      ? 'There is not enough memory to load it and try it once. Choose a smaller window (roiSize) or a smaller network, or use a larger machine.'
      : (error as Error).message;
    if (!(error instanceof TomaatError) && !isOutOfMemory(error)) throw error;
    return { name, faults: [message], summary: '' };
  }
}

/** Whether a model server is not there, or too busy: neither is a fault of the app. */
const isAbsence = (error: unknown): error is TomaatError =>
  error instanceof TomaatError && (error.code === 'UNREACHABLE' || error.code === 'TIMEOUT');

/** Runs one window on the card and on the processor; the card's session is open. */
async function compareWithProcessor(
  app: App,
  spec: Extract<ModelSpec, { runtime: 'onnx' }>,
  session: NetworkSession,
  dims: readonly number[],
): Promise<CanaryReport> {
  const reference = await openModel(app, spec, {
    ...noJob,
    device: { ...processor, rewrite: device.rewrite },
  });
  if (reference.kind !== 'network') throw new TypeError('the runtime onnx must give a network');
  return compareSessions(app.manifest, spec, { reference: reference.session, session }, dims);
}

/** The session, which notes what it is tried on, and tells of a model server that went away. */
function noticeAbsence(
  session: NetworkSession,
  tried: { dims?: readonly number[] },
  onAway: (message: string) => void,
): NetworkSession {
  return {
    inputDims: session.inputDims,
    async run(input) {
      tried.dims = input.dims;
      try {
        return await session.run(input);
      } catch (error) {
        if (isAbsence(error)) onAway(error.message);
        throw error;
      }
    },
  };
}

function nameOfModel(spec: ModelSpec): string {
  if (spec.runtime === 'command') return spec.command[0];
  return spec.runtime === 'oip' ? `${spec.model} at ${spec.url}` : spec.file;
}

/** What a run takes, as it is known, or measured now. */
async function runBytesOf(
  spec: ModelSpec,
  session: NetworkSession,
  dims: readonly number[],
): Promise<number | undefined> {
  if (!isNetworkSpec(spec) || spec.runtime !== 'onnx') return undefined;
  const record = recordOf(spec.sha256, device);
  const { rewrites = [] } = session;
  const known = await record?.measured();
  // Another form takes something else.
  if (known?.run?.rewrites.join() === rewrites.join()) return known.run.bytesPerVoxel;
  if (device.measures === false || (known?.isWhole && !known.run)) return undefined;
  const bytesPerVoxel = await measureRunBytes(spec, session, dims);
  await record?.add({
    ...(bytesPerVoxel !== undefined && { run: { rewrites, bytesPerVoxel } }),
    isWhole: true,
  });
  return bytesPerVoxel;
}

const app = await openApp(process.argv[2]);
const device: ComputeDevice = JSON.parse(process.argv[3] ?? 'null') ?? processor;
const memoryLimit = (JSON.parse(process.argv[4] ?? 'null') ?? undefined) as MemoryLimit | undefined;
const noJob = {
  folder: '',
  closing: new AbortController().signal,
  device,
  freeMemory: () => freeMemory(memoryLimit),
  onSpawn: () => {},
  onExit: () => {},
};
/** What the app may use of model servers: the one message to this process, sent where it uses any. */
const modelServers =
  modelServersOf(app.manifest).length === 0
    ? undefined
    : await new Promise<ModelServers>((resolve) => process.once('message', resolve));
const reports: ModelReport[] = [];
for (const spec of app.manifest.model) reports.push(await verifyModel(app, spec));
const send = () => new Promise<void>((resolve) => process.send?.(reports, () => resolve()));
// Measuring may need more memory than there is: what was found before must not be lost with the process.
if (sound.size > 0 && device.measures !== false) await send();
for (const [spec, { session, dims }] of sound) {
  const runBytes = dims && (await runBytesOf(spec, session, dims));
  if (runBytes === undefined) continue;
  const at = app.manifest.model.indexOf(spec);
  const { summary } = reports[at];
  reports[at] = { ...reports[at], runBytes, summary: `${summary}; a run takes ${runBytes} bytes per voxel` };
}
await send();
process.exit(0);
