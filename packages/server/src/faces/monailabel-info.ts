import { defaultValue, type Input, isFileInput, withoutUnseen } from '@tomaat/core';
import type { App } from '../apps.ts';
import type { Services } from '../http/services.ts';
import { version } from '../version.ts';
import { numberedLabels, offeredApps } from './offered.ts';

/** What `GET /info` says of a server, as MONAI Label 0.8 does. */

/** Nothing is stored for annotation here. */
export const datastoreStats = { total: 0, completed: 0, label_tags: {} } as const;

export function describeServer(services: Services) {
  const offered = offeredApps(services);
  const models = offered.map((app) => [app.manifest.id, describeModel(app)] as const);
  return {
    name: 'TOMAAT',
    description: 'Volumetric medical image segmentation',
    version,
    // A list: OHIF adds to it.
    labels: [...new Set(models.flatMap(([, { labels }]) => Object.keys(labels)))],
    models: Object.fromEntries(models),
    trainers: {},
    strategies: {},
    scoring: {},
    train_stats: {},
    datastore: datastoreStats,
  };
}

function describeModel(app: App) {
  const { manifest } = app;
  const parameters = Object.entries(manifest.inputs).filter(
    ([, input]) => !isFileInput(input) && input.type !== 'fiducials',
  );
  return {
    type: 'segmentation',
    labels: namesOf(app),
    dimension: 3,
    description: withoutUnseen(`${manifest.name}: ${manifest.description.split('\n').join(' ')}`),
    version: withoutUnseen(manifest.version),
    config: Object.fromEntries(parameters.map(([name, input]) => [name, shownParameter(input)])),
  };
}

/** The labels of a prediction as an object of names and numbers. */
export const namesOf = (app: Pick<App, 'manifest'>, parameters?: Record<string, unknown>) =>
  Object.fromEntries(numberedLabels(app, parameters).map(({ name, number }) => [name, number]));

/**
 * A parameter as the form of 3D Slicer takes it: a list is a choice, whose first item is selected, a truth value a check box. Numbers are
 * text, because it rounds those that look like whole ones.
 */
function shownParameter(input: Input): unknown {
  const value = defaultValue(input);
  if (input.type === 'radiobutton')
    return [...new Set([String(value), ...input.options.map((option) => String(option))])];
  return input.type === 'checkbox' ? (value ?? false) : String(value ?? '');
}
