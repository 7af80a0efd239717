/** A label as ITK-SNAP knows it. */
interface SnapLabel {
  readonly value: number;
  readonly name: string;
  /** `#rrggbb` */
  readonly color: string;
}

/** ITK-SNAP keeps labels in 16 bits, and refuses a file with others. */
const largestLabel = 65_535;

/**
 * The label description file of ITK-SNAP: index, red, green, blue (0 to 255), opacity, visibility in slices and in 3-D, name
 * in quotation marks. As `ColorLabelTable::SaveToFile()` of ITK-SNAP writes it.
 */
export function labelDescriptions(labels: readonly SnapLabel[]): string {
  const rows = labels
    .filter(({ value }) => Number.isInteger(value) && value > 0 && value <= largestLabel)
    .map(({ value, name, color }) => row(value, channelsOf(color), 1, nameIn(name) || `label ${value}`));
  return [
    '################################################',
    '# ITK-SnAP Label Description File',
    '# File format:',
    '# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL',
    '################################################',
    row(0, [0, 0, 0], 0, 'Clear Label'),
    ...rows,
    '',
  ].join('\n');
}

function row(value: number, channels: readonly number[], shown: 0 | 1, name: string): string {
  const [red, green, blue] = channels.map((channel) => String(channel).padStart(3));
  return `${String(value).padStart(5)}   ${red}  ${green}  ${blue}        ${shown}  ${shown}  ${shown}    "${name}"`;
}

/** The name ends at the first quotation mark, and the row at the end of the line. */
const nameIn = (name: string): string =>
  name
    .replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ')
    .replaceAll('"', '’')
    .trim();

const channelsOf = (color: string): number[] =>
  [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16) || 0);
