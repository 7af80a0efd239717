import { hasOwnNetworks, type Manifest, primaryOutput, requestWords, volumeInputs } from './manifest.ts';
import {
  type CrossFault,
  canMeet,
  checkDecisions,
  checkMergedLabels,
  checkMerging,
  checkModel,
  checkSources,
  placeIn,
  within,
} from './model-checks.ts';
import { checkConditions, checkSteps } from './steps.ts';
import { checkSuvOrder } from './suv-inputs.ts';
import { parseParameters } from './values.ts';

type Keys =
  | 'inputs'
  | 'outputs'
  | 'preprocess'
  | 'postprocess'
  | 'model'
  | 'labels'
  | 'acceptance'
  | 'compute'
  | 'devices'
  | 'selftest';

interface Check<K extends Keys = Keys> {
  /** The keys that must be valid before this check can run. */
  needs: readonly K[];
  find(manifest: Pick<Manifest, K>): CrossFault[];
}

/** Checks an entry's type against its own list of keys. */
const check = <K extends Keys>(needs: readonly K[], find: (manifest: Pick<Manifest, K>) => CrossFault[]) =>
  ({ needs, find }) as unknown as Check;

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
  check(['inputs', 'model'], ({ inputs, model }) =>
    model.flatMap((spec, index) => within(placeIn(model, index), checkModel(spec, inputs))),
  ),
  check(['compute', 'model'], ({ compute, model }) => {
    const other = model.find(({ runtime }) => runtime !== 'onnx');
    if (compute === 'server' || !other) return [];
    return [
      {
        path: ['compute'],
        message: `${compute} needs networks in ONNX files, and a model has the runtime ${other.runtime}. Write server, or remove this key`,
      },
    ];
  }),
  check(['devices', 'model'], ({ devices, model }) =>
    devices === undefined || hasOwnNetworks({ model })
      ? []
      : [
          {
            path: ['devices'],
            message: 'is about networks of the runtime onnx, and this app has none. Remove it',
          },
        ],
  ),
  check(['model', 'postprocess'], checkDecisions),
  check(['model'], checkSources),
  check(['model', 'postprocess'], checkMerging),
  check(['inputs', 'preprocess', 'model', 'postprocess', 'labels'], checkMergedLabels),
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

export type { CrossFault } from './model-checks.ts';

/** What is wrong with the keys of a manifest against each other; a check is skipped if one of its keys is missing. */
export function crossFaults(manifest: Partial<Manifest>): CrossFault[] {
  return checks.flatMap(({ needs, find }) =>
    needs.every((key) => manifest[key] !== undefined) ? find(manifest as Manifest) : [],
  );
}
