import type { Service } from '@tomaat/client';
import {
  defaultValue,
  type Input,
  isFileInput,
  type Parameter,
  parseParameter,
  TomaatError,
} from '@tomaat/core';
import { mustBeFile, statInput, stemOf, volumesIn } from './input-files.ts';

/** The flags of `predict` and `run` for inputs. */
export interface InputFlags {
  volume?: string;
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
  /** Only the given ones: the service knows the defaults. */
  readonly values: Readonly<Record<string, Parameter>>;
  /** Predicted one after the other; more than one if --volume is a folder. */
  readonly paths: readonly string[];
  readonly many: boolean;
}

/** The part of a service, or of an app that is run without a server, that inputs and outputs are checked against. */
export type Elements = Pick<Service, 'id' | 'inputs' | 'outputs'>;
type NamedInput = Input & { name: string };

/** Checks the flags against what the service takes, before anything is sent. BAD_INPUT says what would be valid. */
export async function planInputs(service: Elements, flags: InputFlags): Promise<InputPlan> {
  const inputs = service.inputs as readonly NamedInput[];
  const files = inputs.filter(isFileInput);
  const others = inputs.filter((input) => !isFileInput(input));
  const list = (named: readonly NamedInput[]) => named.map((input) => input.name).join(', ') || 'none';

  const otherFiles: Record<string, string[]> = {};
  for (const [name, path] of flags.input.map((text) => splitPair('--input', text))) {
    if (!files.some((input) => input.name === name)) {
      const isOther = others.some((input) => input.name === name);
      throw usage(
        isOther
          ? `${name} is not a file. Give it with --param ${name}=VALUE.`
          : `${service.id} has no input ${name}. Available files: ${list(files)}.`,
      );
    }
    await mustBeFile(path);
    (otherFiles[name] ??= []).push(path);
  }
  const mainInput = files.find((input) => input.type === 'volume' && !(input.name in otherFiles))?.name;
  if (flags.volume !== undefined && mainInput === undefined) {
    throw usage(
      flags.input.length > 0
        ? `--volume is not needed: --input already gives every volume of ${service.id}.`
        : `${service.id} takes no volume. Available inputs: ${list(inputs)}.`,
    );
  }
  const given = new Set([...Object.keys(otherFiles), ...(flags.volume !== undefined ? [mainInput] : [])]);
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

  const plan = { mainInput, otherFiles, values };
  if (flags.volume === undefined)
    return { ...plan, paths: [Object.values(otherFiles)[0]?.[0] ?? service.id], many: false };
  if (!(await statInput(flags.volume)).isDirectory()) return { ...plan, paths: [flags.volume], many: false };
  const outputs = service.outputs.map((output) => output.name);
  return { ...plan, paths: onePerStem(await volumesIn(flags.volume, outputs)), many: true };
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
