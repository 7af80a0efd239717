import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Service } from '@tomaat/client';
import {
  defaultValue,
  endingOf,
  type Input,
  isFileInput,
  type Parameter,
  parseParameter,
  TomaatError,
} from '@tomaat/core';
import { type DicomVolume, kindOfFile, openDicomVolumes, type ReadingReports } from './dicom-volume.ts';
import { mustBeFile, nothingIn, statInput, stemOf, volumesIn } from './input-files.ts';

/** The flags of `predict` and `run` for inputs. */
export interface InputFlags {
  volume?: string;
  /** Of DICOM: the UID or the number of a series, or “all”. */
  series?: string;
  /** NAME=FILE */
  input: readonly string[];
  /** NAME=VALUE */
  param: readonly string[];
}

export interface InputPlan {
  /** The input that --volume fills. */
  readonly mainInput?: string;
  /** Paths of the other file inputs, the same for every volume. */
  readonly otherFiles: Readonly<Record<string, readonly string[]>>;
  /** The series of other inputs that were given as DICOM. */
  readonly otherSeries: Readonly<Record<string, DicomVolume>>;
  /** Only the given ones: the service knows the defaults. */
  readonly values: Readonly<Record<string, Parameter>>;
  /** Each is predicted in turn; several where --volume is a folder of volumes, or holds several DICOM series. */
  readonly volumes: readonly PlannedVolume[];
  readonly many: boolean;
}

export interface PlannedVolume {
  /** The file; of DICOM what --volume names. */
  readonly path: string;
  /** What results are called after, and in whose folder they are written. */
  readonly resultPath: string;
  readonly dicom?: DicomVolume;
}

/** The part of a service, or of an app that is run without a server, that inputs and outputs are checked against. */
export type Elements = Pick<Service, 'id' | 'inputs' | 'outputs'>;
type NamedInput = Input & { name: string };

/**
 * Checks the flags against what the service takes, before anything is sent, without a look at what --volume names. BAD_INPUT says what
 * would be valid.
 */
export async function planOthers(
  service: Elements,
  flags: InputFlags,
  reports: ReadingReports,
): Promise<Omit<InputPlan, 'volumes' | 'many'>> {
  const inputs = service.inputs as readonly NamedInput[];
  const files = inputs.filter(isFileInput);
  const others = inputs.filter((input) => !isFileInput(input));
  const list = (named: readonly NamedInput[]) => named.map((input) => input.name).join(', ') || 'none';

  const otherFiles: Record<string, string[]> = {};
  const otherSeries: Record<string, DicomVolume> = {};
  for (const [name, path] of flags.input.map((text) => splitPair('--input', text))) {
    if (!files.some((input) => input.name === name)) {
      const isOther = others.some((input) => input.name === name);
      throw usage(
        isOther
          ? `${name} is not a file. Give it with --param ${name}=VALUE.`
          : `${service.id} has no input ${name}. Available files: ${list(files)}.`,
      );
    }
    const series = await otherSeriesOf(path, reports);
    if (name in otherSeries || (series && name in otherFiles)) {
      throw usage(`--input ${name} is given twice. Give one DICOM series, with all its files in a folder.`);
    }
    if (series) otherSeries[name] = series;
    else (otherFiles[name] ??= []).push(path);
  }
  const given = new Set([...Object.keys(otherFiles), ...Object.keys(otherSeries)]);
  const mainInput = files.find((input) => input.type === 'volume' && !given.has(input.name))?.name;
  if (flags.volume !== undefined && mainInput === undefined) {
    throw usage(
      flags.input.length > 0
        ? `--volume is not needed: --input already gives every volume of ${service.id}.`
        : `${service.id} takes no volume. Available inputs: ${list(inputs)}.`,
    );
  }
  if (flags.volume !== undefined) given.add(mainInput!);
  const missing = files.filter((input) => 'optional' in input && !input.optional && !given.has(input.name));
  if (missing.length > 0) {
    const how = missing.map((input) =>
      input.name === mainInput ? '--volume FILE' : `--input ${input.name}=FILE`,
    );
    throw usage(
      `${service.id} needs ${missing.map((input) => input.label ?? input.name).join(' and ')}. Give ${how.join(' ')}.`,
    );
  }

  const values: Record<string, Parameter> = {};
  for (const [name, text] of flags.param.map((item) => splitPair('--param', item))) {
    const input = others.find((candidate) => candidate.name === name);
    if (!input) {
      throw usage(
        files.some((candidate) => candidate.name === name)
          ? `${name} is a file. Give it with --input ${name}=FILE.`
          : `${service.id} has no parameter ${name}. Available parameters: ${list(others)}.`,
      );
    }
    values[name] = parseParameter(name, input, text);
  }
  const unsaid = others.filter((input) => !(input.name in values) && defaultValue(input) === undefined);
  if (unsaid.length > 0) {
    const how = unsaid.map(
      (input) => `--param ${input.name}=${input.type === 'fiducials' ? '"x,y,z;x,y,z" (mm, RAS)' : 'VALUE'}`,
    );
    throw usage(
      `${service.id} needs ${unsaid.map((input) => input.label ?? input.name).join(' and ')}. Give ${how.join(' ')}.`,
    );
  }

  return { mainInput, otherFiles, otherSeries, values };
}

