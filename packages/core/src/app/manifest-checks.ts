import type { Label } from './elements.ts';
import { isNetworkSpec, type Manifest, primaryOutput, requestWords, volumeInputs } from './manifest.ts';
import { activationOf, checkConditions, checkSteps, isScoreStep } from './steps.ts';
import { checkSuvOrder } from './suv-inputs.ts';
import { parseParameters } from './values.ts';

/** A fault of one key of a manifest against another. */
export interface CrossFault {
  path: (string | number)[];
  message: string;
}

type Keys =
  | 'inputs'
  | 'outputs'
  | 'preprocess'
  | 'postprocess'
  | 'model'
  | 'labels'
  | 'acceptance'
  | 'selftest';

interface Check<K extends Keys = Keys> {
  /** The keys that must be valid before this check can run. */
  needs: readonly K[];
  find(manifest: Pick<Manifest, K>): CrossFault[];
}

/** Checks an entry's type against its own list of keys. */
const check = <K extends Keys>(needs: readonly K[], find: (manifest: Pick<Manifest, K>) => CrossFault[]) =>
  ({ needs, find }) as unknown as Check;

const isRestore = ({ name }: { name: string }) => name === 'restore';
const within = (path: (string | number)[], faults: readonly CrossFault[]): CrossFault[] =>
  faults.map((fault) => ({ ...fault, path: [...path, ...fault.path] }));

