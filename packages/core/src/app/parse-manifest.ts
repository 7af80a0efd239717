import { type FileFault, faultsOfSchema, listFaults, readYaml, soundPart } from '../checked-yaml.ts';
import { TomaatError } from '../errors.ts';
import { type Manifest, manifestSchema } from './manifest.ts';
import { crossFaults } from './manifest-checks.ts';

export type ManifestFault = FileFault;

/** Reads a manifest. BAD_MANIFEST lists every fault with its path and line; `detail.faults` contains them as data. */
export function parseManifest(text: string, fileName = 'tomaat.yaml'): Manifest {
  const { data, faults: yamlFaults, place } = readYaml(text);
  if (yamlFaults.length > 0) throw refuse(fileName, yamlFaults);
  const result = manifestSchema.safeParse(data);
  const faults = crossFaults(result.success ? result.data : soundPart<Manifest>(manifestSchema, data));
  if (result.success && faults.length === 0) return result.data;
  const issues = result.success ? [] : faultsOfSchema(result.error.issues);
  throw refuse(fileName, place([...issues, ...faults]));
}

const refuse = (fileName: string, faults: readonly FileFault[]): TomaatError =>
  new TomaatError('BAD_MANIFEST', listFaults(fileName, faults), { detail: { faults } });
