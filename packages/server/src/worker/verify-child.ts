import { isNetworkSpec, type ModelSpec, TomaatError, verifyNetwork } from '@tomaat/core';
import { type App, openApp } from '../apps.ts';
import { registerAppModules } from '../runtimes/app-modules.ts';
import { findProgram } from '../runtimes/command.ts';
import { openModel } from '../runtimes/runtimes.ts';
import { behaveAsChild } from './behave-as-child.ts';
import { isOutOfMemory } from './out-of-memory.ts';
import type { ModelReport } from './verify-app.ts';

/* Loads every model of an app, tries each network on zeros, reports the results to its parent, and ends. */

behaveAsChild();
process.on('disconnect', () => process.exit(1));
registerAppModules();

const noJob = { folder: '', closing: new AbortController().signal, onSpawn: () => {}, onExit: () => {} };

async function verifyModel(app: App, spec: ModelSpec): Promise<ModelReport> {
  const name = spec.runtime === 'command' ? spec.command[0] : spec.file;
  try {
    if (spec.runtime === 'command') {
      await findProgram(spec, app.folder);
      // Not started: importing a framework takes up to a minute, and a server does this for each app at its start.
      return { name, faults: [], summary: 'the program exists' };
    }
    const model = await openModel(app, spec, noJob);
    if (model.kind === 'network' && isNetworkSpec(spec))
      return { name, ...(await verifyNetwork(app.manifest, spec, model.session)) };
    return { name, faults: [], summary: 'loaded' };
  } catch (error) {
    const message = isOutOfMemory(error)
      ? 'There is not enough memory to load it.'
      : (error as Error).message;
    if (!(error instanceof TomaatError) && !isOutOfMemory(error)) throw error;
    return { name, faults: [message], summary: '' };
  }
}

const app = await openApp(process.argv[2]);
const reports: ModelReport[] = [];
for (const spec of app.manifest.model) reports.push(await verifyModel(app, spec));
process.send?.(reports, () => process.exit(0));
