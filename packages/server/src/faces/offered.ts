import {
  isFileInput,
  type Label,
  labelsWith,
  mostNumberedLabels,
  parseParameters,
  primaryOutput,
  TomaatError,
  volumeInputs,
  withoutUnseen,
} from '@tomaat/core';
import type { App } from '../apps.ts';
import type { Services } from '../http/services.ts';

/** What protocols with one volume and one label map can offer of a server's apps. */

/** The volume that such a protocol sends: the only required file of an app whose primary output is a label map with names. */
export function onlyVolume({ manifest }: App): string | undefined {
  const required = Object.entries(manifest.inputs).filter(
    ([, input]) =>
      (isFileInput(input) || input.type === 'fiducials') && !('optional' in input && input.optional),
  );
  const [name] = volumeInputs(manifest);
  const isLabelMap = manifest.outputs[primaryOutput(manifest)].type === 'LabelVolume';
  const labels = labelsWith(manifest.labels, defaultParameters(manifest));
  const isNumbered = labels.length > 0 && labels.length <= mostNumberedLabels;
  return required.length === 1 && required[0][0] === name && isLabelMap && isNumbered ? name : undefined;
}

export const offeredApps = ({ apps }: Services): App[] => apps.filter((app) => onlyVolume(app) !== undefined);

/** The app of that id with its volume; NOT_FOUND lists the ones that are offered. */
export function findOffered(services: Services, id: string): { app: App; volume: string } {
  const offered = offeredApps(services);
  const app = offered.find(({ manifest }) => manifest.id === id);
  if (app) return { app, volume: onlyVolume(app)! };
  const ids = offered.map(({ manifest }) => manifest.id);
  throw new TomaatError(
    'NOT_FOUND',
    services.apps.some(({ manifest }) => manifest.id === id)
      ? `The service ${id} cannot be used by this protocol: it needs other inputs than one volume, or its result is not a label map with 1 to ${mostNumberedLabels} named labels. Available: ${ids.join(', ') || 'none'}.`
      : `There is no service of that name here. Available: ${ids.join(', ') || 'none'}.`,
    { field: 'model' },
  );
}

/** The parameters of an app that are used if a caller sends none; those without a default are missing. */
export function defaultParameters({ inputs }: App['manifest']): Record<string, unknown> {
  const parameters = Object.entries(inputs).filter(
    ([, input]) => !isFileInput(input) && input.type !== 'fiducials',
  );
  return parseParameters(Object.fromEntries(parameters), {});
}

/** A label by its position in the list: `number` is from 1 on. */
export interface NumberedLabel {
  readonly number: number;
  /** Unlike those of the others. */
  readonly name: string;
  readonly label: Label;
}

/** The labels of a prediction with these parameters (by default those of the app), numbered as `numberLabels()` does. */
export function numberedLabels(
  { manifest }: Pick<App, 'manifest'>,
  parameters: Readonly<Record<string, unknown>> = defaultParameters(manifest),
): NumberedLabel[] {
  const names = new Set<string>();
  return labelsWith(manifest.labels, parameters).map((label, k) => {
    const text = withoutUnseen(label.name);
    // As a key of an object, a whole number would move to the front; 3D Slicer takes a label named background out of the list.
    const plain = /^\d+$/.test(text) || text === 'background' ? `label ${text}` : text;
    let name = plain;
    for (let again = 2; names.has(name); again++) name = `${plain} (${again})`;
    names.add(name);
    return { number: k + 1, name, label };
  });
}
