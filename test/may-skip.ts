import { findForeignClient, findKubectl } from './programs.ts';
import { dataFolder, importFolder, modelsFolder } from './real-data.ts';

/**
 * The tests that CI may skip, each with the reason. Any other skip fails the run: a program that is missing there
 * has to be installed by `.ci/run`.
 */
export interface MaySkip {
  /** The end of the file's path. */
  file: string;
  /** Matches the test's full name; without it, any test of the file. */
  test?: RegExp;
  reason: string;
  holds: boolean;
}

const noData = dataFolder() === undefined;
const noModels = modelsFolder() === undefined;
const noImports = importFolder() === undefined;
const images = 'the real images are not here (TOMAAT_TEST_DATA)';
const networks = 'the real images or networks are not here (TOMAAT_TEST_DATA, TOMAAT_TEST_MODELS)';

const noSource = 'the source of the client cannot be fetched here';

export const maySkip: readonly MaySkip[] = [
  { file: 'core/src/formats/golden.test.ts', reason: images, holds: noData },
  { file: 'core/src/labels/real-label-map.test.ts', reason: images, holds: noData },
  {
    file: 'core/src/dicom/read-segmentation.test.ts',
    test: /of a file of dcmqi/,
    reason: images,
    holds: noData,
  },
  { file: 'web/test/viewer-anatomy.test.ts', test: /DICOM/, reason: images, holds: noData },
  {
    file: 'web/test/viewer-anatomy.test.ts',
    test: /of a brain/,
    reason: 'half a minute: TOMAAT_SLOW=1 runs it',
    holds: !process.env.TOMAAT_SLOW,
  },
  {
    file: 'web/test/compute.test.ts',
    test: /real head/,
    reason: 'a minute, and the real images (TOMAAT_TEST_DATA): TOMAAT_SLOW=1 runs it',
    holds: noData || !process.env.TOMAAT_SLOW,
  },
  {
    file: 'web/test/page-jobs.test.ts',
    test: /database is away/,
    reason: 'half a minute: TOMAAT_SLOW=1 runs it',
    holds: !process.env.TOMAAT_SLOW,
  },
  {
    file: 'server/test/rolling-restart.test.ts',
    reason: 'half a minute: TOMAAT_SLOW=1 runs it',
    holds: !process.env.TOMAAT_SLOW,
  },
  {
    file: 'server/test/bucket-servers.test.ts',
    reason: 'half a minute: TOMAAT_SLOW=1 runs it',
    holds: !process.env.TOMAAT_SLOW,
  },
  { file: 'test/dicom-results.test.ts', reason: images, holds: noData },
  { file: 'test/dicom-measurement-report.test.ts', reason: images, holds: noData },
  { file: 'test/dicom-structure-set.test.ts', test: /Japanese/, reason: images, holds: noData },
  { file: 'client/test/dicomweb.test.ts', reason: images, holds: noData },
  { file: 'server/test/ohif.test.ts', reason: images, holds: noData },
  {
    file: 'server/test/auto3dseg.test.ts',
    test: /the module for 3D Slicer/,
    reason: noSource,
    holds: findForeignClient('SlicerMONAIAuto3DSeg') === undefined,
  },
  {
    file: 'server/test/cli-dicom.test.ts',
    test: /real DICOM|of the command line/,
    reason: images,
    holds: noData,
  },
  { file: 'server/test/brain.test.ts', test: /refuses|real head/, reason: images, holds: noData },
  { file: 'web/test/page.test.ts', test: /real/, reason: images, holds: noData },
  { file: 'test/faces.test.ts', test: /real image/, reason: images, holds: noData },
  { file: 'test/dicom-deidentify.test.ts', reason: images, holds: noData },
  {
    file: 'server/test/import.test.ts',
    reason: 'the folders of MONAI and nnU-Net are not here (TOMAAT_TEST_IMPORT)',
    holds: noImports,
  },
  {
    file: 'test/import-fixtures.test.ts',
    reason: 'the folders of MONAI and nnU-Net are not here (TOMAAT_TEST_IMPORT)',
    holds: noImports,
  },
  {
    file: 'test/import-proof.test.ts',
    reason: 'the folders of MONAI and nnU-Net are not here (TOMAAT_TEST_IMPORT)',
    holds: noImports,
  },
  { file: 'server/src/runtimes/onnx.test.ts', reason: networks, holds: noData || noModels },
  {
    file: 'server/src/runtimes/onnx.test.ts',
    test: /model5_gw_ae finds/,
    reason: 'real-networks.test.ts shows the same of an app: TOMAAT_SLOW=1 runs it',
    holds: !process.env.TOMAAT_SLOW,
  },
  { file: 'server/test/real-networks.test.ts', reason: networks, holds: noData || noModels },
  {
    file: 'server/test/real-networks.test.ts',
    test: /model1[18]|model20|model30|mindgrab|model5-niivue|(model5_gw_ae|deepbrain) reaches Dice/,
    reason: 'minutes each: TOMAAT_SLOW=1 runs them',
    holds: !process.env.TOMAAT_SLOW,
  },
  {
    file: 'server/test/oip-triton.test.ts',
    reason: 'Triton is 450 MB of packages: .ci/extra triton installs it',
    holds: !process.env.TOMAAT_TRITON_PYTHON || noModels,
  },
  {
    file: 'test/deploy.test.ts',
    test: /deploy.kubernetes/,
    reason: 'kubectl is not here',
    holds: findKubectl() === undefined,
  },
  {
    file: 'test/image.test.ts',
    reason: 'it needs an image: .ci/extra image makes it',
    holds: !process.env.TOMAAT_TEST_IMAGE,
  },
  {
    file: 'test/slurm.test.ts',
    reason: 'it starts the daemons of Slurm: .ci/extra slurm installs them',
    holds: !process.env.TOMAAT_TEST_SLURM,
  },
  {
    file: 'server/test/dicom-large.test.ts',
    reason: 'minutes, and 5 GB of memory and disk: TOMAAT_SLOW=1 runs it',
    holds: !process.env.TOMAAT_SLOW,
  },
  {
    file: 'server/src/trust/known-hosts.test.ts',
    test: /a folder of another user/,
    reason: 'only root can act as another user',
    holds: process.geteuid?.() !== 0,
  },
  {
    file: 'server/src/store/folder-owner.test.ts',
    test: /takes the group|giveToOwner/,
    reason: 'only root can act as another user',
    holds: process.geteuid?.() !== 0,
  },
  {
    file: 'server/test/folder-owner.test.ts',
    test: /root beside|any other user/,
    reason: 'only root can act as another user',
    holds: process.geteuid?.() !== 0,
  },
  {
    file: 'gateway/sources/folder-source.test.ts',
    test: /it may not read a file/,
    reason: 'root may read every file',
    holds: process.geteuid?.() === 0,
  },
  {
    file: 'server/test/cli-basics.test.ts',
    test: /started by an older Node/,
    reason: 'this machine has no Node older than 24 beside the pinned one',
    holds: true,
  },
];
