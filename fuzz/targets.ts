/**
 * What is fuzzed: every reader of untrusted bytes and texts, in one table per room. `run` reads an input: it may
 * refuse it with a TomaatError and nothing else, and whatever it accepts must satisfy the `must` checks there.
 */
import type { Target } from './target.ts';
import { appTargets } from './targets/apps.ts';
import { bodyTargets } from './targets/bodies.ts';
import { deidentificationTargets } from './targets/deidentification.ts';
import { dicomTargets } from './targets/dicom.ts';
import { dicomWebTargets } from './targets/dicomweb.ts';
import { gatewayTargets } from './targets/gateway.ts';
import { graphTargets } from './targets/graphs.ts';
import { gzipTargets } from './targets/gzip.ts';
import { platformFor } from './targets/inputs.ts';
import { requestTargets } from './targets/requests.ts';
import { segmentationTargets } from './targets/segmentations.ts';
import { structureSetTargets } from './targets/structure-sets.ts';
import { textTargets } from './targets/texts.ts';
import { transformTargets } from './targets/transforms.ts';
import { volumeTargets } from './targets/volumes.ts';
import { zipTarget } from './targets/zip.ts';

export const targets: Readonly<Record<string, Target>> = {
  ...textTargets,
  ...volumeTargets,
  ...transformTargets,
  ...gzipTargets,
  ...bodyTargets,
  ...dicomTargets,
  ...deidentificationTargets,
  ...segmentationTargets,
  ...structureSetTargets,
  zip: zipTarget(platformFor),
  ...dicomWebTargets,
  ...requestTargets,
  ...appTargets,
  ...graphTargets,
  ...gatewayTargets,
};
