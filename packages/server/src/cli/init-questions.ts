import { hasUnseen, manifestSchema, TomaatError } from '@tomaat/core';
import type { NetworkShape } from './network-shape.ts';
import type { ManifestAnswers } from './new-manifest.ts';

/** The flags of `tomaat init` that answer its questions. */
export interface AnswerFlags {
  id?: string;
  title?: string;
  task?: string;
  anatomy?: string;
  modality?: string;
  licence?: string;
  author?: string;
  channels?: string;
  orientation?: string;
  spacing?: string;
  inferer?: string;
  roiSize?: string;
  axis?: string;
  classes?: number;
  labels?: string;
}

/** Asks the user on a terminal; the answer is empty where only Enter was pressed. */
export type Ask = (question: string) => Promise<string>;

interface Question<T> {
  readonly flag: string;
  readonly text: string;
  /** What Enter means, and what holds without a terminal; a question without it must be answered. */
  readonly proposal?: string;
  /** Throws BAD_INPUT, which names the flag. */
  read(text: string): T;
}

/**
 * The answers to what a network's file does not say: from flags, otherwise asked for, otherwise as proposed.
 * @param ask missing if there is no terminal
 * @throws {TomaatError} BAD_INPUT, which lists every flag that is missing
 */
export async function answersFor(
  shape: NetworkShape,
  flags: AnswerFlags,
  proposed: { id: string },
  ask?: Ask,
): Promise<ManifestAnswers> {
  const missing: string[] = [];
  async function answer<T>(question: Question<T>, given: string | undefined): Promise<T> {
    if (given !== undefined) return question.read(given);
    const { proposal } = question;
    for (let fault = ''; ; ) {
      const said =
        (await ask?.(`${fault}${question.text}${proposal ? ` [${proposal}]` : ''}: `))?.trim() || proposal;
      if (said === undefined && !ask) {
        missing.push(`${question.flag} (${lowerFirst(question.text)})`);
        return undefined as T;
      }
      try {
        if (said !== undefined) return question.read(said);
        fault = '';
      } catch (error) {
        if (!ask || !(error instanceof TomaatError)) throw error;
        fault = `  ${error.message}\n`;
      }
    }
  }
  const labelCount = countLabels(shape, flags);
  const task = await answer(text('task', 'Task', 'segmentation'), flags.task);
  const anatomy = await answer(text('anatomy', 'Anatomy, such as prostate'), flags.anatomy);
  const modality = await answer(text('modality', 'Modality, such as MRI or CT'), flags.modality);
  const licence = await answer(text('licence', 'Licence of the weights, such as CC-BY-4.0'), flags.licence);
  const author = await answer(text('author', 'Author'), flags.author);
  const channels = await askChannels(shape, flags, answer);
  const orientation = await answer(orientationQuestion, flags.orientation);
  const spacing = await answer(spacingQuestion, flags.spacing);
  const fixed = !shape.isFlat && shape.size.every((n) => n !== null);
  const inferer = shape.isFlat
    ? 'simple'
    : await answer(
        { ...infererQuestion, proposal: fixed ? 'simple' : 'slidingWindow' },
        // Whole volumes of any size are rare: a network of free size is asked for its patches only.
        flags.inferer ?? (fixed ? undefined : 'slidingWindow'),
      );
  const roiSize =
    !shape.isFlat && inferer === 'slidingWindow'
      ? await askRoiSize(shape, flags, answer)
      : shape.size.map((n) => n ?? 1);
  const axis = shape.isFlat ? await answer(axisQuestion, flags.axis) : 'z';
  const labels = await answer(labelsQuestion(labelCount), flags.labels);
  const id = text('id', 'Id').read(flags.id ?? proposed.id);
  if (missing.length > 0) {
    throw new TomaatError(
      'BAD_INPUT',
      `The file of a network does not say everything. Give also:\n${missing.join('\n')}`,
      { detail: { missing } },
    );
  }
  const name = text('name', 'Name').read(flags.title ?? `${upperFirst(anatomy)} on ${modality}`);
  const answers = { id, name, task, anatomy, modality, licence, author, channels, labels };
  return { ...answers, orientation, spacing, inferer, roiSize, axis };
}

