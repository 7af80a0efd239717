import { TomaatError } from '../errors.ts';
import type { SpatialTransform } from '../formats/transform-file.ts';
import type { Vec3 } from '../geometry/affine.ts';
import type { LabelMeasurement } from '../labels/measure.ts';
import type { Mesh } from '../labels/surface.ts';
import type { NumericVoxels, Volume } from '../volume.ts';
import type { InputType, OutputType } from './elements.ts';
import type { Manifest } from './manifest.ts';
import type { AppContext } from './predict.ts';

/*
 * Apps in TypeScript: the elements that an app declares determine the types of its function's arguments. The manifest remains
 * the only description of the service, so a declaration that contradicts it is refused when the app is loaded.
 */

/** An input as an app declares it: its type, and of the manifest's other fields what the app relies on. */
export type DeclaredInput =
  | { readonly type: Exclude<InputType, 'radiobutton'>; readonly [field: string]: unknown }
  | { readonly type: 'radiobutton'; readonly options: readonly string[]; readonly [field: string]: unknown };
export type DeclaredInputs = Readonly<Record<string, DeclaredInput>>;

/** An output as an app declares it. */
export interface DeclaredOutput {
  readonly type: OutputType;
  readonly [field: string]: unknown;
}
export type DeclaredOutputs = Readonly<Record<string, DeclaredOutput>>;

/** A volume as passed to modules: 64-bit integers have become float64, so every voxel is a number. */
export interface NumericVolume extends Volume {
  readonly voxels: NumericVoxels;
}

interface InputTypes {
  volume: NumericVolume;
  slider: number;
  checkbox: boolean;
  fiducials: readonly Vec3[];
  transform: SpatialTransform;
}

interface OutputTypes {
  LabelVolume: Volume;
  VTKMesh: Mesh;
  Fiducials: readonly Vec3[];
  PlainText: string;
  Measurements: readonly LabelMeasurement[];
  TransformGrid: SpatialTransform;
  TransformBSpline: SpatialTransform;
  TransformLinear: SpatialTransform;
}

type FileInput = 'volume' | 'transform';

/** The value of a declared input: a radiobutton is one of its options, a file that is optional may be undefined. */
export type InputOf<I extends DeclaredInput> = I extends {
  type: 'radiobutton';
  options: infer Options extends readonly string[];
}
  ? Options[number]
  : I extends { type: infer T extends keyof InputTypes }
    ? I extends { optional: true; type: FileInput }
      ? InputTypes[T] | undefined
      : InputTypes[T]
    : never;

/** The arguments of an app, by the names of its inputs. Volumes and points are RAS+ mm. */
export type InputsOf<Inputs extends DeclaredInputs> = {
  readonly [Name in keyof Inputs]: InputOf<Inputs[Name]>;
};

/** Those that are not files. */
export type ParametersOf<Inputs extends DeclaredInputs> = {
  readonly [Name in keyof Inputs as Inputs[Name]['type'] extends FileInput ? never : Name]: InputOf<
    Inputs[Name]
  >;
};

/** Outputs that TOMAAT can derive from a label map if the app does not return them. */
const derivedOutputs = ['VTKMesh', 'Fiducials', 'PlainText', 'Measurements'] as const satisfies OutputType[];
type DerivedOutput = (typeof derivedOutputs)[number];

/** What an app returns: its label maps and transforms, and those of the other outputs that are not made from a label map. */
export type OutputsOf<Outputs extends DeclaredOutputs> = {
  [Name in keyof Outputs as Outputs[Name]['type'] extends DerivedOutput
    ? never
    : Name]: OutputTypes[Outputs[Name]['type']];
} & {
  [Name in keyof Outputs as Outputs[Name]['type'] extends DerivedOutput
    ? Name
    : never]?: OutputTypes[Outputs[Name]['type']];
};

/** The app's view of the current prediction. */
export interface TypedContext<Inputs extends DeclaredInputs> extends Omit<AppContext, 'parameters'> {
  readonly parameters: ParametersOf<Inputs>;
}

export interface AppDefinition<Inputs extends DeclaredInputs, Outputs extends DeclaredOutputs> {
  /** The inputs of tomaat.yaml, by name. Each given field must be the same there. */
  readonly inputs: Inputs;
  /** The outputs of tomaat.yaml, by name; those that TOMAAT makes from a label map may be left out. */
  readonly outputs: Outputs;
  infer(
    inputs: InputsOf<Inputs>,
    context: TypedContext<Inputs>,
  ): OutputsOf<Outputs> | Promise<OutputsOf<Outputs>>;
}

/**
 * An app of the runtime `module`, for `export default`: declares the inputs and outputs of its tomaat.yaml, and `infer` is typed by
 * them. When the app is loaded, both are compared with the manifest (see `checkDeclaration`).
 */
export function defineApp<const Inputs extends DeclaredInputs, const Outputs extends DeclaredOutputs>(
  definition: AppDefinition<Inputs, Outputs>,
): AppDefinition<Inputs, Outputs> {
  return definition;
}

/**
 * Compares what a module declares with the manifest of its app: every input and output is declared (but for what TOMAAT makes from a
 * label map), there are no others, and every field that is given is the same, with the manifest's defaults filled in.
 * @throws {TomaatError} BAD_MANIFEST, which lists every difference
 */
export function checkDeclaration(
  file: string,
  declared: { inputs?: unknown; outputs?: unknown },
  manifest: Pick<Manifest, 'inputs' | 'outputs'>,
): void {
  const faults = (['inputs', 'outputs'] as const).flatMap((group) =>
    declared[group] === undefined ? [] : differences(group, declared[group], manifest[group]),
  );
  if (faults.length === 0) return;
  throw new TomaatError(
    'BAD_MANIFEST',
    `${file} and tomaat.yaml describe different apps:\n${faults.map((fault) => `  ${fault}`).join('\n')}\nMake defineApp() in ${file} and tomaat.yaml agree.`,
    { field: 'model.file' },
  );
}

function differences(
  group: string,
  declared: unknown,
  stated: Readonly<Record<string, { type: string }>>,
): string[] {
  if (!isRecord(declared)) return [`${group}: defineApp() takes an object by name`];
  const faults: string[] = [];
  const mayMiss: readonly string[] = derivedOutputs;
  for (const [name, { type }] of Object.entries(stated))
    if (!Object.hasOwn(declared, name) && !mayMiss.includes(type))
      faults.push(`${group}.${name} is only in tomaat.yaml`);
  for (const [name, fields] of Object.entries(declared)) {
    if (!Object.hasOwn(stated, name)) {
      faults.push(`${group}.${name} is only in defineApp()`);
      continue;
    }
    if (!isRecord(fields)) {
      faults.push(`${group}.${name}: defineApp() takes an object with a type`);
      continue;
    }
    const known: Record<string, unknown> = stated[name];
    for (const field of new Set(['type', ...Object.keys(fields)])) {
      const [own, other] = [JSON.stringify(fields[field]), JSON.stringify(known[field])];
      if (own !== other)
        faults.push(
          `${group}.${name}.${field} is ${own ?? 'missing'} in defineApp(), ${other ?? 'missing'} in tomaat.yaml`,
        );
    }
    // Without it the app's types would assume that the file is always sent.
    if (known.optional === true && fields.optional === undefined)
      faults.push(`${group}.${name}.optional is missing in defineApp(), true in tomaat.yaml`);
  }
  return faults;
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
