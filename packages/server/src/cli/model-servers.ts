import { modelServersOf as serversOfManifest } from '@tomaat/core';
import type { App } from '../apps.ts';
import type { Config } from '../config.ts';
import { type ModelServers, readModelServerKeys } from '../trust/model-servers.ts';
import { readCertificates } from './connect.ts';

/** What the operator permits of model servers, from the settings. */

export async function modelServersOf({
  allowNet,
  ca,
  modelServerKeys,
}: Pick<Config, 'allowNet' | 'ca' | 'modelServerKeys'>): Promise<ModelServers> {
  return {
    allowNet,
    ca: ca === undefined ? undefined : await readCertificates(ca),
    keys: readModelServerKeys(modelServerKeys),
  };
}

/** The flags of commands that compute without serving. */
export interface ModelServerFlags {
  allowNet?: readonly string[];
  ca?: string;
  data?: string;
}

/**
 * The same for `tomaat run`, `check` and `worker`: from their flags, the variables and the settings file. Undefined if no app uses a model
 * server: then a fault in these settings is no fault of the command.
 */
export async function loadModelServers(
  apps: readonly App[],
  { allowNet, ca, data }: ModelServerFlags,
): Promise<ModelServers | undefined> {
  if (apps.every(({ manifest }) => serversOfManifest(manifest).length === 0)) return undefined;
  const { loadConfig } = await import('../config.ts');
  return modelServersOf(loadConfig({ flags: { allowNet, ca, data } }).config);
}