type Answer = <T>(question: Question<T>, given: string | undefined) => Promise<T>;

const lowerFirst = (word: string) => word.slice(0, 1).toLowerCase() + word.slice(1);
const upperFirst = (word: string) => word.slice(0, 1).toUpperCase() + word.slice(1);

const usage = (flag: string, message: string) =>
  new TomaatError('BAD_INPUT', message, { field: flag.replace('--', '') });

const manifestKeys = {
  id: 'id',
  name: 'name',
  task: 'task',
  anatomy: 'anatomy',
  modality: 'modality',
  licence: 'licence',
} as const;
const flagOf: Record<string, string> = { name: '--title' };

/** A text that one key of the manifest takes. */
function text(
  key: keyof typeof manifestKeys | 'author',
  question: string,
  proposal?: string,
): Question<string> {
  const flag = flagOf[key] ?? `--${key}`;
  return {
    flag,
    text: question,
    proposal,
    read(given) {
      const schema = key === 'author' ? manifestSchema.shape.name : manifestSchema.shape[manifestKeys[key]];
      const result = schema.safeParse(given);
      const fault = hasUnseen(given) ? 'has invisible characters' : result.error?.issues[0].message;
      if (fault === undefined) return given;
      throw usage(flag, `${flag} ${given}: ${fault}. Give another one.`);
    },
  };
}

const listOf = (given: string): string[] => given.split(',').map((item) => item.trim());

function askChannels(shape: NetworkShape, flags: AnswerFlags, answer: Answer): Promise<readonly string[]> {
  const { components } = shape;
  const count = components ?? (flags.channels === undefined ? 1 : listOf(flags.channels).length);
  if (count === 1 && flags.channels === undefined) return Promise.resolve(['volume']);
  const proposal = Array.from({ length: count }, (_, i) => `channel${i + 1}`).join(',');
  const question: Question<readonly string[]> = {
    flag: '--channels',
    text: `Names of the ${count} volumes that are its channels, in order`,
    proposal,
    read(given) {
      const names = listOf(given);
      if (names.length !== count) {
        throw usage(
          '--channels',
          `--channels names ${names.length} ${names.length === 1 ? 'volume' : 'volumes'}, and the network takes ${count}. Name each, separated by commas.`,
        );
      }
      const bad = names.find((name) => !/^[a-z][a-zA-Z0-9]{0,39}$/.test(name));
      if (bad !== undefined) {
        throw usage(
          '--channels',
          `--channels: ${bad} is not a name of an input. Use letters and digits, the first a lower-case letter, such as t1.`,
        );
      }
      if (new Set(names).size < count)
        throw usage('--channels', '--channels has a name twice. Give each volume its own.');
      return names;
    },
  };
  return answer(question, flags.channels);
}

const orientationQuestion: Question<string> = {
  flag: '--orientation',
  text: 'Orientation of the axes in training, such as RAS, or “stored” if images were not reoriented',
  proposal: 'RAS',
  read(given) {
    if (given === 'stored') return given;
    const letters = [...given.toUpperCase()];
    const axes = letters.map((letter) => ['RL', 'AP', 'SI'].findIndex((pair) => pair.includes(letter)));
    if (letters.length === 3 && !axes.includes(-1) && new Set(axes).size === 3) return letters.join('');
    throw usage(
      '--orientation',
      `--orientation ${given} is not an orientation. Give three letters, one of R and L, one of A and P, one of S and I, or “stored”.`,
    );
  },
};

const spacingQuestion: Question<readonly [number, number, number] | undefined> = {
  flag: '--spacing',
  text: 'Spacing in training, mm along x,y,z such as 1,1,3, or “stored” if images were not resampled',
  read(given) {
    if (given === 'stored') return undefined;
    const numbers = listOf(given).map((word) => (word === '' ? Number.NaN : Number(word)));
    const [x, y = x, z = x] = numbers;
    const isOne = numbers.length === 1 || numbers.length === 3;
    if (isOne && [x, y, z].every((mm) => mm > 0 && mm <= 1000)) return [x, y, z];
    throw usage(
      '--spacing',
      `--spacing ${given} is not a spacing. Give mm along x, y and z, such as 1,1,3, or “stored”.`,
    );
  },
};

