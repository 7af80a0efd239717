import type { Plan } from './plan.ts';
import { translateMonai } from './translate-monai.ts';
import { type NnunetChoices, translateNnunet } from './translate-nnunet.ts';
import type { Translation } from './translation.ts';

/** An author's plan as parts of a manifest, with a fault for each part that a manifest cannot say. */
export function translate(plan: Plan, choices: NnunetChoices): Translation {
  return plan.kind === 'monai' ? translateMonai(plan) : translateNnunet(plan, choices);
}
