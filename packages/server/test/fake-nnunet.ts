import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/*
 * An environment of Python that has no torch and no nnU-Net: its own stand-ins for them (fake-nnunet/) and the nibabel of this machine.
 */

/** A distribution that the environment says it has. */
export interface FakeDistribution {
  readonly name: string;
  readonly version: string;
  /** Where it was installed from (PEP 610). */
  readonly origin?: object;
}

const modules = fileURLToPath(new URL('./fake-nnunet', import.meta.url));
const standIns: readonly FakeDistribution[] = [
  { name: 'torch', version: '2.4.0+cpu' },
  { name: 'nnunetv2', version: '2.8.1' },
];

/** Makes a virtual environment in `folder`, of a Python that has nibabel. Returns its Python. */
export function makeEnvironment(
  folder: string,
  python: string,
  more: readonly FakeDistribution[] = [],
): string {
  execFileSync(python, ['-m', 'venv', '--without-pip', folder], { stdio: 'pipe' });
  const [version] = readdirSync(join(folder, 'lib'));
  const packages = join(folder, 'lib', version, 'site-packages');
  const paths =
    'import nibabel, numpy, os, packaging; print(*{os.path.dirname(m.__path__[0]) for m in (nibabel, numpy, packaging)}, sep="\\n")';
  const found = execFileSync(python, ['-c', paths], { encoding: 'utf8' });
  writeFileSync(join(packages, 'stand-ins.pth'), `${modules}\n${found}`);
  for (const { name, version, origin } of [...standIns, ...more]) {
    const info = join(packages, `${name}-${version}.dist-info`);
    mkdirSync(info);
    writeFileSync(join(info, 'METADATA'), `Metadata-Version: 2.1\nName: ${name}\nVersion: ${version}\n`);
    if (origin) writeFileSync(join(info, 'direct_url.json'), JSON.stringify(origin));
  }
  return join(folder, 'bin', 'python3');
}

/** Writes a folder as nnU-Net writes it, of one configuration; the stand-in marks voxels above `threshold`. */
export function writeTrained(dataset: string, configuration: string, threshold: number): string {
  const folder = join(dataset, `nnUNetTrainer__nnUNetPlans__${configuration}`);
  mkdirSync(join(folder, 'fold_0'), { recursive: true });
  mkdirSync(join(folder, 'fold_1'));
  const plans = {
    dataset_name: 'Dataset902_Blocks',
    plans_name: 'nnUNetPlans',
    image_reader_writer: 'NibabelIO',
    configurations: {
      '3d_lowres': {},
      '3d_fullres': {},
      '3d_cascade_fullres': { previous_stage: '3d_lowres' },
    },
  };
  const data = { channel_names: { 0: 'CT' }, labels: { background: 0, low: 1, high: 2 } };
  writeFileSync(join(folder, 'plans.json'), JSON.stringify(plans));
  writeFileSync(join(folder, 'dataset.json'), JSON.stringify(data));
  for (const fold of [0, 1])
    writeFileSync(join(folder, `fold_${fold}`, 'checkpoint_final.pth'), JSON.stringify({ threshold }));
  writeFileSync(join(folder, 'fold_0', 'progress.png'), 'not needed');
  return folder;
}