const infererQuestion: Question<'simple' | 'slidingWindow'> = {
  flag: '--inferer',
  text: 'Trained on whole volumes (simple) or on patches (slidingWindow)',
  read(given) {
    if (given === 'simple' || given === 'slidingWindow') return given;
    throw usage('--inferer', `--inferer ${given} is not one of simple, slidingWindow.`);
  },
};

/** The patches of many networks for 3-D images. */
const usualPatch = 96;

function askRoiSize(shape: NetworkShape, flags: AnswerFlags, answer: Answer): Promise<readonly number[]> {
  const { size } = shape;
  if (size.every((n) => n !== null) && flags.roiSize === undefined) return Promise.resolve(size);
  const question: Question<readonly number[]> = {
    flag: '--roi-size',
    text: 'Size of the patches in training, voxels along x,y,z',
    proposal: size.map((n) => n ?? usualPatch).join(','),
    read(given) {
      const numbers = listOf(given).map((word) => (word === '' ? Number.NaN : Number(word)));
      const all = numbers.length === 1 ? [numbers[0], numbers[0], numbers[0]] : numbers;
      if (all.length !== 3 || !all.every((n) => Number.isInteger(n) && n >= 1 && n <= 4096)) {
        throw usage(
          '--roi-size',
          `--roi-size ${given} is not a size. Give voxels along x, y and z, such as 96,96,64.`,
        );
      }
      const other = all.findIndex((n, axis) => size[axis] !== null && size[axis] !== n);
      if (other < 0) return all;
      throw usage(
        '--roi-size',
        `--roi-size ${given}: the network takes ${size[other]} voxels along ${'xyz'[other]} only. Correct it.`,
      );
    },
  };
  return answer(question, flags.roiSize);
}

const axisQuestion: Question<'x' | 'y' | 'z'> = {
  flag: '--axis',
  text: 'Axis that its slices lie across, after the orientation: x, y or z',
  proposal: 'z',
  read(given) {
    if (given === 'x' || given === 'y' || given === 'z') return given;
    throw usage('--axis', `--axis ${given} is not one of x, y, z.`);
  },
};

/** How many labels the network gives, apart from the background. */
function countLabels({ classes, givesLabels, operator }: NetworkShape, flags: AnswerFlags): number {
  const named = flags.labels === undefined ? undefined : listOf(flags.labels).length;
  const labelsOf = (n: number) => (n === 1 || operator === 'Sigmoid' ? n : n - 1);
  if (classes !== null) {
    if (flags.classes !== undefined && flags.classes !== classes)
      throw usage('--classes', `--classes ${flags.classes}: the network gives ${classes}. Leave it out.`);
    return labelsOf(classes);
  }
  if (flags.classes !== undefined && flags.classes >= 2)
    return givesLabels ? flags.classes - 1 : labelsOf(flags.classes);
  if (named !== undefined) return named;
  throw usage(
    '--classes',
    givesLabels
      ? 'The network gives label values, and its file does not say how many. Give --classes N, the background included, or --labels with their names.'
      : 'The file of the network does not say how many classes it gives. Give --classes N, the background included, or --labels with their names.',
  );
}

function labelsQuestion(count: number): Question<readonly string[]> {
  return {
    flag: '--labels',
    text: `${count === 1 ? 'Name of the label' : `Names of the ${count} labels, separated by commas`}`,
    proposal:
      count > 3
        ? `label 1,…,label ${count}`
        : Array.from({ length: count }, (_, i) => `label ${i + 1}`).join(','),
    read(given) {
      if (given === this.proposal) return Array.from({ length: count }, (_, i) => `label ${i + 1}`);
      const names = listOf(given);
      if (names.length !== count) {
        throw usage(
          '--labels',
          `--labels has ${names.length} ${names.length === 1 ? 'name' : 'names'}, and the network gives ${count} ${count === 1 ? 'label' : 'labels'} without the background. Name each, separated by commas.`,
        );
      }
      const bad = names.find((name) => name === '' || name.length > 100 || hasUnseen(name));
      if (bad === undefined) return names;
      throw usage(
        '--labels',
        `--labels: “${bad.slice(0, 100)}” is not a name. Give 1 to 100 visible characters.`,
      );
    },
  };
}