/** The same, with the volumes that --volume names. */
export async function planInputs(
  service: Elements,
  flags: InputFlags,
  reports: ReadingReports,
): Promise<InputPlan> {
  const plan = await planOthers(service, flags, reports);
  const { otherFiles, otherSeries } = plan;
  if (flags.volume === undefined) {
    if (flags.series !== undefined) throw usage('--series chooses a series of --volume. Give --volume DIR.');
    // Results are those of the first volume, whose images they refer to.
    const inputs = service.inputs as readonly NamedInput[];
    const first = inputs.find((input) => input.type === 'volume')?.name ?? '';
    const { [first]: dicom, ...rest } = otherSeries;
    if (dicom) {
      const volumes = [{ path: dicom.resultPath, resultPath: dicom.resultPath, dicom }];
      return { ...plan, mainInput: first, otherSeries: rest, volumes, many: false };
    }
    const path = Object.values(otherFiles)[0]?.[0] ?? service.id;
    return { ...plan, volumes: [{ path, resultPath: path }], many: false };
  }
  const outputs = service.outputs.map((output) => output.name);
  return { ...plan, ...(await planVolumes(flags.volume, flags.series, outputs, reports)) };
}

/**
 * What --volume names: a file, a folder of volumes, or the series of a folder, archive or file of DICOM.
 */
export async function planVolumes(
  path: string,
  series: string | undefined,
  outputNames: readonly string[],
  reports: ReadingReports,
): Promise<Pick<InputPlan, 'volumes' | 'many'>> {
  const isFolder = (await statInput(path)).isDirectory();
  const files = isFolder ? await volumesIn(path, outputNames) : [];
  if (files.length > 0 && series === undefined) {
    if (await holdsDicom(path)) {
      throw usage(
        `${path} holds both volume files (${files.length}) and DICOM images. Choose the DICOM series with --series NUMBER, --series UID or --series all; for a volume file, name it with --volume FILE.`,
      );
    }
    return { volumes: onePerStem(files).map(plainVolume), many: true };
  }
  if (!isFolder) await mustBeFile(path);
  const kind = isFolder ? 'dicom' : await kindOfFile(path);
  const found = kind && (await openDicomVolumes(path, isFolder, series, reports));
  if (found) {
    const volumes = found.map((dicom) => ({ path, resultPath: dicom.resultPath, dicom }));
    return { volumes, many: series === 'all' };
  }
  if (series !== undefined) {
    throw usage(`--series chooses a DICOM series, and ${path} holds no DICOM image. Leave --series out.`);
  }
  if (isFolder) throw nothingIn(path);
  if (kind === 'zip') {
    throw usage(
      `${path} holds no DICOM image. Unpack the archive, and give one of the volumes in it, or the folder.`,
    );
  }
  return { volumes: [plainVolume(path)], many: false };
}

/** The DICOM series that an --input names; undefined for a file of another kind. */
async function otherSeriesOf(path: string, reports: ReadingReports): Promise<DicomVolume | undefined> {
  const isFolder = (await statInput(path)).isDirectory();
  if (!isFolder) await mustBeFile(path);
  if (!isFolder && (await kindOfFile(path)) === undefined) return undefined;
  const [found] = (await openDicomVolumes(path, isFolder, undefined, reports)) ?? [];
  if (!found && isFolder)
    throw usage(`${path} holds no DICOM image. Give a file, or the folder of one series.`);
  return found;
}

const plainVolume = (path: string): PlannedVolume => ({ path, resultPath: path });

/** So many files beside volumes are looked at. */
const mostLookedAt = 1000;

/** Whether DICOM images lie in a folder, beside its volumes. */
export async function holdsDicom(folder: string): Promise<boolean> {
  const entries = await readdir(folder, { withFileTypes: true });
  const others = entries.filter(
    (entry) => entry.isFile() && !entry.name.startsWith('.') && endingOf(entry.name) === undefined,
  );
  for (const { name } of others.slice(0, mostLookedAt))
    if ((await kindOfFile(join(folder, name))) === 'dicom') return true;
  return false;
}

/** Two volumes of one stem (a.nii, a.mha) would write the same result. */
function onePerStem(paths: readonly string[]): readonly string[] {
  const seen = new Map<string, string>();
  for (const path of paths) {
    const other = seen.get(stemOf(path));
    if (other)
      throw usage(
        `${other} and ${path} would give results with the same name. Rename one, or predict them one by one.`,
      );
    seen.set(stemOf(path), path);
  }
  return paths;
}

function splitPair(flag: '--input' | '--param', text: string): [string, string] {
  const at = text.indexOf('=');
  if (at < 1)
    throw usage(`${flag} ${text} lacks a “=”. Write ${flag} NAME=${flag === '--param' ? 'VALUE' : 'FILE'}.`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function usage(message: string): TomaatError {
  return new TomaatError('BAD_INPUT', message);
}