const checks: readonly Check[] = [
  check(['inputs', 'preprocess'], ({ inputs, preprocess }) =>
    within(['preprocess'], [...checkSteps(preprocess, 'preprocess', inputs), ...checkSuvOrder(preprocess)]),
  ),
  check(['inputs'], ({ inputs }) =>
    Object.entries(inputs).flatMap(([name, input]) => {
      const steps = 'preprocess' in input ? (input.preprocess ?? []) : [];
      return within(
        ['inputs', name, 'preprocess'],
        [...checkSteps(steps, 'preprocess', inputs), ...checkSuvOrder(steps)],
      );
    }),
  ),
  check(['inputs', 'postprocess'], ({ inputs, postprocess }) =>
    within(['postprocess'], checkSteps(postprocess, 'postprocess', inputs)),
  ),
  check(['outputs'], ({ outputs }) =>
    Object.keys(outputs).length > 0 ? [] : [{ path: ['outputs'], message: 'an app has at least one output' }],
  ),
  check(['inputs', 'model'], ({ inputs, model }) => {
    const volumes = volumeInputs({ inputs });
    return model.flatMap((spec, index) => {
      const at = model.length > 1 ? ['model', index] : ['model'];
      const faults = within(at, checkConditions(spec.when, inputs));
      if (!isNetworkSpec(spec)) return faults;
      if (volumes.length === 0)
        faults.push({ path: ['inputs'], message: `the runtime ${spec.runtime} needs a volume` });
      for (const name of spec.channels ?? []) {
        if (!volumes.includes(name))
          faults.push({ path: [...at, 'channels'], message: `${name} is not a volume input` });
      }
      return faults;
    });
  }),
  check(['model', 'postprocess'], ({ model, postprocess }) => {
    const scores = postprocess.filter(isScoreStep);
    const probabilities = postprocess.filter(activationOf);
    const faults: CrossFault[] = [];
    const [first] = [...probabilities, ...scores];
    if (first && !model.every(isNetworkSpec)) {
      const message = `${first.name} needs the class scores of a network (runtime: onnx or oip)`;
      faults.push({ path: ['postprocess'], message });
    }
    if (scores.length > 1)
      faults.push({ path: ['postprocess'], message: 'argmax, threshold or compose comes once' });
    if (probabilities.length > 1)
      faults.push({ path: ['postprocess'], message: 'softmax or sigmoid comes once' });
    const [decided, restored] = [isScoreStep, isRestore].map((is) => postprocess.findIndex(is));
    for (const step of probabilities) {
      const index = postprocess.indexOf(step);
      const late = [decided, restored].some((at) => at >= 0 && at < index);
      const message = late
        ? `${step.name} comes before restore, argmax, threshold and compose. Move it to the front, or leave it out`
        : `${step.name} needs argmax, threshold or compose after it. Add one of them, or leave it out`;
      if (late || decided < 0) faults.push({ path: ['postprocess', index], message });
    }
    if (postprocess.filter(isRestore).length > 1)
      faults.push({ path: ['postprocess'], message: 'restore comes once' });
    return faults;
  }),
  check(['inputs', 'outputs'], ({ inputs, outputs }) =>
    Object.keys(outputs)
      .filter((name) => Object.hasOwn(inputs, name))
      .map((name) => ({ path: ['outputs', name], message: 'has the name of an input' })),
  ),
  check(['outputs'], ({ outputs }) =>
    Object.entries(outputs).flatMap(([name, output]) => {
      const from = 'from' in output ? output.from : undefined;
      if (from === undefined || outputs[from]?.type === 'LabelVolume') return [];
      return [{ path: ['outputs', name, 'from'], message: `${from} is not an output of type LabelVolume` }];
    }),
  ),
  check(['inputs', 'labels'], ({ inputs, labels }) =>
    labels.flatMap(({ when }, index) => within(['labels', index], checkConditions(when, inputs))),
  ),
  check(['labels'], ({ labels }) =>
    labels.flatMap((label, index) => {
      const before = labels.slice(0, index).filter(({ value }) => value === label.value);
      if (!before.some((other) => canMeet(other, label))) return [];
      return [{ path: ['labels', index, 'value'], message: `${label.value} occurs twice` }];
    }),
  ),
  check(['inputs', 'acceptance'], ({ inputs, acceptance }) =>
    acceptance.flatMap(({ input }, index) =>
      input === undefined || volumeInputs({ inputs }).includes(input)
        ? []
        : [{ path: ['acceptance', index, 'input'], message: `${input} is not a volume input` }],
    ),
  ),
  check(['inputs'], ({ inputs }) =>
    Object.keys(inputs)
      .filter((name) => (requestWords as readonly string[]).includes(name))
      .map((name) => ({
        path: ['inputs', name],
        message: `is a word of requests (${requestWords.join(', ')}). Choose another name`,
      })),
  ),
  check(['outputs', 'selftest'], ({ outputs, selftest }) =>
    selftest && outputs[primaryOutput({ outputs })]?.type !== 'LabelVolume'
      ? [{ path: ['selftest'], message: 'needs a primary output of type LabelVolume' }]
      : [],
  ),
  check(['inputs', 'selftest'], ({ inputs, selftest }) => {
    return (selftest ?? []).flatMap((test, index) => {
      const at = selftest!.length > 1 ? ['selftest', index] : ['selftest'];
      const faults: CrossFault[] = Object.keys(test.inputs)
        .filter((name) => !Object.hasOwn(inputs, name))
        .map((name) => ({ path: [...at, 'inputs', name], message: 'names no input' }));
      try {
        parseParameters(inputs, test.parameters);
      } catch (error) {
        faults.push({ path: [...at, 'parameters'], message: (error as Error).message });
      }
      return faults;
    });
  }),
];

/** What is wrong with the keys of a manifest against each other; a check is skipped if one of its keys is missing. */
export function crossFaults(manifest: Partial<Manifest>): CrossFault[] {
  return checks.flatMap(({ needs, find }) =>
    needs.every((key) => manifest[key] !== undefined) ? find(manifest as Manifest) : [],
  );
}

/** Whether both labels count with some values of the parameters: no parameter keeps them apart. */
function canMeet(a: Label, b: Label): boolean {
  return Object.entries(a.when ?? {}).every(([name, value]) => (b.when?.[name] ?? value) === value);
}
