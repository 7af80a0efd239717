import { withField } from '../errors.ts';
import { intensityTransforms, suvFactor } from '../transforms/intensity.ts';
import type { SuvScale } from '../volume.ts';
import { type Manifest, volumeInputs } from './manifest.ts';
import type { Step } from './step.ts';
import { applies, ownSteps, resolveParameters, type StepFault } from './steps.ts';
import type { Parameter } from './values.ts';

/* What an app that computes SUV needs of its input, and of its own list of steps. */

const suvStep = 'standardUptakeValue';

/**
 * Refuses a volume of which no SUV can be computed, from its header alone: by the steps of the input itself, and those of all inputs
 * if there is only one volume. The channels of several are stacked first, which no SUV can be computed of.
 *
 * @throws TomaatError BAD_INPUT, with the name of the input
 */
export function acceptSuv(
  manifest: Pick<Manifest, 'inputs' | 'preprocess'>,
  parameters: Readonly<Record<string, Parameter>>,
  name: string,
  suv: SuvScale | undefined,
): void {
  const common = volumeInputs(manifest).length === 1 ? manifest.preprocess : [];
  const steps = [...ownSteps(manifest.inputs, name, parameters), ...common];
  const step = steps.find((one) => one.name === suvStep && applies(one.when, parameters));
  if (!step) return;
  try {
    const { withoutHeader } = resolveParameters(step, 'preprocess', parameters);
    suvFactor(suv, withoutHeader as 'refuse' | 'suv');
  } catch (error) {
    throw withField(error, name);
  }
}

/** Whether there are predictions of the app that compute SUV, of any of its inputs. */
export function computesSuv({ inputs, preprocess }: Pick<Manifest, 'inputs' | 'preprocess'>): boolean {
  const own = Object.values(inputs).flatMap((input) => ('preprocess' in input && input.preprocess) || []);
  return [...preprocess, ...own].some(({ name }) => name === suvStep);
}

/** Steps that always change the values before SUV are computed of them. */
export function checkSuvOrder(steps: readonly Step[]): StepFault[] {
  const at = steps.findIndex(({ name, when }) => name === suvStep && when === undefined);
  const isBefore = ({ name, when }: Step, index: number) =>
    index < at &&
    name !== suvStep &&
    when === undefined &&
    intensityTransforms.some((transform) => transform.name === name);
  const before = steps.find(isBefore);
  return before
    ? [{ path: [at], message: `${suvStep} must come before ${before.name}, which changes the values` }]
    : [];
}
