import { describeParity, formatAgreement, type Verdict } from '@tomaat/core';
import type { Proof, ProvenCase } from './prove.ts';

/*
 * The proof as files of the app's folder: parity.json for programs, parity.md for people.
 */

/** The text of `parity.json`. */
export function formatProofJson(proof: Proof): string {
  return `${JSON.stringify(proof, null, 2)}\n`;
}

const meanings: Record<Verdict, string> = {
  exact: 'no voxel differs',
  'within noise': 'equal up to the rounding of the author’s own pipeline',
  close: 'at least 99.9 % of the voxels, and a Dice of at least 0.99 for each label of 1000 voxels or more',
  differs: 'more differs',
};

/** The text of `parity.md`. */
export function formatProofMarkdown({ app, parity, cases, warnings }: Proof): string {
  const versions = Object.entries(parity.versions ?? {}).map(([name, version]) => `${name} ${version}`);
  const author = versions.length > 0 ? ` The author’s results were made with ${versions.join(', ')}.` : '';
  return [
    `# Agreement of ${inLine(app.name)} ${inLine(app.version)} with its author’s pipeline`,
    describeParity(parity),
    `Compared voxel by voxel by ${inLine(parity.tool)}.${inLine(author, ' ')}`,
    ...(warnings.length > 0 ? [listOf(warnings)] : []),
    tableOf(
      ['case', 'verdict', 'voxels', 'differ', 'agree', 'author’s own noise', 'seconds'],
      cases.map((one) => [
        inLine(one.name),
        verdictOf(one),
        String(one.voxels),
        String(one.differ),
        formatAgreement(one.agree),
        one.noise === undefined ? '' : String(one.noise),
        one.seconds.toFixed(1),
      ]),
    ),
    ...cases.flatMap(sectionsOf),
    `Verdicts: ${Object.entries(meanings)
      .map(([verdict, meaning]) => `**${verdict}**, ${meaning}`)
      .join('; ')}. Labels with fewer than 1000 voxels are listed, not judged.`,
  ]
    .join('\n\n')
    .concat('\n');
}

/** The verdict on a case, as a word. */
export const verdictOf = ({ verdict, labels }: Pick<ProvenCase, 'verdict' | 'labels'>): string =>
  labels.length === 0 ? 'not counted' : verdict;

function sectionsOf({ name, labels, where, bisection, warnings }: ProvenCase): string[] {
  const sections = [`## Case ${inLine(name)}`];
  const notes = [...warnings, ...where];
  if (notes.length > 0) sections.push(listOf(notes));
  if (labels.length > 0)
    sections.push(
      tableOf(
        ['label', 'Dice', 'voxels of the author', 'voxels here', 'judged'],
        labels.map(({ value, dice, expected, found, judged }) => [
          String(value),
          // Rounded down: 1 says that no voxel of the label differs.
          (Math.floor(dice * 1e6 + 1e-6) / 1e6).toString(),
          String(expected),
          String(found),
          judged ? 'yes' : 'no',
        ]),
      ),
    );
  if (bisection) {
    const { first, stages } = bisection;
    sections.push(
      first === undefined ? 'No stage differs.' : `The first stage that differs: \`${first}\`.`,
      tableOf(
        ['stage', 'of the author', 'agrees', 'what differs'],
        stages.map(({ stage, source, agrees, detail }) => [
          `\`${stage}\``,
          inLine(source ?? ''),
          agrees ? 'yes' : 'NO',
          inLine(detail),
        ]),
      ),
    );
  }
  return sections;
}

/** Text that others wrote (names of cases, versions) in one line of Markdown, without markup. */
function inLine(text: string, start = ''): string {
  const line = text
    .replaceAll(/\s+/g, ' ')
    .trim()
    .replaceAll(/[\\`*_|<>[\]]/g, (mark) => `\\${mark}`);
  return line === '' ? '' : start + line;
}

const listOf = (lines: readonly string[]): string => lines.map((line) => `- ${inLine(line)}`).join('\n');

/** A table of cells that are Markdown already. */
function tableOf(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), `|${' --- |'.repeat(head.length)}`, ...rows.map(line)].join('\n');
}
